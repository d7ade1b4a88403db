"""What a worker does about a Redis that evicts rows: it says so, and begins partitions anew."""

import logging
from collections.abc import Callable, Sequence

from stream_infer.store.eviction import REMEDY, EvictionWatch, Memory
from stream_infer.store.state import Ownership, StateStore
from stream_infer.stream.refold_pace import RefoldPace

log = logging.getLogger("stream_infer.stream")


class Evictions:
    """Judges what Redis says of its memory, for all partitions of a topology."""

    def __init__(self, store: StateStore, monotonic_s: Callable[[], float]) -> None:
        self._store = store
        self._monotonic_s = monotonic_s
        self._pace = RefoldPace()
        self._warned = False
        self.discards = 0
        """Partitions folded anew because rows may have been evicted."""

    async def trusted(self, ownership: Ownership) -> Ownership:
        """Return the ownership of rows that are whole: these, or none at all.

        Raises EvictingError where beginning anew is of no use, as Redis goes on evicting.
        """
        self._warn(ownership.memory)
        if not ownership.suspect:
            return ownership
        self._pace.begin(ownership.partition, ownership.memory, self._monotonic_s())
        log.warning(
            "topology %r, partition %d: rows may have been evicted; folding it anew from the "
            "beginning of its log",
            self._store.topology,
            ownership.partition,
        )
        self.discards += 1
        return await self._store.discard(ownership)

    def watch(self, ownership: Ownership) -> EvictionWatch:
        """Watch from the beginning of an ownership."""
        return EvictionWatch(ownership.memory, self._monotonic_s())

    def asks(self, watch: EvictionWatch) -> bool:
        """Whether a read of rows must ask what Redis does when its memory is full."""
        return watch.wants(self._monotonic_s())

    def check(self, watch: EvictionWatch, reply: Sequence[bytes] | None, *, absent: bool) -> None:
        """Judge what came with a read of rows, if it asked; raises RowsEvictedError."""
        if reply is None:
            watch.unasked(absent=absent)
            return
        try:
            watch.judge(reply, absent=absent, now_s=self._monotonic_s())
        finally:
            self._warn(watch.memory)

    def _warn(self, memory: Memory) -> None:
        if memory.evicts and not self._warned:
            log.warning(
                "Redis evicts rows when its memory is full (%s): partitions whose rows are evicted "
                "are folded anew from the beginning of their log; %s",
                memory,
                REMEDY,
            )
        self._warned = memory.evicts
