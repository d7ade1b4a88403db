"""The micro-batch step that the worker, the HTTP endpoint and the training replay share.

Nothing here waits. A caller decodes a batch, asks which rows and batch features it lacks, fetches
them by whatever means it has, and then calls `fold_batch`, runs the models on the vectors, and
calls `conclude`. Between `fold_batch` and `conclude` nothing may fail: the state has moved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from stream_infer.core import several
from stream_infer.core.columns import Batch, Bools, Floats, Ints
from stream_infer.core.fold import fold, read
from stream_infer.core.inputs import BatchLayout
from stream_infer.core.labels import Joined, first_seen, join_label, join_prediction
from stream_infer.core.partitioned import Found, Partitioned, bounds_of, from_on, slices
from stream_infer.core.rekeyed import read_rekeyed
from stream_infer.core.shard import Shard
from stream_infer.core.state import IDS, LABELS, PartitionState
from stream_infer.core.topology import Topology
from stream_infer.core.vectors import (
    STATE_UNAVAILABLE,
    BatchColumns,
    RekeyedValues,
    Vectors,
    assemble,
)

NO_SHARDS: Mapping[str, Shard] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Folded:
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

    def look_up(self, work: Partitioned) -> Found:
        """Find the rows of a batch's events, and which must be inserted before `fold_batch`."""
        return work.look_up(self.shard_keys(work.batch))

    def fold_batch(
        self,
        work: Partitioned,
        found: Found,
        batch_columns: BatchColumns | None,
        rekeyed: Mapping[str, Shard] = NO_SHARDS,
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
        keep = on_time & first
        kept = batch.take(keep)
        bounds = bounds_of(keep, work.bounds)
        on = self.scored_mask(kept)
        scored = kept.take(on)
        fresh = from_on([s.emit_from for s in work.states], bounds, kept.offsets, kept.sources)
        view_values: dict[str, Floats] = {}
        for view in topology.views:
            shard, places = work.shard(view.name), rows[view.name][keep]
            if kept.sources is None:
                view_values[view.name] = fold(view.plan, shard, places, kept)[on]
            else:
                values = several.fold_view(topology, view, shard, places, kept, on)
                view_values[view.name] = values
        if batch_columns is not None:
            batch_columns = batch_columns.take(keep[self.scored_mask(batch)])
        answers = read_rekeyed(topology, rekeyed, scored)
        return Folded(
            states=work.states,
            bounds=bounds,
            scored_bounds=bounds_of(on, bounds),
            kept=kept,
            scored=scored,
            scored_at=np.flatnonzero(on),
            label_rows=rows[LABELS][keep] if LABELS in rows else np.zeros(0, np.int64),
            vectors=assemble(topology, self.layout, scored, view_values, batch_columns, answers),
            rekeyed=answers,
            fresh=fresh,
            emitted=fresh[on],
            late=batch.positions[~on_time],
            duplicates=batch.positions[on_time & ~first],
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
        on = self.scored_mask(kept)
        scored = kept.take(on)
        fresh = from_on([s.emit_from for s in work.states], bounds, kept.offsets, kept.sources)
        unknown = {
            view.name: np.full((len(scored), len(view.plan.features)), np.nan)
            for view in self.topology.views
        }
        if batch_columns is not None:
            batch_columns = batch_columns.take(on_time[self.scored_mask(batch)])
        answers = read_rekeyed(self.topology, NO_SHARDS, scored)
        vectors = assemble(self.topology, self.layout, scored, unknown, batch_columns, answers)
        return Folded(
            states=work.states,
            bounds=bounds,
            scored_bounds=bounds_of(on, bounds),
            kept=kept,
            scored=scored,
            scored_at=np.flatnonzero(on),
            label_rows=np.full(len(kept), -1),
            vectors=vectors.lacking(STATE_UNAVAILABLE),
            rekeyed=answers,
            fresh=fresh,
            emitted=fresh[on],
            late=batch.positions[~on_time],
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
        self, shards: Mapping[str, Shard], batch: Batch, batch_columns: BatchColumns | None
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

    def _on_time(self, work: Partitioned) -> Bools:
        """Advance the partitions' clocks; return bool[n]: which events are within lateness."""
        batch, parts = work.batch, []
        for state, own in zip(work.states, slices(work.bounds), strict=True):
            times_us = batch.times_us[own]
            if batch.sources is not None:
                parts.append(several.on_time(self.topology, state, times_us, batch.sources[own]))
                continue
            on_time, newest_us = several.within_lateness(
                times_us, state.stream_times_us[0], self.topology.stream.lateness_us
            )
            state.stream_times_us = (newest_us,)
            parts.append(on_time)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _first(self, work: Partitioned, on_time: Bools, rows: Mapping[str, Ints]) -> Bools:
        batch = work.batch
        if IDS in rows and batch.sources is not None:
            return several.first_of_ids(self.topology, work.shard(IDS), batch, on_time, rows[IDS])
        first = np.ones(len(batch), bool)
        if IDS in rows and len(batch):
            within_us = self.topology.stream.duplicates_within_us
            times_us = batch.times_us[on_time]
            first[on_time] = first_seen(work.shard(IDS), rows[IDS][on_time], times_us, within_us)
        return first


def _schema(topology: Topology) -> str:
    """Return text that changes with whatever makes stored rows of a topology mean something else:
    the logs they are folded from, and each view's name, key and features.
    """
    streams = (f"{stream.name}({stream.key})" for stream in topology.streams)
    views = (f"{view.name}({','.join(view.by)})={view.plan.schema}" for view in topology.views)
    return ";".join((*streams, *views))
