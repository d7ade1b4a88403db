"""One partition that a worker owns: its rows in memory, and what of them waits to be stored."""

from dataclasses import dataclass

from stream_infer.core.state import PartitionState, Position, Snapshot
from stream_infer.store.eviction import EvictionWatch
from stream_infer.store.state import Ownership


@dataclass(slots=True)
class Owned:
    """A partition of ours: its rows, our right to write them, and what waits to be stored.

    Results of the events below `acknowledged` are acknowledged by Kafka. While it is `moving`, its
    rows are ahead of its position: nothing of it may be stored then, and never if that was the end.
    """

    state: PartitionState
    ownership: Ownership
    acknowledged: Position
    watch: EvictionWatch
    pending: Snapshot | None = None
    changed: bool = False
    moving: bool = False

    @property
    def storable(self) -> bool:
        """Whether there are changes that belong to the position, and no snapshot waits."""
        return self.changed and self.pending is None and not self.moving

    @property
    def writable(self) -> bool:
        """Whether a snapshot waits all of whose events have acknowledged results."""
        return self.pending is not None and self.is_acknowledged(self.pending.position)

    @property
    def snapshot(self) -> Snapshot:
        """What waits to be stored, for a caller who knows that something does."""
        assert self.pending is not None
        return self.pending

    def evict(self, rows_max: int) -> None:
        """Let least recently used rows leave memory, if all that is not dirty is in the store."""
        if self.pending is None:
            for shard in self.state.shards.values():
                shard.evict(rows_max)

    def is_acknowledged(self, position: Position) -> bool:
        """Say whether all events below a position have acknowledged results."""
        return all(a >= b for a, b in zip(self.acknowledged, position, strict=True))
