"""What a merged log of several streams asks of the kernel beyond what a single stream does.

A view folds the events of its own stream. Scored events of another stream observe it: they are
answered from its rows at their place in the merged log, and leave no trace in them.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Bools, Floats, Ints
from stream_infer.core.arrivals import Observing
from stream_infer.core.columns import Batch
from stream_infer.core.fold import fold, read
from stream_infer.core.labels import first_seen
from stream_infer.core.shard import Shard
from stream_infer.core.state import IDS, LABELS, PartitionState
from stream_infer.core.stream import View
from stream_infer.core.topology import Topology

Sources = npt.NDArray[np.int8]


def shard_keys(topology: Topology, batch: Batch) -> dict[str, list[str | None]]:
    """Return, for each shard, the key of each event's row; None where it has none to do with it."""
    on = batch.kinds == topology.on_kind
    keys = {
        view.name: _only(batch.keys(view.by), _of_stream(topology, view, batch) | on)
        for view in topology.views
    }
    if any(stream.event_id is not None for stream in topology.streams):
        keys[IDS] = _id_keys(topology, batch)
    if topology.label is not None:
        joined = on | (batch.kinds == topology.event_types.index(topology.label.of))
        keys[LABELS] = _only(batch.labels(topology.label.key), joined)
    return keys


def fold_view(
    topology: Topology, view: View, shard: Shard, rows: Ints, batch: Batch, on: Bools
) -> Floats:
    """Fold a view's own events; return float64[m, F], what each event where `on` sees of it."""
    own = _of_stream(topology, view, batch)
    seen = own | on
    part = batch.take(seen)
    observing = None if own[seen].all() else Observing(own[seen], view.stream.lateness_us)
    answers = fold(view.plan, shard, rows[seen], _as_of_stream(topology, view, part), observing)
    return answers[on[seen]]


def read_view(topology: Topology, view: View, shard: Shard, rows: Ints, batch: Batch) -> Floats:
    """Return float64[n, F], what scored events see of a view's rows, which stay as they are."""
    own = _of_stream(topology, view, batch)
    observing = None if own.all() else Observing(own, view.stream.lateness_us)
    return read(view.plan, shard, rows, _as_of_stream(topology, view, batch), observing)


def on_time(topology: Topology, state: PartitionState, times_us: Ints, sources: Sources) -> Bools:
    """Advance each stream's clock; return bool[n]: which events are within their lateness."""
    times = list(state.stream_times_us)
    result = np.ones(len(times_us), bool)
    for number, stream in enumerate(topology.streams):
        at = np.flatnonzero(sources == number)
        result[at], times[number] = within_lateness(times_us[at], times[number], stream.lateness_us)
    state.stream_times_us = tuple(times)
    return result


def within_lateness(times_us: Ints, newest_us: int, lateness_us: int) -> tuple[Bools, int]:
    """Return which events of one stream are on time, bool[n], and its newest event time then."""
    if not len(times_us):
        return np.ones(0, bool), newest_us
    latest_us = max(newest_us, int(times_us.max()))
    if int(times_us.min()) >= latest_us - lateness_us:
        return np.ones(len(times_us), bool), latest_us
    newest = np.maximum.accumulate(times_us)
    before = np.maximum(np.concatenate(([newest_us], newest[:-1])), newest_us)
    on_time: Bools = times_us >= before - lateness_us
    return on_time, latest_us


def first_of_ids(topology: Topology, ids: Shard, batch: Batch, on_time: Bools, rows: Ints) -> Bools:
    """Return bool[n]: false for events whose id was seen within their stream's horizon."""
    assert batch.sources is not None
    first = np.ones(len(batch), bool)
    for number, stream in enumerate(topology.streams):
        if stream.event_id is not None:
            at = np.flatnonzero(on_time & (batch.sources == number))
            within_us = stream.duplicates_within_us
            first[at] = first_seen(ids, rows[at], batch.times_us[at], within_us)
    return first


def _of_stream(topology: Topology, view: View, batch: Batch) -> Bools:
    assert batch.sources is not None
    own: Bools = batch.sources == topology.sources.index(view.stream.name)
    return own


def _as_of_stream(topology: Topology, view: View, batch: Batch) -> Batch:
    """Return a batch whose kinds index the view's own event types, as its plan does."""
    first = topology.sources.first_kinds[topology.sources.index(view.stream.name)]
    kinds = batch.kinds - np.int8(first)
    kinds[kinds >= len(view.stream.event_types)] = -1
    return replace(batch, kinds=kinds)


def _id_keys(topology: Topology, batch: Batch) -> list[str | None]:
    assert batch.sources is not None
    names = [stream.event_id for stream in topology.streams]
    ids: Mapping[str, list[str | None]] = {
        name: batch.labels(name) for name in set(names) if name is not None
    }
    keys: list[str | None] = []
    for i, (source, kind) in enumerate(
        zip(batch.sources.tolist(), batch.kinds.tolist(), strict=True)
    ):
        name = names[source]
        keys.append(None if name is None else f"{kind}\x1f{ids[name][i]}")
    return keys


def _only(keys: list[str | None], wanted: Bools) -> list[str | None]:
    return [key if use else None for key, use in zip(keys, wanted.tolist(), strict=True)]
