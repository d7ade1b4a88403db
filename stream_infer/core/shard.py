"""The rows of one partition's entities, in memory: found by key, bounded in number."""

import weakref
from collections.abc import Sequence
from itertools import chain, pairwise, repeat
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Bools, Ints
from stream_infer.core.errors import StateError
from stream_infer.core.packed_rows import unpack
from stream_infer.core.slab import EMPTY_ROW, Slab
from stream_infer.core.stored_rows import ABSENT

__all__ = ["EMPTY_ROW", "HasRowDtype", "Shard", "lookup_together", "take_dirty_together"]


class HasRowDtype(Protocol):
    """Anything that says how a row is laid out."""

    @property
    def row_dtype(self) -> np.dtype[np.void]: ...


class Shard:
    """Rows of up to `max_rows` keys, in a slab of its own or in one that it shares.

    A row stays where it is while its key is resident. Rows that changed since the last `take_dirty`
    are dirty; they, and the rows that the latest `lookup` found or that were inserted after it, are
    never evicted. A shard that nobody refers to any more leaves its rows to the others.

    >>> shard = Shard(np.dtype([("seen_us", "<i8")]), max_rows=10)
    >>> shard.lookup(["a", None, "b", "a"])
    (array([-1, -1, -1, -1]), ['a', 'b'])
    >>> shard.insert(["a", "b"], [None, None])
    >>> rows, _ = shard.lookup(["b", "a"])
    >>> shard.rows["seen_us"][rows] = [7, 8]
    >>> shard.touch(rows[:1])
    >>> shard.take_dirty()
    [('b', b'\\x07\\x00\\x00\\x00\\x00\\x00\\x00\\x00')]
    """

    def __init__(
        self,
        layout: HasRowDtype | np.dtype[np.void],
        max_rows: int,
        slab: Slab | None = None,
    ) -> None:
        dtype = layout if isinstance(layout, np.dtype) else layout.row_dtype
        self.max_rows = max_rows
        self.slab = slab or Slab(dtype, max_rows)
        self.row_bytes = dtype.itemsize
        self._number = self.slab.join()
        self._row_of: dict[str | None, int] = {}
        self._looked_up = 0
        if slab is not None:
            weakref.finalize(self, _release, slab, self._row_of).atexit = False

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, key: str) -> bool:
        return key in self._row_of

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """All rows of the slab, as one structured array."""
        return self.slab.rows

    @property
    def resident_bytes(self) -> int:
        """Bytes of the rows that hold a key."""
        return len(self._row_of) * self.row_bytes

    @property
    def allocated_bytes(self) -> int:
        """Bytes that the slab has set aside for rows, whether or not they hold a key."""
        return self.slab.rows.nbytes

    @property
    def dirty_count(self) -> int:
        """Number of rows changed since the last `take_dirty`."""
        return int(np.count_nonzero(self._own(self.slab.dirty)))

    def lookup(self, keys: Sequence[str | None]) -> tuple[Ints, list[str]]:
        """Return the row of each key, int64[n], and the distinct keys that are not resident.

        The row is -1 where a key is None or not resident.
        """
        found, (absent,) = lookup_together([self], [0, len(keys)], keys)
        return found, absent

    def insert(self, keys: Sequence[str], payloads: Sequence[bytes | None]) -> None:
        """Make keys resident, each with its stored row, or with an empty one where that is None.

        A key that is resident already keeps the row it has. Raises StateError for a row of the
        wrong length, and when neither free rows nor evictable ones suffice.
        """
        fresh = {
            key: payload
            for key, payload in zip(keys, payloads, strict=True)
            if key not in self._row_of
        }
        if not fresh:
            return
        content = unpack(list(fresh), list(fresh.values()), self.row_bytes)
        self._make_room(len(fresh))
        slab = self.slab
        places = slab.take(fresh, self._number)
        slab.rows[places] = np.frombuffer(content, slab.dtype)
        slab.used[places] = self._looked_up
        self._row_of.update(zip(fresh, places, strict=True))

    def payload(self, row: int) -> bytes:
        """Return a copy of a row as it is stored."""
        return self.slab.content([row])[0]

    def touch(self, rows: Ints) -> None:
        """Mark rows as changed, be they of this shard or of another one in its slab."""
        self.slab.dirty[rows] = True

    def take_dirty(self) -> list[tuple[str, bytes]]:
        """Return the changed rows, each as its key and a copy, and mark them as unchanged."""
        (changed,) = take_dirty_together([self])
        return changed

    def evict(self, limit: int) -> int:
        """Forget the least recently used rows until `limit` are left; return how many went.

        Dirty rows and those of the micro-batch in flight stay, so more than `limit` may be left.
        """
        excess = len(self._row_of) - limit
        if excess <= 0:
            return 0
        slab = self.slab
        evictable = (slab.used >= 0) & ~slab.dirty & (slab.used < self._looked_up)
        candidates = np.flatnonzero(self._own(evictable))
        if len(candidates) > excess:
            oldest = np.argpartition(slab.used[candidates], excess - 1)[:excess]
            candidates = candidates[oldest]
        places = candidates.tolist()
        for row in places:
            del self._row_of[slab.keys[row]]
        slab.release(places)
        return len(places)

    def cells(self, name: str) -> tuple[npt.NDArray[Any], int, int]:
        """Return where a column's numbers are (see `Slab.cells`)."""
        return self.slab.cells(name)

    def numbers(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return all rows as numbers of one type (see `Slab.numbers`)."""
        return self.slab.numbers(dtype)

    def _own(self, mask: Bools) -> Bools:
        """Return which of the slab's rows are of this shard, and in `mask`."""
        if self.slab.holders == 1:
            return mask
        own: Bools = mask & (self.slab.holder == self._number)
        return own

    def _make_room(self, wanted: int) -> None:
        slab = self.slab
        slab.reserve(wanted)
        if wanted > slab.free:
            self.evict(self.max_rows - wanted)
        if wanted > slab.free:
            raise StateError(
                f"{wanted} new rows do not fit: {len(self._row_of)} of at most {self.max_rows} are "
                "in use and not stored yet; allow more rows, or smaller micro-batches"
            )


def lookup_together(
    shards: Sequence[Shard], bounds: Sequence[int], keys: Sequence[str | None]
) -> tuple[Ints, list[list[str]]]:
    """Look keys up in the shards of one slab: those from `bounds[i]` to `bounds[i + 1]` in shard i.

    Returns the row of each key, int64[n], -1 where it is None or not resident; and, for each shard,
    its distinct keys that are not resident.
    """
    slab = shards[0].slab
    if len(shards) == 1:
        places: Any = map(shards[0]._row_of.get, keys, repeat(ABSENT))
    else:
        places = chain.from_iterable(
            map(shard._row_of.get, keys[start:stop], repeat(ABSENT))
            for shard, (start, stop) in zip(shards, pairwise(bounds), strict=True)
        )
    found = np.fromiter(places, np.int64, len(keys))
    slab.clock += 1
    for shard in shards:
        if shard.slab is not slab:
            raise StateError("rows of one batch are in several slabs")
        shard._looked_up = slab.clock
    lacks = found < 0
    if not np.count_nonzero(lacks):
        slab.used[found] = slab.clock
        return found, [[] for _ in shards]
    absent = np.flatnonzero(lacks)
    slab.used[found[~lacks]] = slab.clock
    missing: list[list[str]] = []
    for start, stop in pairwise(bounds):
        own = absent[(absent >= start) & (absent < stop)].tolist()
        missing.append([key for key in dict.fromkeys(keys[i] for i in own) if key is not None])
    return found, missing


def take_dirty_together(shards: Sequence[Shard]) -> list[list[tuple[str, bytes]]]:
    """Return what `take_dirty` would of each shard; those of one slab are copied at once."""
    found: list[list[tuple[str, bytes]]] = [[] for _ in shards]
    for slab in dict.fromkeys(shard.slab for shard in shards):
        own = [number for number, shard in enumerate(shards) if shard.slab is slab]
        place_of = {shards[number]._number: number for number in own}
        changed = np.flatnonzero(slab.dirty)
        if len(own) < slab.holders:
            asked = np.zeros(slab.holders, bool)
            asked[list(place_of)] = True
            changed = changed[asked[slab.holder[changed]]]
        slab.dirty[changed] = False
        rows = changed.tolist()
        holders = slab.holder[changed].tolist()
        for row, holder, content in zip(rows, holders, slab.content(rows), strict=True):
            found[place_of[holder]].append((slab.keys[row] or "", content))
    return found


def _release(slab: Slab, row_of: dict[str | None, int]) -> None:
    slab.release(list(row_of.values()))
