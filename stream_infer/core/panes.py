"""Event time in tiles: which tiles of its row, and which events before it, an event sees."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Bools, Ints
from stream_infer.core.lazy import lazy


@dataclass(frozen=True, slots=True)
class Ring:
    """The newest `slots` tiles of a row, each `tile_us` wide; pane p is kept in slot p % slots.

    A row's newest pane is that of its `updated_us`, so its slots need no tags: they hold the panes
    up to the newest, and nothing older. With k panes in the longest window and events out of order
    by up to `lateness_us`, k + ceil(lateness_us / tile_us) + 1 slots hold all that can be asked
    for: no event is more than ceil(lateness_us / tile_us) panes behind its row's newest.
    """

    tile_us: int
    slots: int

    def slot(self, pane: Ints) -> Ints:
        """Return the slots of panes."""
        # Floor division by a scalar is vectorised, the remainder is not.
        return pane - pane // self.slots * self.slots


class Spans(NamedTuple):
    """Runs of events in pane order: [low, high); those of event i begin at first[i], each has one.

    `first` None: one run for each event.
    """

    low: Ints
    high: Ints
    first: Ints | None

    def total(self, prefix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Sum, for each event, over its runs; `prefix` [n + 1] are sums before each position."""
        sums = prefix[self.high] - prefix[self.low]
        return sums if self.first is None else np.add.reduceat(sums, self.first)


GAP_LONG = 8


class Gaps(NamedTuple):
    """Rows that skip many tiles: [m] groups, slots of their newest panes, and bool[m, slots]: which
    slots the skipped panes and the new one take.
    """

    group: Ints
    old_slot: Ints
    skipped: Bools


class Rewrite(NamedTuple):
    """Slots that a fold changes: [m] groups, old and new slots, and ends of runs in pane order."""

    group: Ints
    old_slot: Ints
    new_slot: Ints
    begin: Ints
    end: Ints


class Panes:
    """Panes of a micro-batch's events in one ring.

    `pane` int64[n] is in the order of `Arrivals`, as are all arguments and results, except where
    "pane order" is said: that is by group, then pane, then offset. `head` int64[n] is the newest
    pane of the event's row before the batch.
    """

    def __init__(
        self,
        ring: Ring,
        group: Ints,
        starts: Ints,
        times_us: Ints,
        old_us: Ints,
        group_time_us: Ints,
    ) -> None:
        self.ring = ring
        self.group = group
        self.starts = starts
        self.pane: Ints = times_us // ring.tile_us
        self.head: Ints = old_us // ring.tile_us
        self.group_head: Ints = self.head[starts[:-1]]
        self.group_new_head: Ints = np.maximum(self.group_head, group_time_us // ring.tile_us)
        self._bounds: dict[int, tuple[Ints, Ints]] = {}
        self._spans: dict[int, Spans] = {}
        self._pairs: dict[int, Spans] = {}

    @lazy
    def order(self) -> Ints | None:
        """Positions of the events in pane order; None where they are in that order already."""
        backwards = (self.pane[1:] < self.pane[:-1]) & (self.group[1:] == self.group[:-1])
        return np.lexsort((self.pane, self.group)) if backwards.any() else None

    def sort(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring values [n] into pane order."""
        return values if self.order is None else values[self.order]

    def unsort(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring values [n, ...] from pane order into that of the arrivals."""
        if self.order is None:
            return values
        back = np.empty_like(values)
        back[self.order] = values
        return back

    def bounds(self, k: int) -> tuple[Ints, Ints]:
        """Return slots of the newest stored pane that an event sees, and of the last that it does
        not see any more, in a window of `k` panes. They are equal where it sees none.
        """
        if k not in self._bounds:
            oldest = self.head - (self.ring.slots - 1)
            newest = np.minimum(np.maximum(self.pane, oldest), self.head)
            before = np.minimum(np.maximum(self.pane - k, oldest), self.head)
            self._bounds[k] = self.ring.slot(newest), self.ring.slot(before)
        return self._bounds[k]

    def spans(self, k: int) -> Spans:
        """Return the runs of earlier events that each event sees; both are in pane order."""
        if k not in self._spans:
            self._spans[k] = self._one_run(k) if self.order is None else self.pairs(k)
        return self._spans[k]

    def pairs(self, k: int) -> Spans:
        """Return the same runs, cut so that each lies in one pane, from its first event on."""
        if k not in self._pairs:
            self._pairs[k] = self._by_pane(k)
        return self._pairs[k]

    @lazy
    def rewrite(self) -> Rewrite:
        """The slots of prefix sums that change, from the earliest pane of a group's events on."""
        ends = self.starts[1:]
        lowest = np.minimum.reduceat(self.pane, self.starts[:-1])
        # Where gaps are filled beforehand, the newest pane's slot holds what the old one's did.
        head = np.where(self._is_long, self.group_new_head, self.group_head)
        first = np.minimum(lowest, head + 1)
        first = np.maximum(first, self.group_new_head - (self.ring.slots - 1))
        counts = self.group_new_head - first + 1
        if int(counts.max()) == 1:
            group, pane, end = self.group[self.starts[:-1]], self.group_new_head, ends
        else:
            group, step, _ = spread(counts)
            pane = first[group] + step
            end = np.searchsorted(self._places, self._place(group, pane), side="right")
        old = self.ring.slot(np.minimum(pane, head[group]))
        return Rewrite(group, old, self.ring.slot(pane), self.starts[:-1][group], end)

    @lazy
    def gaps(self) -> Gaps:
        """What prefix sums must fill with their newest value before `rewrite`."""
        group = np.flatnonzero(self._is_long)
        head, new_head = self.group_head[group], self.group_new_head[group]
        distance = self.ring.slot(new_head)[:, None] - np.arange(self.ring.slots)
        distance += np.where(distance < 0, self.ring.slots, 0)
        return Gaps(group, self.ring.slot(head), distance < (new_head - head)[:, None])

    @lazy
    def _is_long(self) -> Bools:
        return self.group_new_head - self.group_head > GAP_LONG

    @lazy
    def fresh(self) -> tuple[Ints, Ints]:
        """Groups and slots of the panes that a fold begins, which must be cleared."""
        counts = np.minimum(self.group_new_head - self.group_head, self.ring.slots)
        if not counts.any():
            return counts[:0], counts[:0]
        group, step, _ = spread(counts)
        return group, self.ring.slot(self.group_new_head[group] - step)

    @lazy
    def tile_of(self) -> Ints:
        """Number of the tile (group and pane) of each event, in pane order."""
        if len(self.pane) == len(self.starts) - 1:
            return self.group
        places = self._places
        changed = np.empty(len(places), np.int64)
        changed[0] = 0
        np.not_equal(places[1:], places[:-1], out=changed[1:], casting="unsafe")
        return np.cumsum(changed)

    @lazy
    def tile_start(self) -> Ints:
        """Position, in pane order, of the first event of each tile."""
        tiles = int(self.tile_of[-1]) + 1
        return np.searchsorted(self.tile_of, np.arange(tiles))

    def stored(self, k: int) -> tuple[Ints, Ints, Ints]:
        """Return, for each tile, how many stored panes its events see, and the newest's slot.

        Also returns the position in pane order of an event of each tile.
        """
        at = self.tile_start
        pane, head = self.sort(self.pane)[at], self.sort(self.head)[at]
        newest = np.minimum(pane, head)
        before = np.maximum(pane - k, head - self.ring.slots)
        return np.maximum(newest - before, 0), self.ring.slot(newest), at

    @lazy
    def _lowest(self) -> int:
        return int(self.pane.min())

    @lazy
    def _width(self) -> int:
        return int(self.pane.max()) - self._lowest + 2

    def _place(self, group: Ints, pane: Ints) -> Ints:
        """Return numbers that sort as (group, pane) does; panes outside the batch's are clipped."""
        inside = np.minimum(np.maximum(pane - (self._lowest - 1), 0), self._width - 1)
        return group * self._width + inside

    @lazy
    def _places(self) -> Ints:
        return self._place(self.sort(self.group), self.sort(self.pane))

    def _one_run(self, k: int) -> Spans:
        high = np.arange(len(self.pane))
        if self._width - 2 < k:
            return Spans(self.starts[self.group], high, None)
        place = self._place(self.group, self.pane - k)
        return Spans(np.searchsorted(self._places, place, side="right"), high, None)

    def _by_pane(self, k: int) -> Spans:
        n = len(self.pane)
        group, pane = self.sort(self.group), self.sort(self.pane)
        low = np.searchsorted(self._places, self._place(group, pane - k), side="right")
        lowest_tile = self.tile_of[low]
        event, step, first = spread(self.tile_of - lowest_tile + 1)
        tile = lowest_tile[event] + step
        start = self.tile_start[tile]
        if self.order is None:
            ends = np.append(self.tile_start[1:], n)
            return Spans(start, np.minimum(ends[tile], event), first)
        # A later pane may have come first: of each tile, only what came before the event counts.
        came = self.tile_of * n + self.order
        return Spans(start, np.searchsorted(came, tile * n + self.order[event]), first)


def spread(counts: Ints) -> tuple[Ints, Ints, Ints]:
    """Repeat each index `counts` times: int64[m] indices, the running number of each, and
    int64[n] where each begins.
    """
    index = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return index, np.arange(len(index)) - first[index], first
