"""Rows side by side in one array, for the shards of any number of partitions."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Bools, Ints
from stream_infer.core.packed_rows import WORD, is_packable, pack

CAPACITY_FIRST = 64
EMPTY_ROW = 0
"""Never given to a key: what an absent key reads."""
NOBODY = -1


class Slab:
    """Up to `max_rows` rows and what is known of each; a row stays where it is while in use.

    `used` int64[capacity] is the clock at the latest use, -1 where the row has no key; `dirty`
    bool[capacity] which rows changed; `holder` int32[capacity] the number of the shard that has it.
    """

    def __init__(self, dtype: np.dtype[np.void], max_rows: int) -> None:
        self.dtype = dtype
        self.row_bytes = dtype.itemsize
        self.max_rows = max_rows
        self.clock = 0
        self.keys: list[str | None] = [None]
        self.holders = 0
        self._free: list[int] = []
        self._cells: dict[str, tuple[npt.NDArray[Any], int, int]] = {}
        self._numbers: dict[np.dtype[Any], npt.NDArray[Any]] = {}
        self.rows: npt.NDArray[np.void] = np.zeros(0, dtype)
        self.used: Ints = np.zeros(0, np.int64)
        self.dirty: Bools = np.zeros(0, bool)
        self.holder: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._allocate(min(CAPACITY_FIRST, max_rows + 1))

    def join(self) -> int:
        """Return the number of a new holder."""
        self.holders += 1
        return self.holders - 1

    @property
    def free(self) -> int:
        """Rows that can be taken without growing."""
        return len(self._free)

    def reserve(self, wanted: int) -> None:
        """Grow, as far as `max_rows` allows, so that `wanted` rows can be taken."""
        lacking, capacity = wanted - len(self._free), len(self.rows)
        if lacking > 0 and capacity < self.max_rows + 1:
            goal = max(2 * capacity, capacity + lacking)
            self._allocate(min(goal, self.max_rows + 1))

    def take(self, keys: Iterable[str], holder: int) -> list[int]:
        """Give each key a free row, of which there must be enough."""
        places = [self._free.pop() for _ in keys]
        for key, place in zip(keys, places, strict=True):
            self.keys[place] = key
        self.holder[places] = holder
        return places

    def release(self, places: list[int]) -> None:
        """Take rows back: nobody has them any more."""
        for place in places:
            self.keys[place] = None
        self._free.extend(places)
        self.used[places] = -1
        self.dirty[places] = False
        self.holder[places] = NOBODY

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
            flat = self.numbers(column.base)
            found = self._cells[name] = flat, self.row_bytes // size, offset // size
        return found

    def numbers(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return all rows as one array of numbers of a type, whose size must divide the row's.

        The array is a view, valid until rows are inserted.
        """
        flat = self._numbers.get(dtype)
        if flat is None:
            flat = self._numbers[dtype] = self.rows.view(dtype).reshape(-1)
        return flat

    def content(self, places: list[int]) -> list[bytes]:
        """Return copies of rows as they are stored."""
        size, octets = self.row_bytes, self._octets
        if is_packable(size):
            return pack(self.numbers(WORD).reshape(len(self.rows), -1), places)
        return [bytes(octets[place * size : place * size + size]) for place in places]

    def _allocate(self, capacity: int) -> None:
        """Grow to `capacity` rows; what grows is zero, and the rows in use stay as they are."""
        before = len(self.keys)
        rows = np.zeros(capacity, self.dtype)
        used = np.full(capacity, -1, np.int64)
        dirty = np.zeros(capacity, bool)
        holder = np.full(capacity, NOBODY, np.int32)
        if len(self.rows):
            rows[:before], used[:before], dirty[:before] = self.rows, self.used, self.dirty
            holder[:before] = self.holder
        self.rows, self.used, self.dirty, self.holder = rows, used, dirty, holder
        self._octets = memoryview(rows.view(np.uint8))  # type: ignore[arg-type]
        self._cells.clear()
        self._numbers.clear()
        self.keys.extend([None] * (capacity - before))
        self._free.extend(range(capacity - 1, before - 1, -1))
