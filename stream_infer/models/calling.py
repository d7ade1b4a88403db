"""Calling models within a time limit, so that one that hangs does not stop what waits for it."""

import logging
import os
import sys
import time
import weakref
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from stream_infer.models.ensemble import Begun, Caller, Scorer, call_directly
from stream_infer.models.sessions import Rows, Scores

log = logging.getLogger("stream_infer.models")

Answer = SimpleQueue[Scores | BaseException]
Calls = SimpleQueue[tuple[Scorer, Rows, Answer] | None]

_still_running: list[tuple[str, Answer]] = []
"""Overdue calls of this process, for its end: they outlast whoever made them."""


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
        self.name = name
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
            _still_running[:] = [*filter(_runs, _still_running), (self.name, answer)]
            raise TimeoutError(f"not done within {timeout_s * 1e3:,.0f} ms") from None
        if isinstance(result, BaseException):
            try:
                raise result
            finally:
                del result  # Its traceback holds this frame.
        return result


def _runs(call: tuple[str, Answer]) -> bool:
    return call[1].empty()


def exit_code(code: int) -> int:
    """Return the exit code of a process that is about to end, or end it with that at once.

    The latter while an overdue call runs: native code must not run while the interpreter is taken
    down around it, which aborts the process.
    """
    names = sorted(name for name, _ in filter(_runs, _still_running))
    if names:
        log.warning("ending while a call of %s still runs", ", ".join(names))
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


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
