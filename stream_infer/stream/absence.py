"""Redis that is away: how long it is waited for, and when it can be read again."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from stream_infer.settings import Settings
from stream_infer.store.connection import UNREACHABLE

T = TypeVar("T")
log = logging.getLogger("stream_infer.stream")
RETRY_S = 0.05
PARTS = 20


class Absence:
    """How long calls are tried before Redis counts as away; `probe` raises as long as it is."""

    def __init__(self, settings: Settings, probe: Callable[[], Awaitable[None]]) -> None:
        self._after_s = settings.state_away_after_s
        self._retry_max_s = settings.retry_max_s
        self._probe = probe
        self._probing: asyncio.Task[None] | None = None
        self.over = False
        """Whether Redis can be read again, since it was last taken for away."""

    async def tried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what a call returns; raises one of UNREACHABLE once Redis counts as away.

        The wait is counted in parts: of one that took longer, because this program itself was busy,
        no more counts than of any other. A busy worker must not blame Redis.
        """
        left = PARTS
        while True:
            task = asyncio.ensure_future(call())
            try:
                while left > 0 and not task.done():
                    await asyncio.wait({task}, timeout=self._after_s / PARTS)
                    left -= 1
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.wait({task})
            if task.cancelled():
                raise TimeoutError(f"no answer within {self._after_s:g} s")
            try:
                return task.result()
            except UNREACHABLE:
                if left <= 1:
                    raise
            await asyncio.sleep(self._after_s / PARTS)
            left -= 1

    def begin(self, error: BaseException) -> None:
        """Take Redis for away, and look from time to time whether it is back."""
        self.over = False
        if self._probing is not None and not self._probing.done():
            return
        log.warning(
            "Redis does not answer (%s: %s): predicting without state until it does",
            type(error).__name__,
            error,
        )
        self._probing = asyncio.create_task(self._wait(), name="redis-probe")

    async def end(self) -> None:
        """Stop looking: nothing waits for Redis any more."""
        if self._probing is not None:
            self._probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probing
            self._probing = None

    async def _wait(self) -> None:
        delay_s = RETRY_S
        while True:
            await asyncio.sleep(delay_s)
            try:
                async with asyncio.timeout(self._after_s):
                    await self._probe()
            except (RedisError, *UNREACHABLE):
                delay_s = min(2 * delay_s, self._retry_max_s)
            else:
                break
        log.info("Redis answers again: folding what was predicted without state")
        self.over = True
