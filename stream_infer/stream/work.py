"""One partition's share of a micro-batch, on its way through the processor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream_infer.core.columns import Batch, Bools, Ints
from stream_infer.core.engine import Engine
from stream_infer.core.shard import Shard
from stream_infer.core.vectors import BatchColumns
from stream_infer.store.batch_features import FeatureRequest
from stream_infer.store.state import Ownership
from stream_infer.stream.away import Away
from stream_infer.stream.dead_letters import dead_letter
from stream_infer.stream.holdings import Owned
from stream_infer.stream.processing import TP, ConsumerRecord, MergedRecords, OutgoingRecord


@dataclass(slots=True)
class Work:
    """Records of one partition, decoded; of several topics, `sources` int8[n] says of which.

    `members` are the partition's topics, in the order of the topology's streams.
    """

    tp: TP
    members: Sequence[TP]
    owned: Owned | Away
    records: Sequence[ConsumerRecord]
    offsets: Ints
    sources: npt.NDArray[np.int8] | None
    batch: Batch
    columns: BatchColumns | None = None
    lacking: dict[str, list[str]] = field(default_factory=dict)
    request: FeatureRequest | None = None
    before: Ownership | None = None
    asks_memory: bool = False
    rekeyed: Mapping[str, Shard] = field(default_factory=dict)

    @property
    def whole(self) -> Owned:
        """The partition with its rows, for a caller who knows that it has them."""
        assert isinstance(self.owned, Owned)
        return self.owned

    @property
    def fresh(self) -> Bools:
        """Which records, bool[n], were not published before a restart."""
        return self.owned.state.emits(self.offsets, self.sources)

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

    def dead_letters(self, topology: str, topic: str) -> list[OutgoingRecord]:
        """Return what to publish of the records that are no acceptable event."""
        if not self.batch.rejects:
            return []
        fresh = self.fresh.tolist()
        return [
            dead_letter(
                self.records[reject.position],
                self._place(reject.position),
                topology=topology,
                topic=topic,
                stage=reject.stage,
                reason=reject.reason,
            )
            for reject in self.batch.rejects
            if fresh[reject.position]
        ]

    def _place(self, position: int) -> TP:
        return self.tp if self.sources is None else self.members[self.sources[position]]


def decoded(
    engine: Engine,
    tp: TP,
    members: Sequence[TP],
    owned: Owned | Away,
    records: Sequence[ConsumerRecord],
) -> Work:
    """Decode one partition's records."""
    n = len(records)
    sources = None
    if isinstance(records, MergedRecords):
        sources = np.array(records.sources, np.int8)
    offsets = np.fromiter((record.offset for record in records), np.int64, n)
    batch = engine.decode(
        [record.value for record in records],
        offsets,
        np.fromiter((record.timestamp for record in records), np.int64, n) * 1000,
        sources,
    )
    return Work(tp, members, owned, records, offsets, sources, batch)
