"""Views of batch features that are kept by the same entity: one Redis hash each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_infer.core.join import MISSING
from stream_infer.store.commands import Command
from stream_infer.store.feast_plan import JoinKey, ReadPlan
from stream_infer.store.feast_wire import (
    Key,
    decode_columns,
    decode_timestamp,
    entity_keys,
    feature_field,
    key_entities,
    key_prefix,
    timestamp_field,
)

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
class Wanted:
    """Entities of one group that a request must fetch, and the events that wait for them."""

    keys: list[Key]
    events: NDArray[np.int64]
    entity_of: NDArray[np.int64]


class EntityGroup:
    """Views that are kept by the same entity, read from the same event fields: one hash each."""

    def __init__(self, plan: ReadPlan, members: list[int], first_column: int, first_view: int):
        views = [plan.views[index] for index in members]
        self.fields = tuple(key.field for key in views[0].join_keys)
        self.dtypes = [feature.dtype for view in views for feature in view.features]
        self.columns = slice(first_column, first_column + len(self.dtypes))
        self.views = slice(first_view, first_view + len(views))
        self._redis_key = entity_keys(plan.project, views[0].join_keys)
        self.entity = key_entities(plan.project, views[0].join_keys)
        self.key_prefix = key_prefix(views[0].join_keys)
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
    ) -> Wanted | None:
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
            return Wanted(asked, events, entity_of)
        askable = entity_of >= 0
        return Wanted(asked, events[askable], entity_of[askable])

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


def groups_of(plan: ReadPlan) -> tuple[list[EntityGroup], NDArray[np.int64], NDArray[np.int64]]:
    """Return the groups, whose columns follow each other, and where the plan's columns are."""
    members: dict[tuple[JoinKey, ...], list[int]] = {}
    for index, view in enumerate(plan.views):
        members.setdefault(view.join_keys, []).append(index)
    groups: list[EntityGroup] = []
    columns = views = 0
    for indexes in members.values():
        group = EntityGroup(plan, indexes, columns, views)
        groups.append(group)
        columns, views = group.columns.stop, group.views.stop
    view_order = np.array([index for indexes in members.values() for index in indexes], np.int64)
    by_view = [np.flatnonzero(plan.view_of == index) for index in view_order]
    column_order = np.concatenate(by_view) if by_view else np.empty(0, np.int64)
    return groups, np.argsort(column_order), np.argsort(view_order)
