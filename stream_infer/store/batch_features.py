"""Batch features of a whole micro-batch: one round trip to Redis, most of it saved by a cache.

Nothing here waits: `request` says which commands to send, `absorb` takes their replies, so that the
caller can send them together with its own. `read` does both on a connection of the caller's.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream_infer.core.errors import SettingsError
from stream_infer.store.commands import Command, Commands
from stream_infer.store.entity_groups import BatchFeatures, Column, Reply, Wanted, groups_of
from stream_infer.store.feast_plan import ReadPlan
from stream_infer.store.feast_wire import Key
from stream_infer.store.row_cache import NOBODY, RowCache

__all__ = ["BatchFeatureReader", "BatchFeatures", "Column", "FeatureRequest"]

CHANGES_KEPT_MAX = 4096
"""Keys of which it is remembered that they changed: a request for them may be on its way."""


@dataclass(slots=True)
class FeatureRequest:
    """The Redis commands that a micro-batch needs, in the order their replies must come back."""

    commands: list[Command]
    asked_at: float
    _features: BatchFeatures
    _wanted: list[Wanted | None]


class BatchFeatureReader:
    """Reads the columns of a plan for entities, through a cache of bounded size and age.

    At most `cache_rows` entities are kept for each combination of join keys, least recently used
    out first; no row is served from the cache that is not known to have been in the store
    `cache_max_age_s` ago or later (0: never from the cache). It is known of rows that were asked
    for since then, and of all others where somebody tells which keys change (see `KeyFeed`).
    `clock` returns seconds. Not for use by several threads at once; any number of requests may be
    open. Settings out of bounds raise SettingsError.
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
        self._groups, self._column_order, self._view_order = groups_of(plan)
        self._in_order = bool((np.diff(self._view_order) == 1).all())
        self._told_since = np.inf
        self._told_up_to = -np.inf
        self._changes: dict[tuple[int, Key], float] = {}
        self._last_change = -np.inf
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
        oldest = asked_at - self.cache_max_age_s
        if self._told_up_to >= oldest:
            oldest = min(oldest, self._told_since)
        commands: list[Command] = []
        wanted: list[Wanted | None] = []
        parts: list[BatchFeatures] = []
        for group, cache in zip(self._groups, self._caches, strict=True):
            keys = group.keys(columns)
            slots = cache.slots(keys)
            if self.cache_max_age_s > 0:
                # A slot of -1 reads some row for a moment.
                absent = cache.read_at.take(slots, mode="wrap") < oldest
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
        for place, wanted in enumerate(request._wanted):
            if wanted is None:
                continue
            group, cache = self._groups[place], self._caches[place]
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
                if self._last_change >= request.asked_at:
                    self._forget_changed(place, wanted.keys, request.asked_at)
        if self._in_order:
            return request._features
        return BatchFeatures(values[:, self._column_order], timestamps_us[:, self._view_order])

    # -- what a `KeyFeed` tells

    @property
    def key_prefixes(self) -> list[bytes]:
        """What the Redis keys begin with that rows are read from."""
        return [group.key_prefix for group in self._groups]

    def follow(self) -> None:
        """Note that from now on each change of a key is told."""
        self._told_since = self._clock()

    def told(self, up_to: float) -> None:
        """Note that all changes before a time of the clock have been told."""
        self._told_up_to = up_to

    def changed(self, redis_keys: Iterable[bytes] | None) -> None:
        """Forget the rows of keys that have changed, None for any."""
        now = self._last_change = self._clock()
        if redis_keys is None or len(self._changes) > CHANGES_KEPT_MAX:
            # What was read before now is only as good as it would be if nobody told anything.
            self._changes.clear()
            self._told_since = max(self._told_since, now)
        for redis_key in redis_keys or ():
            for place, group in enumerate(self._groups):
                key = group.entity(redis_key)
                if key is not None:
                    self._caches[place].forget(key)
                    self._changes[place, key] = now

    def unfollow(self) -> None:
        """Note that changes may go untold from now on."""
        self._told_since, self._told_up_to = np.inf, -np.inf
        self._changes.clear()

    def _forget_changed(self, place: int, keys: Sequence[Key], asked_at: float) -> None:
        """Forget those of the keys that changed while they were asked for."""
        for key in keys:
            if self._changes.get((place, key), -np.inf) >= asked_at:
                self._caches[place].forget(key)

    def cached(self, columns: Mapping[str, Column]) -> BatchFeatures:
        """Return what the cache has, of the age that is allowed; the rest is missing."""
        request = self.request(columns)
        return self.absorb(request, [(None,) * (len(c) - 2) for c in request.commands], keep=False)

    async def read(self, commands: Commands, columns: Mapping[str, Column]) -> BatchFeatures:
        """Request, send, and absorb."""
        request = self.request(columns)
        return self.absorb(request, await commands.run(request.commands))
