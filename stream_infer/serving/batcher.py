"""Batches of what waits: nothing is held back; what comes during one shares the next."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from stream_infer.serving.errors import overloaded

T = TypeVar("T")
R = TypeVar("R")

RISE, FALL = 1 / 2, 1 / 16
"""How fast the expected time of a batch follows longer ones, and shorter ones."""


class Waiting(Generic[T, R]):
    """One item until it is answered: `answer` is called once, with its result or an exception."""

    __slots__ = ("answer", "item", "since_s", "size")

    def __init__(
        self, item: T, size: int, since_s: float, answer: Callable[[R | Exception], None]
    ) -> None:
        self.item = item
        self.size = size
        self.since_s = since_s
        self.answer: Callable[[R | Exception], None] | None = answer

    def end(self, result: R | Exception) -> None:
        """Answer, unless that has happened."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer(result)


class Batcher(Generic[T, R]):
    """Hands waiting items to `work` in batches, one after the other.

    Two at a time would each be half as large where items come fast, and a batch costs its price
    whatever it holds.

    `work` returns a result, or an exception, for each item; what it raises goes to all of them.
    `size` says how much an item counts: a batch takes items up to `batch_max` (one always fits).

    OverloadedError is raised where more than `waiting_max` would wait; and where a batch's worth
    waits already and the first of it has waited for `wait_max_s` (None: any time), or more would
    wait than is begun within that time, judged by how long batches take. TimeoutError is the result
    of what has none after `timeout_s` (None: any time), waiting included. `clock` returns seconds.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        size: Callable[[T], int],
        *,
        batch_max: int,
        waiting_max: int,
        wait_max_s: float | None = None,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._size = size
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._wait_max_s = wait_max_s
        self._timeout_s = timeout_s
        self._clock = clock  # Not the loop's, which stands still while a batch is computed.
        self._waiting: deque[Waiting[T, R]] = deque()
        self._open: deque[Waiting[T, R]] = deque()  # In the order in which they time out.
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self.batch_s = 0.0
        """How long a batch is expected to take."""
        self.waiting_size = 0

    def is_full(self, size: int = 1) -> bool:
        """Whether an item of that size would be refused."""
        if not self._waiting:
            return False
        after = self.waiting_size + size
        if after > self._waiting_max:
            return True
        # The next batch takes its worth at once, however long the one before it takes.
        if after <= self._batch_max or self._wait_max_s is None:
            return False
        waited_s = self._clock() - self._waiting[0].since_s
        ahead_s = after / self._batch_max * self.batch_s
        return waited_s > self._wait_max_s or ahead_s > self._wait_max_s

    def offer(self, item: T, answer: Callable[[R | Exception], None]) -> Waiting[T, R]:
        """Let an item wait for its result; raises OverloadedError where it would wait too long."""
        size = self._size(item)
        if self.is_full(size):
            raise overloaded()
        loop = asyncio.get_running_loop()
        waiting: Waiting[T, R] = Waiting(item, size, self._clock(), answer)
        self._waiting.append(waiting)
        self.waiting_size += size
        if self._timeout_s is not None:
            self._open.append(waiting)
            if self._timer is None:
                self._timer = loop.call_later(self._timeout_s, self._expire)
        if self._running is None:
            self._running = loop.create_task(self._run())
        return waiting

    async def submit(self, item: T) -> R:
        """Return the result of one item, or raise what it is; see `offer`."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()

        def answer(result: R | Exception) -> None:
            if future.done():
                return  # Its caller has gone.
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        waiting = self.offer(item, answer)
        try:
            return await future
        finally:
            waiting.answer = None

    async def _run(self) -> None:
        try:
            await self._work_off()
        finally:
            # Here, not when the loop has heard that the task is done: items may come before that.
            self._running = None

    async def _work_off(self) -> None:
        while self._waiting:
            batch = self._take()
            if not batch:
                continue
            begun_s = self._clock()
            try:
                results: Sequence[R | Exception] = await self._work([one.item for one in batch])
            except Exception as error:
                results = [error] * len(batch)
            for one, result in zip(batch, results, strict=True):
                one.end(result)
            while self._open and self._open[0].answer is None:
                self._open.popleft()
            longer_s = self._clock() - begun_s - self.batch_s
            self.batch_s += longer_s * (RISE if longer_s > 0 else FALL)

    def _take(self) -> list[Waiting[T, R]]:
        batch: list[Waiting[T, R]] = []
        taken = 0
        while self._waiting:
            first = self._waiting[0]
            if batch and taken + first.size > self._batch_max:
                break
            self._waiting.popleft()
            self.waiting_size -= first.size
            if first.answer is not None:
                batch.append(first)
                taken += first.size
        return batch

    def _expire(self) -> None:
        assert self._timeout_s is not None
        self._timer = None
        while self._open:
            first = self._open[0]
            left_s = first.since_s + self._timeout_s - self._clock()
            if first.answer is not None and left_s > 0:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(left_s, self._expire)
                return
            self._open.popleft()
            first.end(TimeoutError())
