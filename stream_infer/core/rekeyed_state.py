"""The second stage of rekeyed views: their rows as a fold of a prefix of the rekeyed log.

The first stage may publish an event again after a crash. Each of its partitions is published in
offset order, and whoever takes it over begins no later than where what is in the log ends; so an
event is a repeat exactly if its source partition has been folded up to it or beyond (ADR 8).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_infer.core.arrays import Bools, Ints
from stream_infer.core.columns import Batch
from stream_infer.core.errors import StateError
from stream_infer.core.rekeyed import KeyedViews, absorb, newest_before
from stream_infer.core.shard import Shard
from stream_infer.core.state import ROWS_MAX, PartitionState, Position
from stream_infer.core.topology import Topology

MARKS = "@marks"
MARK_ROW = np.dtype([("next_offset", "<i8")])
MARK_TTL_MS = 100 * 365 * 86_400_000
"""A mark must outlive every repeat: it never expires, however long its partition is silent."""


@dataclass(frozen=True, slots=True)
class Received:
    """Acceptable events of one rekeyed partition, in the order of its log.

    For each of the n events of `batch`: `names` say by which key it was sent on, `sources` the
    partition (topic and number) that it came from, `source_offsets` int64[n] its place there.
    """

    batch: Batch
    names: list[str]
    sources: list[str]
    source_offsets: Ints

    @property
    def marks(self) -> list[str]:
        """The key of each event's mark."""
        pairs = zip(self.sources, self.names, strict=True)
        return [f"{source}:{name}" for source, name in pairs]

    def of(self, views: KeyedViews) -> Bools:
        """Return bool[n]: which events were sent on by these views' key."""
        return np.fromiter((name == views.name for name in self.names), bool, len(self.names))


@dataclass(frozen=True, slots=True)
class Counted:
    """What became of the events of a batch; each is one of these."""

    folded: int = 0
    duplicates: int = 0
    late: int = 0


def rekeyed_schema(topology: Topology) -> str:
    """Return text that changes with whatever makes stored rows mean something else."""
    stream = topology.stream
    views = (f"{view.name}({','.join(view.by)})={view.plan.schema}" for view in topology.rekeyed)
    return ";".join((f"{stream.name}({stream.key}) rekeyed", *views))


def new_rekeyed_state(
    topology: Topology,
    partition: int,
    *,
    position: Position | None = None,
    emit_from: Position | None = None,
    stream_times_us: Position | None = None,
    catch_up_us: int = 0,
) -> PartitionState:
    """Return a rekeyed partition's state at a position, with no row in memory yet.

    Rows may expire as those of other views do (see `core.state.new_state`); marks never do.
    """
    shards = {view.name: Shard(view.plan.row_dtype, ROWS_MAX) for view in topology.rekeyed}
    ttl_ms = {view.name: (view.plan.horizon_us + catch_up_us) // 1000 for view in topology.rekeyed}
    shards[MARKS], ttl_ms[MARKS] = Shard(MARK_ROW, ROWS_MAX), MARK_TTL_MS
    start = emit_from or (0,)
    return PartitionState(
        partition, position or (0,), start, start, stream_times_us or (0,), shards, ttl_ms
    )


def lacking_rekeyed(
    state: PartitionState, keyed: Sequence[KeyedViews], received: Received
) -> dict[str, list[str]]:
    """Return, for each shard, the keys whose rows must be inserted before `fold_rekeyed`."""
    found = {MARKS: state.shards[MARKS].lookup(received.marks)[1]}
    for views in keyed:
        keys = received.batch.take(received.of(views)).keys(views.by)
        for view in views.views:
            found[view.name] = state.shards[view.name].lookup(keys)[1]
    return found


def fold_rekeyed(state: PartitionState, keyed: Sequence[KeyedViews], received: Received) -> Counted:
    """Fold each event that was not folded before into the rows of the views of its key.

    Raises StateError, before anything has moved, when a row that `lacking_rekeyed` named was not
    inserted.
    """
    batch = received.batch
    if not len(batch):
        return Counted()
    marks, absent = state.shards[MARKS].lookup(received.marks)
    parts = [(views, received.of(views)) for views in keyed]
    found = [
        (view, *state.shards[view.name].lookup(batch.take(which).keys(view.by)), which)
        for views, which in parts
        for view in views.views
    ]
    for name, missing in (
        (MARKS, absent),
        *((view.name, missing) for view, _, missing, _ in found),
    ):
        if missing:
            raise StateError(
                f"rekeyed partition {state.partition}: row {missing[0]!r} of {name} was not read"
            )
    fresh = _fresh(state.shards[MARKS], marks, received.source_offsets + 1)
    folded = np.zeros(len(batch), bool)
    for view, rows, _, which in found:
        new = fresh[which]
        _, late = absorb(view, state.shards[view.name], rows[new], batch.take(which & fresh))
        places = np.flatnonzero(which & fresh)
        folded[places[~late & (rows[new] >= 0)]] = True
    state.stream_times_us = (max(state.stream_times_us[0], int(batch.times_us.max())),)
    return Counted(
        folded=int(folded.sum()),
        duplicates=int((~fresh).sum()),
        late=int((fresh & ~folded).sum()),
    )


def _fresh(marks: Shard, rows: Ints, ends: Ints) -> Bools:
    """Move the marks on; return bool[n]: which events lie beyond what was folded before them.

    `ends` int64[n] are the offsets after the events'.
    """
    stored: Ints = marks.rows["next_offset"][rows]
    fresh: Bools = ends > newest_before(stored, rows, ends)
    np.maximum.at(marks.rows["next_offset"], rows, ends)
    marks.touch(rows)
    return fresh
