"""Feature rows of entities in memory: a bounded number of them, least recently used out first."""

from collections.abc import Hashable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_infer.core.join import MISSING

NOBODY = 0
"""The row of the key None: nothing known, never too old, never evicted."""

EVICTED_AT_ONCE = 16
"""A full cache makes room by this part of its size, so that the search for the oldest is rare."""


class RowCache:
    """Maps a key to a row of `values` float64[F], `timestamps_us` int64[V], `read_at` (seconds).

    At most `rows_max` rows besides that of None. Arrays grow with use: about 8 (F + V) + 150 bytes
    a row.
    """

    def __init__(self, rows_max: int, features: int, views: int) -> None:
        self.rows_max = rows_max
        self.values = np.full((1, features), np.nan)
        self.timestamps_us = np.full((1, views), MISSING)
        self.read_at = np.full(1, np.inf)
        self._used = np.zeros(1, np.int64)
        self._slot_of: dict[Any, int] = {None: NOBODY}
        self._key_of: list[Any] = [None]
        self._free: list[int] = []
        self._tick = 0

    def __len__(self) -> int:
        return len(self._slot_of) - 1

    def slots(self, keys: Sequence[Any]) -> NDArray[np.int64]:
        """int64[n]: the row of each key, -1 where it is not here."""
        return np.fromiter(map(self._slot_of.get, keys, repeat(-1)), np.int64, len(keys))

    def touch(self, slots: NDArray[np.int64]) -> None:
        """Note that these rows are used now."""
        self._tick += 1
        self._used[slots] = self._tick

    def forget(self, key: Hashable) -> None:
        """Let a key's row, if it is here, be too old from now on."""
        slot = self._slot_of.get(key, NOBODY)
        if slot != NOBODY:
            self.read_at[slot] = -np.inf

    def put(
        self,
        keys: Sequence[Hashable],
        values: NDArray[np.float64],
        timestamps_us: NDArray[np.int64],
        read_at: float,
    ) -> None:
        """Keep distinct keys' rows, as used now; of more than fit, the last."""
        last = slice(max(len(keys) - self.rows_max, 0), None)
        keys = keys[last]
        here = self.slots(keys)
        fresh = [key for key, slot in zip(keys, here.tolist(), strict=True) if slot < 0]
        self.touch(here[here >= 0] if len(fresh) < len(keys) else here[:0])
        self._make_room(len(fresh), held=len(keys) - len(fresh))
        for key in fresh:
            slot = self._free.pop() if self._free else len(self._key_of)
            if slot == len(self._key_of):
                self._key_of.append(key)
            else:
                self._key_of[slot] = key
            self._slot_of[key] = slot
        self._grow(len(self._key_of))
        slots = self.slots(keys)
        self.values[slots] = values[last]
        self.timestamps_us[slots] = timestamps_us[last]
        self.read_at[slots] = read_at
        self._used[slots] = self._tick

    def _make_room(self, fresh: int, held: int) -> None:
        """Evict so that `fresh` more rows fit, but none of the `held` that were touched last."""
        short = len(self) + fresh - self.rows_max
        if short <= 0:
            return
        leaving = min(max(short, self.rows_max // EVICTED_AT_ONCE), len(self) - held)
        used = self._used[: len(self._key_of)].copy()
        used[[NOBODY, *self._free]] = np.iinfo(np.int64).max
        oldest = np.argpartition(used, leaving - 1)[:leaving].tolist()
        for slot in oldest:
            del self._slot_of[self._key_of[slot]]
            self._key_of[slot] = None
        self._free.extend(oldest)

    def _grow(self, rows: int) -> None:
        have = len(self.read_at)
        if rows <= have:
            return
        more = min(max(rows, 2 * have, 64), self.rows_max + 1) - have
        self.values = np.concatenate([self.values, np.empty((more, self.values.shape[1]))])
        self.timestamps_us = np.concatenate(
            [self.timestamps_us, np.empty((more, self.timestamps_us.shape[1]), np.int64)]
        )
        self.read_at = np.concatenate([self.read_at, np.empty(more)])
        self._used = np.concatenate([self._used, np.zeros(more, np.int64)])
