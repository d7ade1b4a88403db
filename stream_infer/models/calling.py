"""Calling models within a time limit, so that one that hangs does not stop what waits for it."""

import time
import weakref
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from stream_infer.models.ensemble import Begun, Caller, Scorer, call_directly
from stream_infer.models.sessions import Rows, Scores

Answer = SimpleQueue[Scores | BaseException]
Calls = SimpleQueue[tuple[Scorer, Rows, Answer] | None]


def caller(timeout_ms: int) -> Caller:
    """Return how models are called: each within `timeout_ms`, or directly where that is 0."""
    return TimedCaller(timeout_ms / 1e3) if timeout_ms else call_directly


class TimedCaller:
    """Runs each model in a thread of its own and waits at most `timeout_s` from its beginning.

    Models begun together run together, so several that hang cost no more time than one. A model
    that is overdue is not called again before it has returned: it holds one thread and no more, and
    its late scores are dropped. The threads keep no process from ending.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._threads: dict[str, _ModelThread] = {}
        self._starting = Lock()

    def __call__(self, name: str, model: Scorer, vectors: Rows) -> Begun:
        """Begin to run a model (see `Caller`)."""
        thread = self._threads.get(name)
        if thread is None:
            with self._starting:
                thread = self._threads.get(name) or _ModelThread(name)
                self._threads[name] = thread
        return thread.begin(model, vectors, self.timeout_s)


class _ModelThread:
    """One model's thread; it ends when nobody can call it any more."""

    def __init__(self, name: str) -> None:
        self._calls: Calls = SimpleQueue()
        self._overdue: tuple[Answer, float] | None = None
        Thread(target=_serve, args=(self._calls,), name=f"model {name}", daemon=True).start()
        weakref.finalize(self, self._calls.put, None)

    def begin(self, model: Scorer, vectors: Rows, timeout_s: float) -> Begun:
        now_s = time.monotonic()
        if self._overdue is not None:
            overdue, began_s = self._overdue
            if overdue.empty():
                return partial(_refuse, f"a call begun {now_s - began_s:,.1f} s ago still runs")
            self._overdue = None
        answer: Answer = SimpleQueue()
        self._calls.put((model, vectors, answer))
        return partial(self._finish, answer, now_s, timeout_s)

    def _finish(self, answer: Answer, began_s: float, timeout_s: float) -> Scores:
        try:
            result = answer.get(timeout=max(0.0, began_s + timeout_s - time.monotonic()))
        except Empty:
            self._overdue = answer, began_s
            raise TimeoutError(f"not done within {timeout_s * 1e3:,.0f} ms") from None
        if isinstance(result, BaseException):
            try:
                raise result
            finally:
                del result  # Its traceback holds this frame.
        return result


def _refuse(reason: str) -> Scores:
    raise TimeoutError(reason)


def _serve(calls: Calls) -> None:
    while (call := calls.get()) is not None:
        model, vectors, answer = call
        try:
            answer.put(model.run(vectors))
        except BaseException as error:  # Raised where the scores are waited for.
            answer.put(error)
        # A waiting thread keeps neither a model that was replaced nor its vectors.
        del call, model, vectors, answer
