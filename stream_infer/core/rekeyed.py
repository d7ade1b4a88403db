"""Views by a key that lies across partitions: which events they need, and what is read of them.

Events are sent on by the views' keys and folded in a second stage (`core.rekeyed_state`), so a row
may be behind the event that reads it, or ahead of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from stream_infer.core.arrays import Bools, Floats, Ints
from stream_infer.core.arrivals import UPDATED
from stream_infer.core.checks import KEY_SEPARATOR
from stream_infer.core.columns import Batch
from stream_infer.core.fold import fold, read
from stream_infer.core.shard import Shard
from stream_infer.core.stored_rows import Rows
from stream_infer.core.stream import View
from stream_infer.core.topology import Topology
from stream_infer.core.vectors import RekeyedValues, Vectors


@dataclass(frozen=True, slots=True)
class KeyedViews:
    """Rekeyed views that share a key: one record of an event serves them all.

    `kinds` are the event types sent on, by index: those that a feature uses, and the scored one.
    """

    name: str
    by: tuple[str, ...]
    views: tuple[View, ...]
    kinds: tuple[int, ...]

    def record_key(self, entity: str) -> str:
        """Return the key of an entity's records: it decides their partition."""
        return f"{self.name}{KEY_SEPARATOR}{entity}"


def split_key(key: str) -> tuple[str, str]:
    """Return the name of the views' key, and the entity, of a record's key.

    >>> split_key("dest\\x1fLAX")
    ('dest', 'LAX')
    """
    name, _, entity = key.partition(KEY_SEPARATOR)
    return name, entity


def keyed_views(topology: Topology) -> tuple[KeyedViews, ...]:
    """Return the rekeyed views of a topology, by their distinct keys."""
    by_key: dict[tuple[str, ...], list[View]] = {}
    for view in topology.rekeyed:
        by_key.setdefault(view.by, []).append(view)
    return tuple(
        KeyedViews(",".join(by), by, tuple(views), _kinds(topology, views))
        for by, views in by_key.items()
    )


def _kinds(topology: Topology, views: Sequence[View]) -> tuple[int, ...]:
    everything = tuple(range(len(topology.stream.event_types)))
    used = {topology.on_kind}
    for view in views:
        for aggregate in view.plan.stored:
            types = aggregate.source.types
            used.update(everything if types is None else types)
    return tuple(sorted(used))


def read_rekeyed(
    topology: Topology, shards: Mapping[str, Rows], batch: Batch
) -> dict[str, RekeyedValues]:
    """Answer events from rows as they were read, by view; views not in `shards` are missing."""
    return {view.name: _read(view, shards.get(view.name), batch) for view in topology.rekeyed}


def _read(view: View, shard: Rows | None, batch: Batch) -> RekeyedValues:
    n = len(batch)
    if shard is None:
        nothing = np.full((n, len(view.features)), np.nan)
        return RekeyedValues(nothing, np.ones(n, bool), np.zeros(n, bool), np.full(n, np.nan))
    rows, _ = shard.lookup(batch.keys(view.by))
    values = read(view.plan, shard, rows, batch)
    return _judged(view, values, updated_us(shard, rows), batch.times_us)


def absorb(view: View, shard: Shard, rows: Ints, batch: Batch) -> tuple[RekeyedValues, Bools]:
    """Fold events in the batch's order; return what each sees before itself, and which are late.

    `rows` int64[n] are the events' rows, -1 for none. An event is late where its row has seen one
    that is newer by the view's whole horizon: no window could hold both, and it is not folded.
    """
    newest_us = newest_before(updated_us(shard, rows), rows, batch.times_us)
    late = (rows >= 0) & (newest_us - batch.times_us >= view.plan.horizon_us)
    values = fold(view.plan, shard, np.where(late, -1, rows), batch)
    return _judged(view, values, newest_us, batch.times_us), late


def updated_us(shard: Rows, rows: Ints) -> Ints:
    """Return the newest event time of each row, int64[n]; 0 where it is -1 or has none."""
    stored: Ints = shard.rows[UPDATED][np.maximum(rows, 0)]
    return np.where(rows < 0, 0, stored)


def newest_before(stored_us: Ints, rows: Ints, times_us: Ints) -> Ints:
    """Return the newest event time that each event's row has seen before it, int64[n].

    `stored_us` int64[n] is the row's newest before the batch.

    >>> newest_before(np.array([5, 5, 0]), np.array([3, 3, 4]), np.array([9, 7, 1]))
    array([5, 9, 0])
    """
    n = len(rows)
    order = np.argsort(rows, kind="stable")
    row, times = rows[order], times_us[order]
    first = np.ones(n, bool)
    np.not_equal(row[1:], row[:-1], out=first[1:])
    group = np.cumsum(first) - 1
    by_time = np.argsort(times, kind="stable")
    rank = np.empty(n, np.int64)
    rank[by_time] = np.arange(n)
    upto = times[by_time[np.maximum.accumulate(group * n + rank) - group * n]]
    before = np.zeros(n, np.int64)
    before[1:] = upto[:-1]
    before[first] = 0
    found = np.empty(n, np.int64)
    found[order] = before
    return np.where(rows < 0, 0, np.maximum(stored_us, found))


def _judged(view: View, values: Floats, newest_us: Ints, times_us: Ints) -> RekeyedValues:
    """Say which answers count: a row idle beyond its horizon may be gone, so it is missing; one
    that is ahead of the event by more than the stream's lateness has lost what the event asks for.
    """
    age_us = times_us - newest_us
    missing = (newest_us == 0) | (age_us >= view.plan.horizon_us)
    ahead = ~missing & (-age_us > view.stream.lateness_us)
    unknown = missing | ahead
    return RekeyedValues(
        np.where(unknown[:, None], np.nan, values),
        missing,
        ahead,
        np.where(unknown, np.nan, np.maximum(age_us, 0) / 1e6),
    )


def with_rekeyed(
    vectors: Vectors,
    names: Sequence[str],
    views: Sequence[View],
    found: Mapping[str, RekeyedValues],
) -> Vectors:
    """Return vectors with what was found of rekeyed views in its place; `names` are the columns."""
    values, reasons = vectors.values.copy(), vectors.reasons.copy()
    for view in views:
        answer = found[view.name]
        columns = [names.index(name) for name in view.feature_names]
        values[:, columns] = answer.values
        for reason, which in answer.reasons(view.name).items():
            reasons[:, vectors.reason_names.index(reason)] = which
    return replace(vectors, values=values, reasons=reasons)
