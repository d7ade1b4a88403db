"""The counts and sums of a view, all rings and windows at once: answers, and cells after a fold.

A small micro-batch costs what its calls of numpy cost, whatever it holds. So all windows are
bounded by one expression, and cells of one type are fetched, or stored, by one index.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream_infer.core.aggregates import Question
from stream_infer.core.aggregates_sums import Sums, fill_gaps, scaled
from stream_infer.core.arrays import Floats, Ints
from stream_infer.core.arrivals import Arrivals
from stream_infer.core.features import Kind
from stream_infer.core.panes import Ring, spread
from stream_infer.core.sums_layout import SumsLayout

RUNS_MAX = 1 << 16
"""Panes that a fold changes one by one; of more, those that rows skip are filled row by row."""


class Skipped(NamedTuple):
    """Panes that rows skip in a ring, int64[m]: the row's group, and the pane's slot."""

    group: Ints
    slot: Ints

    @classmethod
    def of(cls, ring: Ring, counts: Ints, newest: Ints) -> "Skipped":
        """Return the `counts` panes before the `newest` one of each row, int64[G] both."""
        group, step, _ = spread(counts)
        return cls(group, ring.slot(newest.take(group) - 1 - step))


class SumsTable:
    """What the `sums` of a view answer and keep.

    `asked` are the columns of an answer, each with who keeps what it needs, and the question.
    """

    def __init__(
        self,
        row_dtype: np.dtype[np.void],
        sums: Sequence[Sums],
        asked: Sequence[tuple[int, Sums, Question]],
    ) -> None:
        self._layout = SumsLayout(row_dtype, sums, asked)
        self._squared = tuple(member for member in sums if member.has_squares)

    def answer(self, arrivals: Arrivals, answers: Floats) -> None:
        """Fill its columns of `answers` float64[F, n], from the rows and the events before each."""
        layout = self._layout
        if not layout.asked:
            return
        exact = self._stored(arrivals)
        if not arrivals.lone:
            self._add_earlier(arrivals, exact)
        if len(layout.own_asked):
            exact[layout.own_asked] += self._added(arrivals)[layout.own_value]
        numbers = exact / layout.divisor
        if layout.factor is not None:
            numbers *= layout.factor
        columns, found = layout.plain
        answers[columns] = numbers[found]
        for column, sums, question, number, total in layout.derived:
            size = exact[number]
            if question.kind is Kind.MEAN:
                result = numbers[total] / np.maximum(size, 1)
            else:
                result = sums.deviation(arrivals, question, size, exact[total])
            answers[column] = np.where(size > 0, result, np.nan)

    def fold(self, arrivals: Arrivals) -> None:
        """Add the events to the cells from their pane up to the newest of their row."""
        if not self._layout.parts:
            return
        if not self._fold_newest(arrivals) and not self._fold_runs(arrivals):
            self._fold_by_ring(arrivals)
        for member in self._squared:
            member.fold_squares(arrivals)

    def _tiles(self, arrivals: Arrivals) -> tuple[Ints, Ints]:
        """Return the panes of the events, and the newest ones of their rows: int64[R, n] each."""
        tile_us = self._layout.ring_tile_us
        return arrivals.once(
            (self, "tiles"), lambda: (arrivals.times_us // tile_us, arrivals.old_us // tile_us)
        )

    def _stored(self, arrivals: Arrivals) -> Ints:
        """Return int64[A, n]: what is asked for, as of the rows before the micro-batch."""
        layout = self._layout
        panes, heads = self._tiles(arrivals)
        pane, head = panes.take(layout.line_ring, axis=0), heads.take(layout.line_ring, axis=0)
        pane -= layout.panes
        np.maximum(pane, head - (layout.slots - 1), out=pane)
        np.minimum(pane, head, out=pane)
        # Floor division is vectorised, the remainder is not.
        pane -= pane // layout.slots * layout.slots
        sums = np.empty((len(layout.asked), len(arrivals)), np.int64)
        for cells in layout.reads:
            found = arrivals.shard.numbers(cells.dtype).take(cells.places(pane, arrivals.row))
            sums[cells.members] = found[: cells.half] - found[cells.half :]
        return sums

    def _add_earlier(self, arrivals: Arrivals, sums: Ints) -> None:
        """Add to `sums` int64[A, n] the events of the micro-batch that each event sees."""
        layout = self._layout
        if self._sees_all(arrivals):
            prefix = self._prefix(arrivals)
            seen = prefix[:, :-1] - prefix.take(arrivals.begin, axis=1)
            sums += seen.take(layout.asked_value, axis=0)
            return
        for number, asked in enumerate(layout.asked):
            ring, k = layout.windows[asked.window]
            panes = arrivals.panes(layout.rings[ring])
            prefix = self._prefix_by_pane(arrivals, ring, int(layout.asked_value[number]))
            sums[number] += panes.unsort(panes.spans(k).total(prefix))

    def _sees_all(self, arrivals: Arrivals) -> bool:
        """Say whether each event sees all events before it of its row, in every window."""
        if arrivals.has_backwards:
            return False
        first_us, last_us = int(arrivals.times_us.min()), int(arrivals.times_us.max())
        return all(
            last_us // tile_us - first_us // tile_us < k for tile_us, k in self._layout.narrowest
        )

    def _fold_newest(self, arrivals: Arrivals) -> bool:
        """Fold where no event is of an earlier pane than the newest, in each row and ring.

        Return whether that is so; where not, nothing has changed. What a row skips on its way to a
        newer pane gets the sums that it had.
        """
        layout = self._layout
        rings = len(layout.rings)
        panes = np.empty((2 * rings, len(arrivals.group_row)), np.int64)
        old, new = panes[:rings], panes[rings:]
        if arrivals.lone and arrivals.own is None:
            pane, old[:] = self._tiles(arrivals)
            np.maximum(old, pane, out=new)
        else:
            np.floor_divide(arrivals.group_old_us, layout.ring_tile_us, out=old)
            np.maximum(old, arrivals.group_time_us // layout.ring_tile_us, out=new)
            pane = arrivals.group_first_us // layout.ring_tile_us
        if np.count_nonzero(pane < new):
            return False
        skipped: list[Skipped] = []
        if np.count_nonzero(new - old > 1):
            # What an unused row skips is as empty as it is.
            np.copyto(old, new, where=arrivals.group_old_us == 0)
            counts = np.minimum(new - old, layout.ring_slots[:rings])
            counts -= 1
            np.maximum(counts, 0, out=counts)
            if (total := counts.sum()) > RUNS_MAX:
                return False
            if total:
                skipped = [
                    Skipped.of(*ring) for ring in zip(layout.rings, counts, new, strict=True)
                ]
        panes -= panes // layout.ring_slots * layout.ring_slots
        added = self._added_by_group(arrivals).take(layout.part_value, axis=0)
        for cells in layout.writes:
            flat = arrivals.shard.numbers(cells.dtype)
            index = cells.places(panes, arrivals.group_row)
            kept = flat.take(index[: cells.half])
            flat[index[cells.half :]] = kept + added[cells.members].astype(cells.dtype)
            if not skipped:
                continue
            begins = arrivals.group_row * cells.length
            for (part, offset), sums in zip(layout.placed(cells), kept, strict=True):
                group, slot = skipped[part.ring]
                if len(group):
                    flat[begins.take(group) + (slot + offset)] = sums.take(group)
        return True

    def _fold_runs(self, arrivals: Arrivals) -> bool:
        """Fold where each row changes a run of panes, from its earliest event's to the newest.

        Return whether these are few enough; nothing has changed where they are not.
        """
        layout = self._layout
        rings, groups = len(layout.rings), len(arrivals.group_row)
        tile_us, ring_slots = layout.ring_tile_us, layout.ring_slots[:rings]
        head = arrivals.group_old_us // tile_us
        newest = np.maximum(head, arrivals.group_time_us // tile_us)
        first = np.minimum(arrivals.group_first_us // tile_us, head + 1)
        np.maximum(first, newest - (ring_slots - 1), out=first)
        counts = newest - first
        counts += 1
        if counts.sum() > RUNS_MAX:
            return False
        run, step, begin = spread(counts.ravel())
        changed = first.ravel()[run] + step
        more = self._running_in_runs(arrivals, first, begin.reshape(rings, groups), run)
        slots = ring_slots.repeat(groups)[run]
        old = np.minimum(changed, head.ravel()[run])
        old -= old // slots * slots
        changed -= changed // slots * slots
        row = arrivals.group_row[run % groups]
        ends = [0, *counts.sum(axis=1).cumsum().tolist()]
        for cells in layout.writes:
            flat, start = arrivals.shard.numbers(cells.dtype), row * cells.length
            for part, offset in layout.placed(cells):
                of = slice(ends[part.ring], ends[part.ring + 1])
                place = start[of] + offset
                kept = flat.take(place + old[of])
                flat[place + changed[of]] = kept + more[part.value, of].astype(cells.dtype)
        return True

    def _running_in_runs(self, arrivals: Arrivals, first: Ints, begin: Ints, run: Ints) -> Ints:
        """Return int64[V, m]: what a row's events add up to each pane of its run.

        `first` and `begin` int64[R, G] are each run's first pane, and its place among all m panes;
        `run` int64[m] is the run of each.
        """
        layout = self._layout
        at = arrivals.times_us // layout.ring_tile_us
        at -= first.take(arrivals.group, axis=1)
        np.maximum(at, 0, out=at)
        at += begin.take(arrivals.group, axis=1)
        if arrivals.own is not None:
            # What observes adds nothing, wherever.
            at *= arrivals.own
        added = self._added(arrivals)
        running = np.zeros((len(added), len(run) + 1), np.int64)
        for line, values in zip(running[:, 1:], added, strict=True):
            for places in at:
                np.add.at(line, places, values)
        np.cumsum(running, axis=1, out=running)
        result: Ints = running[:, 1:] - running.take(begin.ravel().take(run), axis=1)
        return result

    def _fold_by_ring(self, arrivals: Arrivals) -> None:
        for ring, kept in enumerate(self._layout.rings):
            self._fill_gaps(arrivals, ring)
            change = arrivals.panes(kept).rewrite
            rows = arrivals.group_row[change.group]
            for part in self._layout.parts:
                if part.ring == ring:
                    prefix = self._prefix_by_pane(arrivals, ring, part.value)
                    more = (prefix[change.end] - prefix[change.begin]).astype(part.dtype)
                    more += arrivals.take(part.name, rows, change.old_slot)
                    arrivals.put(part.name, rows, more, change.new_slot)

    def _fill_gaps(self, arrivals: Arrivals, ring: int) -> None:
        panes = arrivals.panes(self._layout.rings[ring])
        for part in self._layout.parts:
            if part.ring == ring:
                fill_gaps(arrivals, panes, part.name)

    def _added(self, arrivals: Arrivals) -> Ints:
        """Return int64[V, n]: what each event adds, by value."""
        return arrivals.once((self, "added"), lambda: self._added_now(arrivals))

    def _added_now(self, arrivals: Arrivals) -> Ints:
        values = self._layout.values
        added = np.empty((len(values), len(arrivals)), np.int64)
        for number, (source, step) in enumerate(values):
            if step is None:
                added[number] = arrivals.matched(source)
            else:
                added[number] = scaled(arrivals, source, step)
        return added

    def _prefix(self, arrivals: Arrivals) -> Ints:
        """Return int64[V, n + 1]: what the events before each position add."""
        return arrivals.once((self, "prefix"), lambda: _running(self._added(arrivals)))

    def _prefix_by_pane(self, arrivals: Arrivals, ring: int, value: int) -> Ints:
        """Return int64[n + 1]: what events add before each position in a ring's pane order."""
        order = arrivals.panes(self._layout.rings[ring]).order
        if order is None:
            whole: Ints = self._prefix(arrivals)[value]
            return whole
        prefix: Ints = arrivals.once(
            (self, "prefix", ring), lambda: _running(self._added(arrivals).take(order, axis=1))
        )[value]
        return prefix

    def _added_by_group(self, arrivals: Arrivals) -> Ints:
        if arrivals.lone:
            return self._added(arrivals)
        ends = self._prefix(arrivals).take(arrivals.starts, axis=1)
        added: Ints = ends[:, 1:] - ends[:, :-1]
        return added


def _running(values: Ints) -> Ints:
    """Return int64[V, n + 1]: sums of what stands before each position of `values` int64[V, n]."""
    lines, n = values.shape
    prefix = np.zeros((lines, n + 1), np.int64)
    np.cumsum(values, axis=1, out=prefix[:, 1:])
    return prefix
