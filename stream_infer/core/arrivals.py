"""The events of a micro-batch, gathered by row: what every aggregate reads and folds."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Bools, Floats, Ints
from stream_infer.core.lazy import lazy
from stream_infer.core.panes import Panes, Ring
from stream_infer.core.stored_rows import Rows

UPDATED = "updated_us"
T = TypeVar("T")


class EventColumns(Protocol):
    """A micro-batch: event times, event types, and fields as columns."""

    @property
    def times_us(self) -> Ints: ...

    @property
    def kinds(self) -> npt.NDArray[np.int8]: ...

    def __len__(self) -> int: ...

    def column(self, name: str, /) -> Floats: ...

    def labels(self, name: str, /) -> list[str | None]: ...


class Source(NamedTuple):
    """Which events contribute, and with which field: types by index (None: all of them)."""

    types: tuple[int, ...] | None
    field: str | None


class Observing(NamedTuple):
    """Which events are the view's `own`, bool[n]; the others are of another stream, and observe.

    Observers are not folded. One that is more than `lateness_us` behind the newest own event of its
    row sees the row as of that time before it: what came earlier may have left the row already.
    """

    own: Bools
    lateness_us: int


class Arrivals:
    """Events of one micro-batch, sorted by row, and by offset within a row.

    `order`, `row`, `group` and `times_us` are int64[n]: an event's index in the batch, its row, the
    number of its row within the batch, and its time. `starts` int64[G + 1] bounds the groups, and
    `old_us` int64[n] is the row's `updated_us` before the batch. With `alone`, each event is a
    group of its own, so that events do not see each other; `lone` says that this is so, or that
    no two events share a row.
    """

    def __init__(
        self,
        shard: Rows,
        batch: EventColumns,
        order: Ints,
        row: Ints,
        *,
        alone: bool,
        observing: Observing | None = None,
    ) -> None:
        self.shard = shard
        self.batch = batch
        self.order = order
        self.row = row
        n = len(row)
        self.times_us: Ints = batch.times_us.take(order)
        ends = np.arange(n + 1)
        self.positions = ends[:-1]
        first = _firsts(row, alone=alone)
        self.lone = first is None
        if first is None:
            self.group, self.starts, self.group_row = self.positions, ends, row
        else:
            self.group = first.cumsum() - 1
            self.starts = np.empty(int(self.group[-1]) + 2, np.int64)
            self.starts[:-1] = first.nonzero()[0]
            self.starts[-1] = n
            self.group_row = row[self.starts[:-1]]
        self.group_old_us: Ints = self.take(UPDATED, self.group_row)
        self.old_us = self.group_old_us if self.lone else self.group_old_us.take(self.group)
        self.own: Bools | None = None
        if observing is not None:
            self.own = observing.own[order]
            newest_us = np.maximum(self.old_us, self._newest_own_us())
            seen_us = np.maximum(self.times_us, newest_us - observing.lateness_us)
            self.times_us = np.where(self.own, self.times_us, seen_us)
        self._panes: dict[int, Panes] = {}
        self._once: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.row)

    @lazy
    def group_time_us(self) -> Ints:
        """Latest event time of each group, int64[G]; observers do not count."""
        times_us = self.times_us if self.own is None else np.where(self.own, self.times_us, 0)
        return times_us if self.lone else np.maximum.reduceat(times_us, self.starts[:-1])

    @lazy
    def group_first_us(self) -> Ints:
        """Earliest event time of each group, int64[G]; observers count."""
        return self.times_us if self.lone else np.minimum.reduceat(self.times_us, self.starts[:-1])

    @lazy
    def begin(self) -> Ints:
        """Where each event's group begins, int64[n]."""
        return self.starts.take(self.group)

    @lazy
    def has_backwards(self) -> bool:
        """Whether an event is earlier than the one before it in its group."""
        earlier = self.times_us[1:] < self.times_us[:-1]
        if self.lone or not np.count_nonzero(earlier):
            return False
        return bool(np.count_nonzero(earlier & (self.group[1:] == self.group[:-1])))

    @property
    def changed_rows(self) -> Ints:
        """Rows into which an event is folded."""
        if self.own is None:
            return self.group_row
        return self.group_row[np.logical_or.reduceat(self.own, self.starts[:-1])]

    def panes(self, ring: Ring) -> Panes:
        """Return where the events stand among the tiles of a ring."""
        panes = self._panes.get(ring.tile_us)  # rings of one view differ in this
        if panes is None:
            panes = self._panes[ring.tile_us] = Panes(
                ring, self.group, self.starts, self.times_us, self.old_us, self.group_time_us
            )
        return panes

    def once(self, key: Any, compute: Callable[[], T]) -> T:
        """Return what `compute`, which never returns None, returned for this key the first time."""
        value: T | None = self._once.get(key)
        if value is None:
            value = self._once[key] = compute()
        return value

    def matched(self, source: Source) -> Bools:
        """Return bool[n]: which events are of a source's types and have its field."""
        return self.once(("matched", source), lambda: self._matched(source))

    def values(self, field: str) -> Floats:
        """Return a field as float64[n], NaN where missing; a zero is a positive zero."""
        return self.once(("values", field), lambda: self.batch.column(field).take(self.order) + 0.0)

    def take(self, name: str, rows: Ints, slots: Ints | int = 0) -> npt.NDArray[Any]:
        """Return a copy of one stored column at rows and slots."""
        flat, index = self._at(name, rows, slots)
        return flat.take(index)

    def put(self, name: str, rows: Ints, values: npt.NDArray[Any], slots: Ints | int = 0) -> None:
        """Store values of one column at rows and slots, each of which occurs once."""
        flat, index = self._at(name, rows, slots)
        flat[index] = values

    def lower(self, name: str, rows: Ints, values: npt.NDArray[Any], slots: Ints) -> None:
        """Store the minimum of what is there and `values`; rows and slots may repeat."""
        flat, index = self._at(name, rows, slots)
        np.minimum.at(flat, index, values)

    def raise_(self, name: str, rows: Ints, values: npt.NDArray[Any], slots: Ints) -> None:
        """Store the maximum of what is there and `values`; rows and slots may repeat."""
        flat, index = self._at(name, rows, slots)
        np.maximum.at(flat, index, values)

    def _newest_own_us(self) -> Ints:
        """Return the newest own event time of each event's group up to it; 0 where there is none.

        int64[n], in the order of the arrivals.
        """
        assert self.own is not None
        own_us = np.where(self.own, self.times_us, 0)
        by_time = np.argsort(own_us, kind="stable")
        rank = np.empty(len(own_us), np.int64)
        rank[by_time] = self.positions
        base = self.group * len(own_us)
        return own_us[by_time[np.maximum.accumulate(base + rank) - base]]

    def _at(self, name: str, rows: Ints, slots: Ints | int) -> tuple[npt.NDArray[Any], Ints]:
        flat, length, offset = self.shard.cells(name)
        return flat, rows * length + (slots + offset)

    def _matched(self, source: Source) -> Bools:
        mask = self.own
        if source.types is not None:
            mask = np.isin(self.batch.kinds[self.order], source.types)
        if source.field is not None:
            known = ~np.isnan(self.values(source.field))
            mask = known if mask is None else mask & known
        return np.ones(len(self), bool) if mask is None else mask


def _firsts(row: Ints, *, alone: bool) -> Bools | None:
    """Return bool[n], where another row begins; None where each event is to be by itself."""
    same = row[1:] == row[:-1]
    if alone or not np.count_nonzero(same):
        return None
    first = np.ones(len(row), bool)
    np.logical_not(same, out=first[1:])
    return first
