"""Rows as they were read: looked up like those of a shard, and never changed."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Ints
from stream_infer.core.packed_rows import unpack

ABSENT = -1


class Rows(Protocol):
    """Rows that events are answered from: a `Shard`'s, or `StoredRows`."""

    @property
    def rows(self) -> npt.NDArray[np.void]: ...
    def lookup(self, keys: Sequence[str | None]) -> tuple[Ints, list[str]]: ...
    def cells(self, name: str) -> tuple[npt.NDArray[Any], int, int]: ...
    def numbers(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]: ...


class StoredRows:
    """The rows of keys, an empty one before them and where nothing is stored (None).

    Raises StateError for a row of the wrong length.

    >>> dtype = np.dtype([("seen_us", "<i8")])
    >>> stored = StoredRows(dtype, ["a", "b"], [b"\\x07" + b"\\x00" * 7, None])
    >>> stored.lookup(["b", None, "a", "c"])
    (array([ 2, -1,  1, -1]), ['c'])
    >>> stored.rows["seen_us"]
    array([0, 7, 0])
    """

    def __init__(
        self,
        dtype: np.dtype[np.void],
        keys: Sequence[str],
        payloads: Sequence[bytes | None],
    ) -> None:
        self._dtype = dtype
        self._content = unpack(["", *keys], [None, *payloads], dtype.itemsize)
        self._row_of: dict[str | None, int] = {key: i for i, key in enumerate(keys, 1)}

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """All rows as one structured array, the empty one first; it cannot be written to."""
        return np.frombuffer(self._content, self._dtype)

    def lookup(self, keys: Sequence[str | None]) -> tuple[Ints, list[str]]:
        """Return the row of each key, int64[n], and the distinct keys that are not among them.

        The row is -1 where a key is None or not among them.
        """
        row_of = self._row_of
        found = np.fromiter(map(row_of.get, keys, repeat(ABSENT)), np.int64, len(keys))
        absent = [key for key in dict.fromkeys(keys) if key is not None and key not in row_of]
        return found, absent

    def cells(self, name: str) -> tuple[npt.NDArray[Any], int, int]:
        """Return where a column's numbers are (see `Slab.cells`)."""
        assert self._dtype.fields is not None
        column, offset = self._dtype.fields[name][:2]
        size = column.base.itemsize
        return self.numbers(column.base), self._dtype.itemsize // size, offset // size

    def numbers(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return all rows as numbers of one type, whose size must divide the row's."""
        return np.frombuffer(self._content, dtype)
