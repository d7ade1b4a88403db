"""Offsets committed in order, together, and never recorded as done when they were not."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

from stream_infer.failpoints import failpoint
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.processing import TP
from stream_infer.stream.retry import wait_for_event

log = logging.getLogger("stream_infer.stream")


class CommitResult(Enum):
    """What the group coordinator said."""

    DONE = "done"
    REBALANCED = "the group rebalanced; the next owner commits"
    ENDED = "the consumer has ended; the next owner commits"


class Committer:
    """Commits the latest noted positions, at most once per interval, and on `flush`.

    `commit` raises whatever went wrong; it is tried again with the next positions.
    """

    def __init__(
        self,
        commit: Callable[[Mapping[TP, int]], Awaitable[CommitResult]],
        interval_s: float,
        counters: StreamCounters,
    ) -> None:
        self._commit = commit
        self._interval_s = interval_s
        self._counters = counters
        self._wanted: dict[TP, int] = {}
        self._noted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self.committed: dict[TP, int] = {}
        """What Kafka confirmed."""

    def note(self, positions: Mapping[TP, int]) -> None:
        """Let these offsets be committed soon, where nothing higher is: a log that is folded again
        passes offsets that were committed before.
        """
        higher = {
            tp: offset
            for tp, offset in positions.items()
            if offset > max(self.committed.get(tp, -1), self._wanted.get(tp, -1))
        }
        self._wanted.update(higher)
        if higher:
            self._noted.set()

    def known(self, committed: Mapping[TP, int | None]) -> None:
        """Hear what is committed already."""
        for tp, offset in committed.items():
            if offset is not None:
                self.committed[tp] = max(offset, self.committed.get(tp, -1))

    async def run(self) -> None:
        """Commit until `stop`: at once what was noted, then again after the interval."""
        while not self._stopping.is_set():
            await self._noted.wait()
            if self._stopping.is_set():
                return
            await self.flush()
            await wait_for_event(self._stopping, max(self._interval_s, 0.01))

    def stop(self) -> None:
        """End `run`; what is noted waits for a last `flush`."""
        self._stopping.set()
        self._noted.set()

    async def flush(self) -> bool:
        """Commit what was noted; return whether Kafka confirmed it (or there was nothing)."""
        async with self._one_at_a_time:
            wanted, self._wanted = self._wanted, {}
            self._noted.clear()
            if not wanted:
                return True
            try:
                failpoint("committing")
                result = await self._commit(wanted)
                failpoint("committed")
            except Exception as error:
                self._counters.commit_failures += 1
                log.warning("committing offsets failed (%r); trying again", error)
                self._restore(wanted)
                return False
            except asyncio.CancelledError:
                self._restore(wanted)
                raise
            if result is not CommitResult.DONE:
                log.info("offsets not committed: %s", result.value)
                return False
            self._counters.commits += 1
            self.committed.update(wanted)
            return True

    def _restore(self, positions: Mapping[TP, int]) -> None:
        self._wanted = {**positions, **self._wanted}
        self._noted.set()
