"""One partition that a worker owns: its rows in memory, and what of them waits to be stored."""

from dataclasses import dataclass, field

from stream_infer.core.state import PartitionState, Position, Snapshot, merged
from stream_infer.store.eviction import EvictionWatch
from stream_infer.store.state import Ownership

PENDING_MAX = 4
"""Snapshots that may wait: while one is written, or its results are on their way, the next ones are
taken, so that what they hold waits for its own results only."""


@dataclass(slots=True)
class Owned:
    """A partition of ours: its rows, our right to write them, and what waits to be stored.

    Results of the events below `acknowledged` are acknowledged by Kafka. `pending` snapshots wait
    for that, in order. The one `under_way` is written, or will be again: what may be stored already
    must be repeated as it was. While the partition is `moving`, its rows are ahead of its position:
    nothing of it may be stored then, and never if that was the end.
    """

    state: PartitionState
    ownership: Ownership
    acknowledged: Position
    watch: EvictionWatch
    pending: list[Snapshot] = field(default_factory=list)
    under_way: Snapshot | None = None
    changed: bool = False
    moving: bool = False

    def storable(self, rows_max: int) -> bool:
        """Whether there are changes that belong to the position, and a snapshot may be taken.

        With more than `rows_max` rows of a shard in memory, none waits behind another: only when
        all is stored, rows can leave.
        """
        if not self.changed or self.moving:
            return False
        return self.is_stored or (
            len(self.pending) < PENDING_MAX
            and all(len(shard) <= rows_max for shard in self.state.shards.values())
        )

    @property
    def is_stored(self) -> bool:
        """Whether the store has all snapshots."""
        return not self.pending and self.under_way is None

    @property
    def writable(self) -> bool:
        """Whether there is a snapshot all of whose events have acknowledged results."""
        return self.under_way is not None or (
            bool(self.pending) and self.is_acknowledged(self.pending[0].position)
        )

    def begin_to_write(self) -> Snapshot:
        """Return what is to be written now, for a caller who knows that something is."""
        if self.under_way is None:
            due = sum(self.is_acknowledged(snapshot.position) for snapshot in self.pending)
            self.under_way = merged(self.pending[:due])
            del self.pending[:due]
        return self.under_way

    def written(self, ownership: Ownership) -> None:
        """Hear that what was under way is stored, which the ownership says."""
        self.ownership, self.under_way = ownership, None

    def evict(self, rows_max: int) -> None:
        """Let least recently used rows leave memory, if all that is not dirty is in the store."""
        if self.is_stored:
            for shard in self.state.shards.values():
                shard.evict(rows_max)

    def is_acknowledged(self, position: Position) -> bool:
        """Say whether all events below a position have acknowledged results."""
        return all(a >= b for a, b in zip(self.acknowledged, position, strict=True))
