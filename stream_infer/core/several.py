"""What a merged log of several streams asks of the kernel beyond what a single stream does.

A view folds the events of its own stream. Scored events of another stream observe it: they are
answered from its rows at their place in the merged log, and leave no trace in them.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Bools, Choice, Floats, Ints
from stream_infer.core.arrivals import Observing
from stream_infer.core.columns import Batch
from stream_infer.core.fold import fold, read
from stream_infer.core.labels import first_seen
from stream_infer.core.lateness import within_lateness
from stream_infer.core.partitioned import Partitioned, slices
from stream_infer.core.shard import Shard
from stream_infer.core.state import IDS, LABELS
from stream_infer.core.stored_rows import Rows
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


def fold_view(topology: Topology, view: View, shard: Shard, rows: Ints, batch: Batch) -> Floats:
    """Fold a view's own events; return float64[m, F], what each scored event sees of it."""
    own, on = _of_stream(topology, view, batch), batch.kinds == topology.on_kind
    seen = own | on
    part = batch.take(seen)
    observing = None if own[seen].all() else Observing(own[seen], view.stream.lateness_us)
    answers = fold(view.plan, shard, rows[seen], _as_of_stream(topology, view, part), observing)
    scored: Floats = answers[on[seen]]
    return scored


def read_view(topology: Topology, view: View, shard: Rows, rows: Ints, batch: Batch) -> Floats:
    """Return float64[n, F], what scored events see of a view's rows, which stay as they are."""
    own = _of_stream(topology, view, batch)
    observing = None if own.all() else Observing(own, view.stream.lateness_us)
    return read(view.plan, shard, rows, _as_of_stream(topology, view, batch), observing)


def on_time(topology: Topology, work: Partitioned) -> Bools:
    """Advance each stream's clock; return bool[n]: which events are within their lateness."""
    batch = work.batch
    assert batch.sources is not None
    result = np.ones(len(batch), bool)
    for state, own in zip(work.states, slices(work.bounds), strict=True):
        times_us, sources = batch.times_us[own], batch.sources[own]
        times = list(state.stream_times_us)
        for number, stream in enumerate(topology.streams):
            at = np.flatnonzero(sources == number)
            found, times[number] = within_lateness(times_us[at], times[number], stream.lateness_us)
            result[own.start + at] = found
        state.stream_times_us = tuple(times)
    return result


def first_of_ids(
    topology: Topology, ids: Shard, batch: Batch, on_time: Choice, rows: Ints
) -> Bools:
    """Return bool[n]: false for events whose id was seen within their stream's horizon."""
    assert batch.sources is not None
    first = np.ones(len(batch), bool)
    for number, stream in enumerate(topology.streams):
        if stream.event_id is not None:
            own: Bools = batch.sources == number
            at = np.flatnonzero(own if on_time is None else on_time & own)
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
