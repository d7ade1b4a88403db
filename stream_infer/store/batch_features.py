"""Batch features of a whole micro-batch: one round trip to Redis, most of it saved by a cache.

Nothing here waits: `request` says which commands to send, `absorb` takes their replies, so that the
caller can send them together with its own. `read` does both on a connection of the caller's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_infer.core.errors import SettingsError
from stream_infer.core.join import MISSING
from stream_infer.store.commands import Command, Commands
from stream_infer.store.feast_plan import JoinKey, ReadPlan
from stream_infer.store.feast_wire import (
    Key,
    decode_columns,
    decode_timestamp,
    entity_keys,
    feature_field,
    timestamp_field,
)
from stream_infer.store.row_cache import NOBODY, RowCache

Column = Sequence[str | int | None]
Reply = Sequence[bytes | None]

TIMESTAMPS_KEPT_MAX = 4096


class BatchFeatures(NamedTuple):
    """What the store holds for each event: `values` float64[n, F], NaN where null or absent, and
    `timestamps_us` int64[n, V], when each view's row was true; MISSING where there is none.
    """

    values: NDArray[np.float64]
    timestamps_us: NDArray[np.int64]


@dataclass(slots=True)
class _Wanted:
    """Entities of one group that a request must fetch, and the events that wait for them."""

    keys: list[Key]
    events: NDArray[np.int64]
    entity_of: NDArray[np.int64]


@dataclass(slots=True)
class FeatureRequest:
    """The Redis commands that a micro-batch needs, in the order their replies must come back."""

    commands: list[Command]
    asked_at: float
    _features: BatchFeatures
    _wanted: list[_Wanted | None]


class BatchFeatureReader:
    """Reads the columns of a plan for entities, through a cache of bounded size and age.

    At most `cache_rows` entities are kept for each combination of join keys, least recently used
    out first; no row is served from the cache that was asked for more than `cache_max_age_s` ago
    (0: never from the cache). `clock` returns seconds. Not for use by several threads at once; any
    number of requests may be open. Settings out of bounds raise SettingsError.
    """

    def __init__(
        self,
        plan: ReadPlan,
        cache_rows: int = 100_000,
        cache_max_age_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if cache_rows < 1:
            raise SettingsError(f"cache_rows is {cache_rows}; it must be at least 1")
        if not cache_max_age_s >= 0:
            raise SettingsError(f"cache_max_age_s is {cache_max_age_s}; it must not be negative")
        self.plan = plan.checked()
        self.cache_max_age_s = cache_max_age_s
        self._clock = clock
        self._groups, self._column_order, self._view_order = _groups(plan)
        self._in_order = bool((np.diff(self._view_order) == 1).all())
        self._caches = [
            RowCache(cache_rows, len(group.dtypes), group.views.stop - group.views.start)
            for group in self._groups
        ]

    @property
    def cached_rows(self) -> int:
        """Entities in the cache, over all combinations of join keys."""
        return sum(map(len, self._caches))

    def request(self, columns: Mapping[str, Column]) -> FeatureRequest:
        """Work out what to fetch for n events, given the plan's fields as columns of n values.

        A null key finds nothing; a value of another type than the join key's raises TypeError.
        """
        asked_at = self._clock()
        commands: list[Command] = []
        wanted: list[_Wanted | None] = []
        parts: list[BatchFeatures] = []
        for group, cache in zip(self._groups, self._caches, strict=True):
            keys = group.keys(columns)
            slots = cache.slots(keys)
            if self.cache_max_age_s > 0:
                # A slot of -1 reads some row for a moment.
                absent = cache.read_at.take(slots, mode="wrap") < asked_at - self.cache_max_age_s
                absent |= slots < 0
            else:
                absent = slots != NOBODY
            missed = np.count_nonzero(absent)
            if missed:
                slots[absent] = NOBODY
            # Copied now: the rows may have left the cache by the time the replies are here.
            parts.append(
                BatchFeatures(
                    cache.values.take(slots, axis=0), cache.timestamps_us.take(slots, axis=0)
                )
            )
            cache.touch(slots)
            wanted.append(group.want(keys, absent, commands) if missed else None)
        features = self._side_by_side(parts)
        return FeatureRequest(commands, asked_at, features, wanted)

    def _side_by_side(self, parts: Sequence[BatchFeatures]) -> BatchFeatures:
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return BatchFeatures(np.empty((0, 0)), np.empty((0, 0), np.int64))
        return BatchFeatures(
            np.concatenate([part.values for part in parts], axis=1),
            np.concatenate([part.timestamps_us for part in parts], axis=1),
        )

    def absorb(
        self, request: FeatureRequest, replies: Sequence[Reply], *, keep: bool = True
    ) -> BatchFeatures:
        """Complete a request, once, with the replies to its commands; `keep` them in the cache.

        Raises ValueError where there are more or fewer replies than commands.
        """
        if len(replies) != len(request.commands):
            raise ValueError(f"{len(replies)} replies to {len(request.commands)} commands")
        values, timestamps_us = request._features
        begin = 0
        for group, cache, wanted in zip(self._groups, self._caches, request._wanted, strict=True):
            if wanted is None:
                continue
            rows = group.decode(replies[begin : begin + len(wanted.keys)])
            begin += len(wanted.keys)
            if len(wanted.keys) == len(wanted.events) == len(values):
                # Every event waits for an entity of its own, so they are in the same order.
                values[:, group.columns] = rows.values
                timestamps_us[:, group.views] = rows.timestamps_us
            else:
                values[wanted.events, group.columns] = rows.values[wanted.entity_of]
                timestamps_us[wanted.events, group.views] = rows.timestamps_us[wanted.entity_of]
            if keep and self.cache_max_age_s > 0:
                cache.put(wanted.keys, rows.values, rows.timestamps_us, request.asked_at)
        if self._in_order:
            return request._features
        return BatchFeatures(values[:, self._column_order], timestamps_us[:, self._view_order])

    def cached(self, columns: Mapping[str, Column]) -> BatchFeatures:
        """Return what the cache has, of the age that is allowed; the rest is missing."""
        request = self.request(columns)
        return self.absorb(request, [(None,) * (len(c) - 2) for c in request.commands], keep=False)

    async def read(self, commands: Commands, columns: Mapping[str, Column]) -> BatchFeatures:
        """Request, send, and absorb."""
        request = self.request(columns)
        return self.absorb(request, await commands.run(request.commands))


class _Group:
    """Views that are kept by the same entity, read from the same event fields: one hash each."""

    def __init__(self, plan: ReadPlan, members: list[int], first_column: int, first_view: int):
        views = [plan.views[index] for index in members]
        self.fields = tuple(key.field for key in views[0].join_keys)
        self.dtypes = [feature.dtype for view in views for feature in view.features]
        self.columns = slice(first_column, first_column + len(self.dtypes))
        self.views = slice(first_view, first_view + len(views))
        self._redis_key = entity_keys(plan.project, views[0].join_keys)
        names = [feature_field(view.name, f.name) for view in views for f in view.features]
        self._hash_fields = (*names, *(timestamp_field(view.name) for view in views))
        self._timestamps: dict[bytes | None, int] = {None: MISSING}

    def keys(self, columns: Mapping[str, Column]) -> Sequence[Any]:
        """Each event's entity: a value, or a tuple of several."""
        if len(self.fields) == 1:
            return columns[self.fields[0]]
        return list(zip(*(columns[field] for field in self.fields), strict=True))

    def want(
        self, keys: Sequence[Any], absent: NDArray[np.bool_], commands: list[Command]
    ) -> _Wanted | None:
        """Add a command for each distinct key that is absent; None where there is none to ask."""
        missed = list(compress(keys, absent.tolist()))
        number: dict[Any, int] = {}
        asked: list[Key] = []
        for key in dict.fromkeys(missed):
            redis_key = self._redis_key(key)
            if redis_key is None:
                number[key] = -1  # No such entity can exist.
                continue
            number[key] = len(asked)
            asked.append(key)
            commands.append(("HMGET", redis_key, *self._hash_fields))
        if not asked:
            return None
        entity_of = np.fromiter(map(number.__getitem__, missed), np.int64, len(missed))
        events = absent.nonzero()[0]
        if len(asked) == len(number):
            return _Wanted(asked, events, entity_of)
        askable = entity_of >= 0
        return _Wanted(asked, events[askable], entity_of[askable])

    def decode(self, replies: Sequence[Reply]) -> BatchFeatures:
        """One row a reply."""
        fields = list(zip(*replies, strict=True))
        values = decode_columns(self.dtypes, fields)
        timestamps_us = np.array(
            [[self._timestamp(text) for text in texts] for texts in fields[len(self.dtypes) :]],
            np.int64,
        )
        return BatchFeatures(values, timestamps_us.T)

    def _timestamp(self, text: bytes | None) -> int:
        """Rows of one snapshot share their timestamp, so it is decoded once."""
        known = self._timestamps.get(text)
        if known is None:
            if len(self._timestamps) >= TIMESTAMPS_KEPT_MAX:
                self._timestamps = {None: MISSING}
            known = self._timestamps[text] = decode_timestamp(text)
        return known


def _groups(plan: ReadPlan) -> tuple[list[_Group], NDArray[np.int64], NDArray[np.int64]]:
    """Groups of views, whose columns follow each other; where the plan's columns and views are."""
    members: dict[tuple[JoinKey, ...], list[int]] = {}
    for index, view in enumerate(plan.views):
        members.setdefault(view.join_keys, []).append(index)
    groups: list[_Group] = []
    columns = views = 0
    for indexes in members.values():
        group = _Group(plan, indexes, columns, views)
        groups.append(group)
        columns, views = group.columns.stop, group.views.stop
    view_order = np.array([index for indexes in members.values() for index in indexes], np.int64)
    by_view = [np.flatnonzero(plan.view_of == index) for index in view_order]
    column_order = np.concatenate(by_view) if by_view else np.empty(0, np.int64)
    return groups, np.argsort(column_order), np.argsort(view_order)
