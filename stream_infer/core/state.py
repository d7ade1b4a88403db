"""Everything that a topology remembers of one partition, as a fold of a prefix of its log.

The log of a partition is that of its topic, or the logs of several topics merged by event time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from stream_infer.core.labels import ID_ROW, LABEL_ROW
from stream_infer.core.shard import Shard, take_dirty_together
from stream_infer.core.slab import Slab
from stream_infer.core.topology import Topology

IDS = "@ids"
LABELS = "@labels"
RESULTS = "@results"
ROWS_MAX = 1 << 31  # a caller bounds the rows by evicting between micro-batches

Position = tuple[int, ...]
"""An offset, or another number, for each stream of a topology, in the order of `streams`."""


class StoredRows(Struct, frozen=True):
    """Rows of one shard to store, each its entity key and its bytes, and how long they may idle."""

    shard: str
    ttl_ms: int
    rows: list[tuple[str, bytes]]


class Snapshot(Struct, frozen=True):
    """Rows changed since the last snapshot, and the log position up to which they are folded."""

    position: Position
    stream_times_us: Position
    rows: list[StoredRows]


@dataclass(slots=True)
class PartitionState:
    """Rows of one partition in memory, and its position.

    `position` has the first offset of each stream that is not folded yet; records below
    `emit_from` are folded without being emitted, since their results were acknowledged before a
    restart. Pairs of a prediction and its label are left out below `pairs_from`, which is lower
    where events were predicted before they could be folded. `stream_times_us` are the newest event
    times seen. `results` holds the latest result by key since the last snapshot.
    """

    partition: int
    position: Position
    emit_from: Position
    pairs_from: Position
    stream_times_us: Position
    shards: dict[str, Shard]
    ttl_ms: Mapping[str, int]
    results: dict[str, bytes] = field(default_factory=dict)


def snapshots(states: Sequence[PartitionState]) -> list[Snapshot]:
    """Take what changed in each of a topology's partitions since its last snapshot.

    The caller must store it.
    """
    changed: list[dict[str, list[tuple[str, bytes]]]] = [{} for _ in states]
    for name in states[0].shards if states else ():
        together = take_dirty_together([state.shards[name] for state in states])
        for found, of_shard in zip(changed, together, strict=True):
            found[name] = of_shard
    taken: list[Snapshot] = []
    for state, found in zip(states, changed, strict=True):
        found[RESULTS], state.results = list(state.results.items()), {}
        rows = [StoredRows(name, state.ttl_ms[name], of) for name, of in found.items() if of]
        taken.append(Snapshot(state.position, state.stream_times_us, rows))
    return taken


def new_state(
    topology: Topology,
    partition: int,
    *,
    position: Position | None = None,
    emit_from: Position | None = None,
    pairs_from: Position | None = None,
    stream_times_us: Position | None = None,
    catch_up_us: int = 0,
    slabs: dict[str, Slab] | None = None,
) -> PartitionState:
    """Return a partition's state at a position (default: the beginning), with no row in memory yet.

    Partitions that are to be worked on together take the same `slabs`, empty at first.

    Stored rows may expire when idle for their horizon plus `catch_up_us`: windows follow event
    time and expiry the wall clock, so a worker that far behind must still find them.
    """
    layouts = {view.name: view.plan.row_dtype for view in topology.views}
    horizons = {view.name: view.plan.horizon_us for view in topology.views}
    with_ids = [stream for stream in topology.streams if stream.event_id is not None]
    if with_ids:
        layouts[IDS] = ID_ROW
        horizons[IDS] = max(stream.duplicates_within_us for stream in with_ids)
    if topology.label is not None:
        layouts[LABELS] = LABEL_ROW
        horizons[LABELS] = topology.label.within_us
    ttl_ms = {name: (us + catch_up_us) // 1000 for name, us in horizons.items()}
    ttl_ms[RESULTS] = topology.keep_results_us // 1000
    if slabs is not None:
        for name, layout in layouts.items():
            if name not in slabs:
                slabs[name] = Slab(layout, ROWS_MAX)
    shards = {
        name: Shard(layout, ROWS_MAX, None if slabs is None else slabs[name])
        for name, layout in layouts.items()
    }
    nowhere = (0,) * len(topology.streams)
    return PartitionState(
        partition,
        position or nowhere,
        emit_from or nowhere,
        pairs_from or emit_from or nowhere,
        stream_times_us or nowhere,
        shards,
        ttl_ms,
    )
