"""The micro-batch step that the worker, the HTTP endpoint and the training replay share.

Nothing here waits. A caller decodes a batch, asks which rows and batch features it lacks, fetches
them by whatever means it has, and then calls `fold_batch`, runs the models on the vectors, and
calls `conclude`. Between `fold_batch` and `conclude` nothing may fail: the state has moved.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stream_infer.core import several
from stream_infer.core.arrays import Bools, Choice, Floats, Ints, both, choice, chosen, left_out
from stream_infer.core.columns import Batch
from stream_infer.core.fold import fold, read
from stream_infer.core.inputs import BatchLayout
from stream_infer.core.labels import Joined, first_seen, join_label, join_prediction
from stream_infer.core.lateness import on_time
from stream_infer.core.partitioned import Found, Partitioned, bounds_of, from_on
from stream_infer.core.rekeyed import read_rekeyed
from stream_infer.core.state import IDS, LABELS, PartitionState
from stream_infer.core.stored_rows import Rows
from stream_infer.core.topology import Topology
from stream_infer.core.vectors import (
    STATE_UNAVAILABLE,
    BatchColumns,
    RekeyedValues,
    Vectors,
    assemble,
)

NO_SHARDS: Mapping[str, Rows] = MappingProxyType({})


class Folded(Struct, frozen=True):
    """A batch after its events are in the state.

    `kept` are the events that count; `scored` those of them that get a score, at `scored_at`
    int64[m] in `kept`, with their `vectors`; `fresh` bool[n] says which kept events have results
    that were not published before, and `emitted` bool[m] which of the scored ones;
    `label_rows` are the kept events' rows in the label shard, -1 where an event has no label key.
    `late` and `duplicates` are positions in what was consumed; `rekeyed` is what the scored events
    found of each rekeyed view. `bounds` and `scored_bounds` are those of the partitions of `states`
    among the kept and the scored events.
    """

    states: Sequence[PartitionState]
    bounds: Sequence[int]
    scored_bounds: Sequence[int]
    kept: Batch
    scored: Batch
    scored_at: npt.NDArray[np.int64]
    label_rows: npt.NDArray[np.int64]
    vectors: Vectors
    fresh: Bools
    emitted: Bools
    late: npt.NDArray[np.int32]
    duplicates: npt.NDArray[np.int32]
    rekeyed: Mapping[str, RekeyedValues]


class Engine:
    """A topology ready to run; `layout` describes the columns of its feature service, if any."""

    def __init__(self, topology: Topology, layout: BatchLayout | None = None) -> None:
        if layout is not None:
            topology.check_layout(layout)
        self.topology = topology
        self.layout = layout
        self.vector_names = topology.vector_names(layout)
        self.schema = _schema(topology)

    def decode(
        self,
        values: Sequence[bytes | None],
        offsets: npt.NDArray[np.int64],
        ingested_us: npt.NDArray[np.int64] | None,
        sources: npt.NDArray[np.int8] | None = None,
    ) -> Batch:
        """Decode consumed values, of the scored stream where `sources` does not say otherwise.

        See `Sources.decode`.
        """
        topology = self.topology
        if sources is None and len(topology.streams) > 1:
            sources = np.full(len(values), topology.sources.index(topology.stream.name), np.int8)
        return topology.sources.decode(values, offsets, ingested_us, sources)

    def shard_keys(self, batch: Batch) -> dict[str, list[str | None]]:
        """Return, for each shard, the key of each event's row; None where it has none."""
        topology = self.topology
        if len(topology.streams) > 1:
            return several.shard_keys(topology, batch)
        keys = {view.name: batch.keys(view.by) for view in topology.views}
        event_id = topology.stream.event_id
        if event_id is not None:
            ids = batch.labels(event_id)
            kinds = batch.kinds.tolist()
            keys[IDS] = [f"{kind}\x1f{text}" for kind, text in zip(kinds, ids, strict=True)]
        if topology.label is not None:
            keys[LABELS] = batch.labels(topology.label.key)
        return keys

    def scored_mask(self, batch: Batch) -> Bools:
        """Return bool[n]: which events are of the scored type."""
        scored: Bools = batch.kinds == self.topology.on_kind
        return scored

    def scored(self, batch: Batch) -> Batch:
        """Return the events of the scored type."""
        return batch.take(self._on(batch))

    def look_up(self, work: Partitioned) -> Found:
        """Find the rows of a batch's events, and which must be inserted before `fold_batch`."""
        return work.look_up(self.shard_keys(work.batch))

    def fold_batch(
        self,
        work: Partitioned,
        found: Found,
        batch_columns: BatchColumns | None,
        rekeyed: Mapping[str, Rows] = NO_SHARDS,
    ) -> Folded:
        """Fold a batch into the state; return the vectors of its scored events as processed.

        `found` is what `look_up` gave; `batch_columns` has a row for each event of the scored type
        in the batch; `rekeyed` are rows of rekeyed views as they were read, which stay as they are.
        Raises StateError, before anything has moved, when a row that is lacking was not inserted.
        """
        topology, batch = self.topology, work.batch
        rows = work.rows(found)
        on_time = self._on_time(work)
        first = self._first(work, on_time, rows)
        keep = both(on_time, first)
        kept = batch.take(keep)
        bounds = bounds_of(keep, work.bounds)
        on = self._on(kept)
        scored = kept.take(on)
        fresh = from_on([s.emit_from for s in work.states], bounds, kept.offsets, kept.sources)
        view_values: dict[str, Floats] = {}
        for view in topology.views:
            shard, places = work.shard(view.name), chosen(rows[view.name], keep)
            if kept.sources is None:
                view_values[view.name] = chosen(fold(view.plan, shard, places, kept), on)
            else:
                values = several.fold_view(topology, view, shard, places, kept)
                view_values[view.name] = values
        if batch_columns is not None and keep is not None:
            batch_columns = batch_columns.take(keep[self.scored_mask(batch)])
        answers = read_rekeyed(topology, rekeyed, scored)
        return Folded(
            states=work.states,
            bounds=bounds,
            scored_bounds=bounds_of(on, bounds),
            kept=kept,
            scored=scored,
            scored_at=chosen(np.arange(len(kept)), on),
            label_rows=chosen(rows[LABELS], keep) if LABELS in rows else np.zeros(0, np.int64),
            vectors=assemble(topology, self.layout, scored, view_values, batch_columns, answers),
            rekeyed=answers,
            fresh=fresh,
            emitted=chosen(fresh, on),
            late=left_out(batch.positions, on_time),
            duplicates=left_out(batch.positions, first),
        )

    def score_without_state(self, work: Partitioned, batch_columns: BatchColumns | None) -> Folded:
        """Return the vectors of a batch whose rows cannot be read: nothing is folded but the clock.

        Each view's features are missing, for one reason that all of these vectors have. Duplicates
        are not recognised, and no label is joined.
        """
        batch = work.batch
        on_time = self._on_time(work)
        kept = batch.take(on_time)
        bounds = bounds_of(on_time, work.bounds)
        on = self._on(kept)
        scored = kept.take(on)
        fresh = from_on([s.emit_from for s in work.states], bounds, kept.offsets, kept.sources)
        unknown = {
            view.name: np.full((len(scored), len(view.plan.features)), np.nan)
            for view in self.topology.views
        }
        if batch_columns is not None and on_time is not None:
            batch_columns = batch_columns.take(on_time[self.scored_mask(batch)])
        answers = read_rekeyed(self.topology, NO_SHARDS, scored)
        vectors = assemble(self.topology, self.layout, scored, unknown, batch_columns, answers)
        return Folded(
            states=work.states,
            bounds=bounds,
            scored_bounds=bounds_of(on, bounds),
            kept=kept,
            scored=scored,
            scored_at=chosen(np.arange(len(kept)), on),
            label_rows=np.full(len(kept), -1),
            vectors=vectors.lacking(STATE_UNAVAILABLE),
            rekeyed=answers,
            fresh=fresh,
            emitted=chosen(fresh, on),
            late=left_out(batch.positions, on_time),
            duplicates=batch.positions[:0],
        )

    def join_labels(self, folded: Folded, scores: npt.NDArray[np.float64]) -> list[Joined]:
        """Join labels and predictions of a folded batch in the log's order.

        `scores` float64[m] are the scored events' combined scores. Pairs completed by events below
        `pairs_from` were published before and are left out.
        """
        label = self.topology.label
        if label is None:
            return []
        states, kept = folded.states, folded.kept
        shard = states[0].shards[LABELS]
        score_of = np.full(len(kept), np.nan)
        score_of[folded.scored_at] = scores
        values = kept.column(label.value)
        label_kind = self.topology.event_types.index(label.of)
        starts = [state.pairs_from for state in states]
        fresh = from_on(starts, folded.bounds, kept.offsets, kept.sources).tolist()
        pairs: list[Joined] = []
        touched: list[int] = []
        events = zip(folded.label_rows.tolist(), kept.kinds.tolist(), strict=True)
        for i, (row, kind) in enumerate(events):
            if row < 0:
                continue
            time_us, offset = int(kept.times_us[i]), int(kept.offsets[i])
            pair = None
            if kind == self.topology.on_kind and not np.isnan(score_of[i]):
                score = float(score_of[i])
                pair = join_prediction(shard, row, i, offset, time_us, score, label.within_us)
                touched.append(row)
            elif kind == label_kind:
                pair = join_label(shard, row, i, time_us, float(values[i]), label.within_us)
                touched.append(row)
            if pair is not None and fresh[i]:
                pairs.append(pair)
        shard.touch(np.array(touched, np.int64))
        return pairs

    def read_vectors(
        self, shards: Mapping[str, Rows], batch: Batch, batch_columns: BatchColumns | None
    ) -> Vectors:
        """Return the vectors of events as of the rows in `shards`, which stay as they are.

        Rekeyed views that are not in `shards` are missing.
        """
        values: dict[str, Floats] = {}
        for view in self.topology.views:
            shard = shards[view.name]
            rows, _ = shard.lookup(batch.keys(view.by))
            if batch.sources is None:
                values[view.name] = read(view.plan, shard, rows, batch)
            else:
                values[view.name] = several.read_view(self.topology, view, shard, rows, batch)
        answers = read_rekeyed(self.topology, shards, batch)
        return assemble(self.topology, self.layout, batch, values, batch_columns, answers)

    def _on(self, batch: Batch) -> Choice:
        if len(self.topology.event_types) == 1:
            return None
        return choice(self.scored_mask(batch))

    def _on_time(self, work: Partitioned) -> Choice:
        """Advance the partitions' clocks; return which events are within lateness."""
        if work.batch.sources is None:
            return on_time(work, self.topology.stream.lateness_us)
        return choice(several.on_time(self.topology, work))

    def _first(self, work: Partitioned, on_time: Choice, rows: Mapping[str, Ints]) -> Choice:
        """Return which events are no duplicates; those that are late are none."""
        batch = work.batch
        if IDS not in rows or not len(batch):
            return None
        ids, found = work.shard(IDS), rows[IDS]
        if batch.sources is not None:
            return choice(several.first_of_ids(self.topology, ids, batch, on_time, found))
        within_us = self.topology.stream.duplicates_within_us
        times_us = chosen(batch.times_us, on_time)
        accepted = choice(first_seen(ids, chosen(found, on_time), times_us, within_us))
        if accepted is None or on_time is None:
            return accepted
        first = np.ones(len(batch), bool)
        first[on_time] = accepted
        return first


def _schema(topology: Topology) -> str:
    """Return text that changes with whatever makes stored rows of a topology mean something else:
    the logs they are folded from, and each view's name, key and features.
    """
    streams = (f"{stream.name}({stream.key})" for stream in topology.streams)
    views = (f"{view.name}({','.join(view.by)})={view.plan.schema}" for view in topology.views)
    return ";".join((*streams, *views))
