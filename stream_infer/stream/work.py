"""A micro-batch on its way through the processor: the records of several partitions, decoded."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import sub

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stream_infer.core.arrays import Bools, Ints
from stream_infer.core.columns import Batch
from stream_infer.core.engine import Engine
from stream_infer.core.partitioned import Found, Partitioned, from_on
from stream_infer.core.stored_rows import StoredRows
from stream_infer.core.vectors import BatchColumns
from stream_infer.stream.away import Away
from stream_infer.stream.dead_letters import dead_letter
from stream_infer.stream.owned import Owned
from stream_infer.stream.processing import TP, ConsumerRecord, MergedRecords, OutgoingRecord


class Part(Struct, frozen=True):
    """The records of one partition; of several topics, `sources` int8[n] says of which.

    `members` are the partition's topics, in the order of the topology's streams.
    """

    tp: TP
    members: Sequence[TP]
    owned: Owned | Away
    offsets: Ints
    sources: npt.NDArray[np.int8] | None

    def advance(self) -> dict[TP, int]:
        """Move the state's position past the records; return it for each topic that moved."""
        state = self.owned.state
        if self.sources is None:
            end = int(self.offsets[-1]) + 1
            state.position = (end,)
            return {self.tp: end}
        position, moved = list(state.position), {}
        for number, tp in enumerate(self.members):
            offsets = self.offsets[self.sources == number]
            if len(offsets):
                position[number] = moved[tp] = int(offsets[-1]) + 1
        state.position = tuple(position)
        return moved

    def place(self, number: int) -> TP:
        """Return the topic and partition of one of the records."""
        return self.tp if self.sources is None else self.members[self.sources[number]]


@dataclass(slots=True)
class Work:
    """Parts whose events are one batch: `bounds` are those of the parts among the records.

    Either all of them have their rows, or none has. `offsets` int64[n] are the records', and
    `sources` int8[n] their streams', None where there is but one.
    """

    parts: Sequence[Part]
    records: Sequence[ConsumerRecord]
    bounds: Sequence[int]
    events: Partitioned
    offsets: Ints
    sources: npt.NDArray[np.int8] | None
    found: Found | None = None
    columns: BatchColumns | None = None
    rekeyed: Mapping[str, StoredRows] = field(default_factory=dict)

    @property
    def batch(self) -> Batch:
        """The acceptable events."""
        return self.events.batch

    @property
    def has_rows(self) -> bool:
        """Whether the parts have their rows."""
        return isinstance(self.parts[0].owned, Owned)

    @property
    def owned(self) -> list[tuple[TP, Owned]]:
        """The parts that have their rows."""
        return [(part.tp, part.owned) for part in self.parts if isinstance(part.owned, Owned)]

    def fresh(self) -> Bools:
        """Return which records, bool[n], were not published before a restart."""
        starts = [part.owned.state.emit_from for part in self.parts]
        return from_on(starts, self.bounds, self.offsets, self.sources)

    def partitions(self, bounds: Sequence[int]) -> list[TP]:
        """Return the partition of each of some events, given the parts' bounds among them."""
        counts = map(sub, bounds[1:], bounds)
        return [part.tp for part, n in zip(self.parts, counts, strict=True) for _ in range(n)]

    def dead_letters(
        self, topology: str, topic: str, fresh: Bools
    ) -> dict[TP, list[OutgoingRecord]]:
        """Return, by partition, what to publish of the records that are no acceptable event."""
        letters: dict[TP, list[OutgoingRecord]] = {}
        for reject in self.batch.rejects:
            if not fresh[reject.position]:
                continue
            number = bisect_right(self.bounds, reject.position) - 1
            part = self.parts[number]
            letter = dead_letter(
                self.records[reject.position],
                part.place(reject.position - self.bounds[number]),
                topology=topology,
                topic=topic,
                stage=reject.stage,
                reason=reject.reason,
            )
            letters.setdefault(part.tp, []).append(letter)
        return letters


def decoded(
    engine: Engine,
    members: Callable[[int], Sequence[TP]],
    held: Mapping[TP, Owned | Away],
    records: Mapping[TP, Sequence[ConsumerRecord]],
) -> Work:
    """Decode the records of the partitions that are held."""
    everything = [record for tp in held for record in records[tp]]
    n = len(everything)
    bounds = list(accumulate((len(records[tp]) for tp in held), initial=0))
    offsets = np.fromiter([record.offset for record in everything], np.int64, n)
    merges = len(engine.topology.streams) > 1
    parts = [
        Part(
            tp,
            members(tp.partition) if merges else (tp,),
            owned,
            offsets[start:end],
            _sources(records[tp]),
        )
        for (tp, owned), (start, end) in zip(held.items(), pairwise(bounds), strict=True)
    ]
    several = [part.sources for part in parts if part.sources is not None]
    sources = np.concatenate(several) if several else None
    batch = engine.decode(
        [record.value for record in everything],
        offsets,
        np.fromiter([record.timestamp for record in everything], np.int64, n) * 1000,
        sources,
    )
    states = [part.owned.state for part in parts]
    event_bounds: Sequence[int] = bounds
    if batch.rejects:
        event_bounds = np.searchsorted(batch.positions, bounds).tolist()
    return Work(
        parts, everything, bounds, Partitioned(batch, states, event_bounds), offsets, sources
    )


def _sources(records: Sequence[ConsumerRecord]) -> npt.NDArray[np.int8] | None:
    return np.array(records.sources, np.int8) if isinstance(records, MergedRecords) else None
