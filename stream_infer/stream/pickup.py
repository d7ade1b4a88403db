"""What waits to be processed, over all partitions: one micro-batch, when a worker is free."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter

from stream_infer.stream.processing import TP, ConsumerRecord

_KEY: Callable[[ConsumerRecord], bytes | None] = attrgetter("key")
_VALUE: Callable[[ConsumerRecord], bytes | None] = attrgetter("value")
Batch = dict[TP, list[ConsumerRecord]]


def size_bytes(records: Sequence[ConsumerRecord]) -> int:
    """Return the bytes of keys and values."""
    found = chain(map(_VALUE, records), map(_KEY, records))
    return sum(map(len, filter(None, found)))


class Pickup:
    """Records in arrival order, bounded; fetches of a partition join what already waits.

    Partitions are closed until `open` says from which offset they are read; records of closed
    partitions and records below the position are dropped: whoever opens them reads them again.
    """

    def __init__(
        self,
        *,
        batch_records_max: int,
        batch_bytes_max: int,
        waiting_records_max: int,
        waiting_bytes_max: int,
    ) -> None:
        self._batch_records_max = batch_records_max
        self._batch_bytes_max = batch_bytes_max
        self._waiting_records_max = waiting_records_max
        self._waiting_bytes_max = waiting_bytes_max
        self._chunks: deque[tuple[TP, list[ConsumerRecord], int]] = deque()
        self._positions: dict[TP, int] = {}
        self._filled = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self.wanting = asyncio.Event()
        """To be set when whoever takes could do with more; here, where there is nothing to take."""
        self.records = 0
        self.bytes = 0

    def open(self, tp: TP, position: int) -> None:
        """Accept records of a partition from an offset on."""
        self._positions[tp] = position

    def close(self, partitions: Sequence[TP]) -> None:
        """Drop what waits of these partitions, and what will still come."""
        gone = set(partitions)
        for tp in gone:
            self._positions.pop(tp, None)
        kept = [chunk for chunk in self._chunks if chunk[0] not in gone]
        self._chunks = deque(kept)
        self.records = sum(len(records) for _, records, _ in kept)
        self.bytes = sum(size for _, _, size in kept)
        self._update()

    @property
    def positions(self) -> Mapping[TP, int]:
        """The offset from which on records are accepted next, of each open partition."""
        return self._positions

    @property
    def open_partitions(self) -> set[TP]:
        return set(self._positions)

    def put(self, tp: TP, records: Sequence[ConsumerRecord], end: int = 0) -> None:
        """Let records wait, all that there are up to `end`, or up to the last of them.

        The bound is kept by who fetches: see `room`.
        """
        position = self._positions.get(tp)
        if position is None or not records:
            return
        fresh = list(records)
        if fresh[0].offset < position:
            fresh = [record for record in fresh if record.offset >= position]
            if not fresh:
                return
        self._positions[tp] = max(fresh[-1].offset + 1, end)
        size = size_bytes(fresh)
        self._chunks.append((tp, fresh, size))
        self.records += len(fresh)
        self.bytes += size
        self._update()

    async def take(self) -> Batch:
        """Wait for records; return all that wait, up to the caps of a batch."""
        while not self._chunks:
            self.wanting.set()
            await self._filled.wait()
        return self.ready()

    def ready(self) -> Batch:
        """Return the records that wait now, up to the caps of a batch."""
        batch: Batch = {}
        records_left, bytes_left = self._batch_records_max, self._batch_bytes_max
        while self._chunks and records_left > 0 and bytes_left > 0:
            tp, records, size = self._chunks.popleft()
            if len(records) > records_left or size > bytes_left:
                if size > bytes_left:
                    records, rest = _split(records, records_left, bytes_left, atleast=not batch)
                else:
                    records, rest = records[:records_left], records[records_left:]
                whole, size = size, size_bytes(records)
                if rest:
                    self._chunks.appendleft((tp, rest, whole - size))
                if not records:
                    break
            waiting = batch.get(tp)
            if waiting is None:
                batch[tp] = records
            else:
                waiting.extend(records)
            records_left -= len(records)
            bytes_left -= size
            self.records -= len(records)
            self.bytes -= size
        self._update()
        return batch

    @property
    def waiting(self) -> tuple[int, int]:
        """Records and bytes that wait."""
        return self.records, self.bytes

    @property
    def has_room(self) -> bool:
        return self.records < self._waiting_records_max and self.bytes < self._waiting_bytes_max

    async def room(self) -> None:
        """Wait until less waits than the bounds allow."""
        await self._roomy.wait()

    def _update(self) -> None:
        if self._chunks:
            self._filled.set()
        else:
            self._filled.clear()
        if self.has_room:
            self._roomy.set()
        else:
            self._roomy.clear()


def _split(
    records: list[ConsumerRecord], records_max: int, bytes_max: int, *, atleast: bool
) -> tuple[list[ConsumerRecord], list[ConsumerRecord]]:
    """Split where a cap is reached; with `atleast`, the first part has one record or more."""
    taken = 0
    for count, record in enumerate(records[:records_max]):
        taken += len(record.value or b"") + len(record.key or b"")
        if taken > bytes_max:
            cut = max(count, 1) if atleast else count
            return records[:cut], records[cut:]
    return records[:records_max], records[records_max:]
