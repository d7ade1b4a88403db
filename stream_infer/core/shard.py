"""Rows of one entity each, in memory: packed side by side, found by key, bounded in number."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Bools, Ints
from stream_infer.core.errors import StateError

CAPACITY_FIRST = 64
ABSENT = -1
EMPTY_ROW = 0  # never given to a key: what an absent key reads


class HasRowDtype(Protocol):
    """Anything that says how a row is laid out."""

    @property
    def row_dtype(self) -> np.dtype[np.void]: ...


class Shard:
    """Rows of up to `max_rows` keys, as one structured array `rows`.

    A row stays where it is while its key is resident. Rows that changed since the last `take_dirty`
    are dirty; they, and the rows that the latest `lookup` found or that were inserted after it, are
    never evicted.

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

    def __init__(self, layout: HasRowDtype | np.dtype[np.void], max_rows: int) -> None:
        self.dtype = layout if isinstance(layout, np.dtype) else layout.row_dtype
        self.row_bytes = self.dtype.itemsize
        self.max_rows = max_rows
        self._blank = bytes(self.row_bytes)
        self._row_of: dict[str, int] = {}
        self._keys: list[str | None] = [None]
        self._free: list[int] = []
        self._clock = 0
        self._cells: dict[str, tuple[npt.NDArray[Any], int, int]] = {}
        self.rows: npt.NDArray[np.void] = np.zeros(0, self.dtype)
        self._used: Ints = np.zeros(0, np.int64)  # the clock at the latest use; -1: no key
        self._dirty: Bools = np.zeros(0, bool)
        self._allocate(min(CAPACITY_FIRST, max_rows + 1))

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, key: str) -> bool:
        return key in self._row_of

    @property
    def resident_bytes(self) -> int:
        """Bytes of the rows that hold a key."""
        return len(self._row_of) * self.row_bytes

    @property
    def allocated_bytes(self) -> int:
        """Bytes set aside for rows, whether or not they hold a key."""
        return self.rows.nbytes

    @property
    def dirty_count(self) -> int:
        """Number of rows changed since the last `take_dirty`."""
        return int(np.count_nonzero(self._dirty))

    def lookup(self, keys: Sequence[str | None]) -> tuple[Ints, list[str]]:
        """Return the row of each key, int64[n], and the distinct keys that are not resident.

        The row is -1 where a key is None or not resident.
        """
        found = np.fromiter(map(self._row_of.get, keys, repeat(ABSENT)), np.int64, len(keys))  # type: ignore[arg-type]
        self._clock += 1
        absent = found < 0
        if not absent.any():
            self._used[found] = self._clock
            return found, []
        self._used[found[~absent]] = self._clock
        missing = dict.fromkeys(keys[i] for i in np.flatnonzero(absent).tolist())
        return found, [key for key in missing if key is not None]

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
        for key, payload in fresh.items():
            if payload is not None and len(payload) != self.row_bytes:
                raise StateError(
                    f"the stored row of {key!r} has {len(payload)} bytes instead of "
                    f"{self.row_bytes}: it was written by another declaration of its view"
                )
        self._make_room(len(fresh))
        places = [self._free.pop() for _ in fresh]
        content = b"".join([payload or self._blank for payload in fresh.values()])
        self.rows[places] = np.frombuffer(content, self.dtype)
        self._used[places] = self._clock
        self._row_of.update(zip(fresh, places, strict=True))
        for key, place in zip(fresh, places, strict=True):
            self._keys[place] = key

    def payload(self, row: int) -> bytes:
        """Return a copy of a row as it is stored."""
        content: bytes = self.rows[row].tobytes()
        return content

    def touch(self, rows: Ints) -> None:
        """Mark rows as changed."""
        self._dirty[rows] = True

    def take_dirty(self) -> list[tuple[str, bytes]]:
        """Return the changed rows, each as its key and a copy, and mark them as unchanged."""
        changed = np.flatnonzero(self._dirty).tolist()
        self._dirty[:] = False
        size, octets, keys = self.row_bytes, self._octets, self._keys
        return [(keys[row], bytes(octets[row * size : row * size + size])) for row in changed]  # type: ignore[misc]

    def evict(self, limit: int) -> int:
        """Forget the least recently used rows until `limit` are left; return how many went.

        Dirty rows and those of the micro-batch in flight stay, so more than `limit` may be left.
        """
        excess = len(self._row_of) - limit
        if excess <= 0:
            return 0
        evictable = self._resident & ~self._dirty & (self._used < self._clock)
        candidates = np.flatnonzero(evictable)
        if len(candidates) > excess:
            oldest = np.argpartition(self._used[candidates], excess - 1)[:excess]
            candidates = candidates[oldest]
        for row in candidates.tolist():
            key = self._keys[row]
            assert key is not None
            del self._row_of[key]
            self._keys[row] = None
            self._free.append(row)
        self._used[candidates] = -1
        return len(candidates)

    def cells(self, name: str) -> tuple[npt.NDArray[Any], int, int]:
        """Return all rows as one array of a column's numbers, a row's length in it, and the offset.

        Cell s of the column in row r is at `r * length + offset + s`. The size of the column's
        numbers must divide the row's. The array is a view, valid until rows are inserted.
        """
        found = self._cells.get(name)
        if found is None:
            assert self.dtype.fields is not None
            column, offset = self.dtype.fields[name][:2]
            size = column.base.itemsize
            flat = self.rows.view(column.base).reshape(-1)
            found = self._cells[name] = flat, self.row_bytes // size, offset // size
        return found

    @property
    def _resident(self) -> Bools:
        return self._used >= 0

    def _make_room(self, wanted: int) -> None:
        lacking = wanted - len(self._free)
        if lacking <= 0:
            return
        capacity = len(self.rows)
        if capacity < self.max_rows + 1:
            goal = max(2 * capacity, capacity + lacking)
            self._allocate(min(goal, self.max_rows + 1))
            lacking = wanted - len(self._free)
        if lacking > 0:
            self.evict(self.max_rows - wanted)
        if wanted > len(self._free):
            raise StateError(
                f"{wanted} new rows do not fit: {len(self._row_of)} of at most {self.max_rows} are "
                "in use and not stored yet; allow more rows, or smaller micro-batches"
            )

    def _allocate(self, capacity: int) -> None:
        """Grow to `capacity` rows; what grows is zero, and the rows in use stay as they are."""
        rows = np.zeros(capacity, self.dtype)
        used = np.full(capacity, -1, np.int64)
        dirty = np.zeros(capacity, bool)
        before = len(self._keys)
        if len(self.rows):
            rows[:before], used[:before], dirty[:before] = self.rows, self._used, self._dirty
        self.rows, self._used, self._dirty = rows, used, dirty
        self._octets = memoryview(rows.view(np.uint8))  # type: ignore[arg-type]
        self._cells.clear()
        self._keys.extend([None] * (capacity - before))
        self._free.extend(range(capacity - 1, before - 1, -1))
