"""Calling models within a time limit, so that one that hangs does not stop what waits for it."""

import asyncio
import logging
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

from stream_infer.models.ensemble import Begun, Caller, Elsewhere, Scorer, call_directly
from stream_infer.models.sentinel import Sentinel
from stream_infer.models.sessions import FOREST_ROWS_MIN, OnnxModel, Rows, Scores

log = logging.getLogger("stream_infer.models")

ROWS_IN_TURN = FOREST_ROWS_MIN - 1
"""Models of a batch of up to so many rows run one after the other in one thread, none by tables."""
TURN_MAX_S = 0.002
"""How long they may take for it, before those that wait get threads of their own."""

DISTRUSTED_CALLS = 1_000
"""For so many batches, models are called in threads of their own after one was overdue."""

BEGIN_MAX_S = 10.0
"""How long a thread may take to begin."""

Calls = SimpleQueue["deque[_Call] | None"]

_still_running: list["_Call"] = []
"""Overdue calls of this process, for its end: they outlast whoever made them."""


def caller(timeout_ms: int) -> Caller:
    """Return how models are called: each within `timeout_ms`, or directly where that is 0."""
    return TimedCaller(timeout_ms / 1e3) if timeout_ms else call_directly


class TimedCaller:
    """Runs models in threads of its own and waits at most `timeout_s` from their beginning.

    The models of a small batch run one after the other in one thread, since to hand a call over to
    a thread and back may cost more than the model does. Where they are not done soon, those that
    have not begun are begun in threads of their own, as those of a large batch are at once. So
    models run together, and several that hang cost no more time than one.

    Smaller yet is the cost of no thread at all: the models of a small batch run in their caller's,
    if all are ONNX graphs, which can be stopped between two operators, and none was overdue lately.
    Only the first time that several hang, they may cost a limit each.

    Many rows of trees are scored by tables (`OnnxModel.uses_tables`), in their caller's thread too:
    that takes a bounded time, and has no limit of its own.

    A model that is overdue is not called again before it has returned: it holds one thread and no
    more, and its late scores are dropped. The threads keep no process from ending.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._threads: dict[str, _Thread] = {}
        self._overdue: dict[str, _Call] = {}
        self._starting = Lock()
        self._sentinel = Sentinel(timeout_s)
        self._distrust = 0

    def __call__(self, models: Mapping[str, Scorer], vectors: Rows) -> list[Begun]:
        """Begin to run models (see `Caller`)."""
        graphs = [model for model in models.values() if isinstance(model, OnnxModel)]
        if len(vectors) <= ROWS_IN_TURN and len(graphs) == len(models):
            if not self._distrust:
                return [partial(self._here, model, vectors) for model in graphs]
            self._distrust -= 1
        now_s = time.monotonic()
        calls = [_Call(name, model, vectors, now_s) for name, model in models.items()]
        free = [call for call in calls if not self._is_running(call.name)]
        in_turn = len(free) > 1 and len(vectors) <= ROWS_IN_TURN
        begin = _Turn(self, free).finish_of if in_turn else self._begin
        return [begin(call) if call in free else self._refusal(call) for call in calls]

    def finish(self, call: "_Call", thread: "_Thread") -> Scores:
        """Wait for a call's scores until they are overdue; say so of the thread that runs it."""
        try:
            result = call.take(call.began_s + self.timeout_s)
        except Empty:
            self._overdue[call.name] = call
            self.retire(thread)
            _still_running[:] = [*filter(_runs, _still_running), call]
            self._distrust = DISTRUSTED_CALLS
            raise TimeoutError(f"not done within {self.timeout_s * 1e3:,.0f} ms") from None
        if isinstance(result, BaseException):
            try:
                raise result
            finally:
                del result  # Its traceback holds this frame.
        return result

    def _here(self, model: OnnxModel, vectors: Rows) -> Scores:
        """Run a model in this thread, unless one was overdue since the batch began."""
        if self._distrust:
            return self._alone(_Call(model.name, model, vectors, time.monotonic()))()
        try:
            return self._sentinel.run(model, vectors)
        except TimeoutError:
            self._distrust = DISTRUSTED_CALLS
            raise

    def thread(self, name: str) -> "_Thread":
        """Return the thread of this name, begun when it is first asked for."""
        thread = self._threads.get(name)
        if thread is None:
            with self._starting:
                thread = self._threads.get(name) or _Thread(name)
                self._threads[name] = thread
        return thread

    def retire(self, thread: "_Thread") -> None:
        """Give no more calls to a thread, which ends when its last one has returned."""
        with self._starting:
            if self._threads.get(thread.name) is thread:
                del self._threads[thread.name]

    def _begin(self, call: "_Call") -> Begun:
        """Run a call in a thread of its own; trees, once they are waited for, in that thread.

        That is many steps of numpy, each of which would have to wait for the interpreter's lock.
        """
        model, vectors = call.model, call.vectors
        if isinstance(model, OnnxModel) and vectors is not None and model.uses_tables(len(vectors)):
            return partial(model.run, vectors)
        return self._alone(call)

    def _alone(self, call: "_Call") -> Begun:
        thread = self.thread(f"model {call.name}")
        thread.calls.put(deque((call,)))
        return _Alone(self, call, thread)

    def _is_running(self, name: str) -> bool:
        overdue = self._overdue.get(name)
        if overdue is None:
            return False
        if not overdue.runs:
            del self._overdue[name]
        return overdue.runs

    def _refusal(self, call: "_Call") -> Begun:
        since_s = call.began_s - self._overdue[call.name].began_s
        return partial(_refuse, f"a call begun {since_s:,.1f} s ago still runs")


class _Call:
    """One call of a model, begun at `began_s`."""

    __slots__ = ("_answer", "_arrived", "_result", "_tell", "began_s", "model", "name", "vectors")

    def __init__(self, name: str, model: Scorer, vectors: Rows, began_s: float) -> None:
        self.name = name
        self.model: Scorer | None = model
        self.vectors: Rows | None = vectors
        self.began_s = began_s
        self._answer: SimpleQueue[Scores | BaseException] = SimpleQueue()
        self._tell: Callable[[], object] | None = None
        self._arrived = False
        self._result: Scores | BaseException | None = None

    @property
    def runs(self) -> bool:
        """Whether there is no answer yet."""
        return not self._arrived and self._answer.empty()

    def run(self) -> None:
        """Run the model; what it raises is raised where the scores are waited for."""
        model, vectors = self.model, self.vectors
        # A thread keeps neither a model that was replaced nor its vectors.
        self.model = self.vectors = None
        assert model is not None
        assert vectors is not None
        try:
            self._answer.put(model.run(vectors))
        except BaseException as error:
            self._answer.put(error)
        if self._tell is not None:
            self._tell()

    def when_answered(self, tell: Callable[[], object]) -> None:
        """Have `tell` called once there is an answer, by the thread that runs the call or here."""
        self._tell = tell
        if not self.runs:
            tell()

    def wait(self, until_s: float) -> None:
        """Wait for the answer until then; raises Empty where there is none."""
        if not self._arrived:
            self._result = self._answer.get(timeout=max(0.0, until_s - time.monotonic()))
            self._arrived = True

    def take(self, until_s: float) -> Scores | BaseException:
        """Wait for the answer, and give it away: an exception must not be held by what it holds."""
        self.wait(until_s)
        result, self._result = self._result, None
        assert result is not None
        return result


class _Alone(Elsewhere):
    """A call that a thread of its own runs."""

    __slots__ = ("_call", "_caller", "_thread")

    def __init__(self, caller: TimedCaller, call: _Call, thread: "_Thread") -> None:
        self._caller = caller
        self._call = call
        self._thread = thread

    def __call__(self) -> Scores:
        return self._caller.finish(self._call, self._thread)

    async def ended(self) -> None:
        call = self._call
        if not call.runs:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # The loop may be closed when an overdue call ends.
                loop.call_soon_threadsafe(ended.set)

        call.when_answered(tell)
        with suppress(TimeoutError):
            async with asyncio.timeout(call.began_s + self._caller.timeout_s - time.monotonic()):
                await ended.wait()


class _Turn:
    """Calls that one thread runs one after the other, for as long as that goes fast."""

    def __init__(self, caller: TimedCaller, calls: Sequence[_Call]) -> None:
        self._caller = caller
        self._todo = deque(calls)
        self._last = calls[-1]
        self._thread = caller.thread("models")
        self._thread_of: dict[str, _Thread] | None = None
        self._thread.calls.put(self._todo)

    def finish_of(self, call: _Call) -> Begun:
        """Return what waits for the scores of one of the calls."""
        return partial(self._finish, call)

    def _finish(self, call: _Call) -> Scores:
        if self._thread_of is None:
            self._thread_of = self._hurry()
        return self._caller.finish(call, self._thread_of.get(call.name, self._thread))

    def _hurry(self) -> dict[str, "_Thread"]:
        """Wait a little for all; then begin each that has not begun in a thread of its own."""
        threads: dict[str, _Thread] = {}
        try:
            # The last first, so that this thread wakes once.
            self._last.wait(self._last.began_s + min(TURN_MAX_S, self._caller.timeout_s / 4))
        except Empty:
            while self._todo:
                with suppress(IndexError):  # The thread that runs them has taken the last one.
                    call = self._todo.popleft()
                    threads[call.name] = self._caller.thread(f"model {call.name}")
                    threads[call.name].calls.put(deque((call,)))
        return threads


class _Thread:
    """A thread that runs deques of calls, in order; it ends when nobody has it any more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: Calls = SimpleQueue()
        thread: Any = Thread(target=_serve, args=(self.calls,), name=name, daemon=True)
        thread._started = _Begun()
        thread.start()
        weakref.finalize(self, self.calls.put, None)


class _Begun(Event):
    """Whether a thread has begun: its start would wait for ever for one that found no memory."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it, not for ever; raises MemoryError then."""
        if not super().wait(BEGIN_MAX_S):
            raise MemoryError("a thread did not begin")
        return True


def _runs(call: _Call) -> bool:
    return call.runs


def exit_code(code: int) -> int:
    """Return the exit code of a process that is about to end, or end it with that at once.

    The latter while an overdue call runs: native code must not run while the interpreter is taken
    down around it, which aborts the process.
    """
    names = sorted(call.name for call in filter(_runs, _still_running))
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
    while (todo := calls.get()) is not None:
        while todo:
            with suppress(IndexError):  # Who waits has taken the last one.
                todo.popleft().run()
        del todo
