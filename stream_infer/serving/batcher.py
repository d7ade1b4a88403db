"""Batches of what waits: nothing is held back; what comes while all slots are busy shares one."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from stream_infer.serving.errors import OverloadedError

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Hands waiting items to `work` in batches, as soon as one of `slots` is free.

    `work` returns a result, or an exception, for each item; what it raises goes to all of them.
    `size` says how much an item counts: a batch takes items up to `batch_max` (one always fits),
    and `submit` raises OverloadedError when more than `waiting_max` would wait or one waits longer
    than `wait_max_s` (None: any), and TimeoutError when there is no result after `timeout_s` (None:
    any), waiting included.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        size: Callable[[T], int],
        *,
        slots: int,
        batch_max: int,
        waiting_max: int,
        wait_max_s: float | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._work = work
        self._size = size
        self._slots = slots
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._wait_max_s = math.inf if wait_max_s is None else wait_max_s
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[T, int, asyncio.Future[R], float]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self.waiting_size = 0

    async def submit(self, item: T) -> R:
        """Return the result of one item."""
        size = self._size(item)
        loop = asyncio.get_running_loop()
        if self._waiting and (
            self.waiting_size + size > self._waiting_max
            or loop.time() - self._waiting[0][3] > self._wait_max_s
        ):
            raise OverloadedError(
                "too many events wait to be scored", "server", "try again after Retry-After"
            )
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, size, future, loop.time()))
        self.waiting_size += size
        if len(self._running) < self._slots:
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        async with asyncio.timeout(self._timeout_s):
            return await future

    async def _run(self) -> None:
        while self._waiting:
            items, futures = self._take()
            if not items:
                continue
            try:
                results: Sequence[R | Exception] = await self._work(items)
            except Exception as error:
                results = [error] * len(items)
            for future, result in zip(futures, results, strict=True):
                if future.done():
                    continue  # Its caller has gone.
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _take(self) -> tuple[list[T], list[asyncio.Future[R]]]:
        items: list[T] = []
        futures: list[asyncio.Future[R]] = []
        taken = 0
        while self._waiting:
            item, size, future, _ = self._waiting[0]
            if items and taken + size > self._batch_max:
                break
            self._waiting.popleft()
            self.waiting_size -= size
            if not future.done():
                items.append(item)
                futures.append(future)
                taken += size
        return items, futures
