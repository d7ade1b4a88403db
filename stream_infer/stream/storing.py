"""Storing state in the background, while the loop of a topology goes on."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from stream_infer.core.errors import FencedError
from stream_infer.stream.retry import GaveUp, wait_for_event

LAG_MAX_S = 2.0
"""A write that takes longer holds up what is acknowledged: what is not stored stays bounded."""


class Storing:
    """Calls `store` when it is woken, and every `interval_s`; one call at a time.

    `lost` hears of partitions that others own by now, `done` of the end of every call.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[None]],
        interval_s: float,
        *,
        lost: Callable[[FencedError], None],
        done: Callable[[], None],
    ) -> None:
        self._store = store
        self._interval_s = interval_s
        self._lost = lost
        self._done = done
        self._wanted = asyncio.Event()
        self._stopping = False
        self._began_s: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def wake(self) -> None:
        """Let what may be stored by now be stored soon."""
        self._wanted.set()

    async def keep_up(self) -> None:
        """Wait for the end of a write that takes too long."""
        if self._began_s is not None and time.monotonic() - self._began_s > LAG_MAX_S:
            await self._idle.wait()

    async def run(self) -> None:
        """Store, until `stop`."""
        while not self._stopping:
            await wait_for_event(self._wanted, self._interval_s)
            self._wanted.clear()
            self._began_s = time.monotonic()
            self._idle.clear()
            try:
                await self._store()
            except FencedError as error:
                self._lost(error)
            except GaveUp:
                pass  # Closing: what remains is stored on revocation.
            finally:
                self._began_s = None
                self._idle.set()
            self._done()

    def stop(self) -> None:
        """End after the call that is under way."""
        self._stopping = True
        self._wanted.set()
