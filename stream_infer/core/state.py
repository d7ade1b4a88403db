"""Everything that a topology remembers of one partition, as a fold of a prefix of its log."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stream_infer.core.labels import ID_ROW, LABEL_ROW
from stream_infer.core.shard import Shard
from stream_infer.core.topology import Topology

IDS = "@ids"
LABELS = "@labels"
RESULTS = "@results"
ROWS_MAX = 1 << 31  # a caller bounds the rows by evicting between micro-batches


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of one shard to store, each its entity key and its bytes, and how long they may idle."""

    shard: str
    ttl_ms: int
    rows: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows changed since the last snapshot, and the log position up to which they are folded."""

    next_offset: int
    stream_time_us: int
    rows: list[StoredRows]


@dataclass(slots=True)
class PartitionState:
    """Rows of one partition in memory, and its position.

    `next_offset` is the first record not folded yet; records below `emit_from` are folded without
    being emitted, since their results were acknowledged before a restart; `stream_time_us` is the
    newest event time seen. `results` holds the latest result by key since the last snapshot.
    """

    partition: int
    next_offset: int
    emit_from: int
    stream_time_us: int
    shards: dict[str, Shard]
    ttl_ms: Mapping[str, int]
    results: dict[str, bytes] = field(default_factory=dict)

    def snapshot(self) -> Snapshot:
        """Take the rows changed since the last call; the caller must store them."""
        changed = {name: shard.take_dirty() for name, shard in self.shards.items()}
        changed[RESULTS] = list(self.results.items())
        rows = [
            StoredRows(name, self.ttl_ms[name], found) for name, found in changed.items() if found
        ]
        self.results = {}
        return Snapshot(self.next_offset, self.stream_time_us, rows)


def new_state(
    topology: Topology,
    partition: int,
    *,
    next_offset: int = 0,
    emit_from: int = 0,
    stream_time_us: int = 0,
    catch_up_us: int = 0,
) -> PartitionState:
    """Return a partition's state at a position, with no row in memory yet.

    Stored rows may expire when idle for their horizon plus `catch_up_us`: windows follow event
    time and expiry the wall clock, so a worker that far behind must still find them.
    """
    shards = {view.name: Shard(view.plan.row_dtype, ROWS_MAX) for view in topology.views}
    horizons = {view.name: view.plan.horizon_us for view in topology.views}
    if topology.stream.event_id is not None:
        shards[IDS] = Shard(ID_ROW, ROWS_MAX)
        horizons[IDS] = topology.stream.duplicates_within_us
    if topology.label is not None:
        shards[LABELS] = Shard(LABEL_ROW, ROWS_MAX)
        horizons[LABELS] = topology.label.within_us
    ttl_ms = {name: (us + catch_up_us) // 1000 for name, us in horizons.items()}
    ttl_ms[RESULTS] = topology.keep_results_us // 1000
    return PartitionState(
        partition,
        next_offset,
        emit_from,
        stream_time_us,
        shards,
        ttl_ms,
    )
