"""Counts, sums and sums of squares over windows: exact integers, kept as prefix sums.

The cell of pane p holds the sum over everything the row has seen in panes up to p, so a window is
the difference of two cells, however many tiles it has. Cells wrap around; differences do not, as
long as the window's own sum is in range.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_infer.core import wide
from stream_infer.core.aggregates import Column, Question
from stream_infer.core.arrays import Floats, Ints
from stream_infer.core.arrivals import Arrivals, Source
from stream_infer.core.durations import text_of
from stream_infer.core.features import Kind
from stream_infer.core.panes import Panes, Ring
from stream_infer.core.wide import Wide

COUNT, SUM, SQUARES = "count", "sum", "squares"
PARTS_OF = {
    Kind.COUNT: (COUNT,),
    Kind.SUM: (SUM,),
    Kind.MEAN: (COUNT, SUM),
    Kind.STD: (COUNT, SUM, SQUARES),
}


@dataclass(frozen=True, slots=True)
class Sums:
    """Prefix sums of one field of some event types in one ring; `parts` are the ones kept.

    Values are rounded to multiples of `step`, half to even, and summed as integers.
    """

    name: str
    ring: Ring
    source: Source
    step: float
    parts: tuple[str, ...]

    def columns(self) -> list[Column]:
        """Return the columns kept; squares need 128 bits."""
        slots = self.ring.slots
        kept = {
            COUNT: [Column(f"{self.name}_count", "<u4", slots)],
            SUM: [Column(f"{self.name}_sum", "<i8", slots)],
            SQUARES: [
                Column(f"{self.name}_high", "<u8", slots),
                Column(f"{self.name}_low", "<u8", slots),
            ],
        }
        return [column for part in self.parts for column in kept[part]]

    def meaning(self, tags: tuple[str, ...]) -> str:
        """Return text that identifies the stored numbers."""
        step = self.step if self.source.field is not None else 0
        tile = text_of(self.ring.tile_us)
        return f"sums {','.join(tags)} {self.source.field} {tile} {step!r} {','.join(self.parts)}"

    def answer(self, arrivals: Arrivals, question: Question) -> Floats:
        """Return count, sum, mean or standard deviation of what each event sees."""
        if question.kind is Kind.COUNT:
            return self._count(arrivals, question).astype(np.float64)
        if question.kind is Kind.SUM:
            return self._unscaled(self._sum(arrivals, question))
        count = self._count(arrivals, question)
        size = np.maximum(count, 1)
        if question.kind is Kind.MEAN:
            result = self._unscaled(self._sum(arrivals, question)) / size
        else:
            squares = self._squares(arrivals, question)
            total = wide.square(self._sum(arrivals, question))
            spread = wide.subtract(wide.multiply(size.view(np.uint64), squares), total)
            result = self._unscaled(np.sqrt(wide.to_float(spread)) / size)
        return np.where(count > 0, result, np.nan)

    def fold(self, arrivals: Arrivals) -> None:
        """Add the events to the cells from their pane up to the row's newest."""
        panes = arrivals.panes(self.ring)
        if COUNT in self.parts:
            self._shift(arrivals, "count", self._prefix(arrivals, "count", self._ones).astype("u4"))
        if SUM in self.parts:
            self._shift(arrivals, "sum", self._prefix(arrivals, "sum", self._scaled))
        if SQUARES in self.parts:
            change, rows = panes.rewrite, arrivals.group_row[panes.rewrite.group]
            high, low = self._square_prefixes(arrivals)
            added = wide.from_limbs(
                high[change.end] - high[change.begin], low[change.end] - low[change.begin]
            )
            names = f"{self.name}_high", f"{self.name}_low"
            for name in names:
                _fill_gaps(arrivals, panes, name)
            old = tuple(arrivals.take(name, rows, change.old_slot) for name in names)
            for name, word in zip(names, wide.add((old[0], old[1]), added), strict=True):
                arrivals.put(name, rows, word, change.new_slot)

    def _shift(self, arrivals: Arrivals, part: str, prefix: npt.NDArray[Any]) -> None:
        panes, name = arrivals.panes(self.ring), f"{self.name}_{part}"
        _fill_gaps(arrivals, panes, name)
        change = panes.rewrite
        rows = arrivals.group_row[change.group]
        old = arrivals.take(name, rows, change.old_slot)
        added = prefix[change.end] - prefix[change.begin]
        arrivals.put(name, rows, old + added, change.new_slot)

    def _count(self, arrivals: Arrivals, question: Question) -> Ints:
        def compute() -> Ints:
            newest, before = self._ends(arrivals, question, "count")
            stored = (newest - before).astype(np.int64)
            return self._with_batch(arrivals, question, stored, "count", self._ones)

        return arrivals.once((self.name, "count", question.panes, question.include_self), compute)

    def _sum(self, arrivals: Arrivals, question: Question) -> Ints:
        def compute() -> Ints:
            newest, before = self._ends(arrivals, question, "sum")
            return self._with_batch(arrivals, question, newest - before, "sum", self._scaled)

        return arrivals.once((self.name, "sum", question.panes, question.include_self), compute)

    def _squares(self, arrivals: Arrivals, question: Question) -> Wide:
        newest_high, before_high = self._ends(arrivals, question, "high")
        newest_low, before_low = self._ends(arrivals, question, "low")
        stored = wide.subtract((newest_high, newest_low), (before_high, before_low))
        zero = np.zeros(len(arrivals), np.int64)
        high = self._with_batch(arrivals, question, zero, "high", self._square_high)
        low = self._with_batch(arrivals, question, zero, "low", self._square_low)
        return wide.add(stored, wide.from_limbs(high, low))

    def _ends(
        self, arrivals: Arrivals, question: Question, part: str
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        newest, before = arrivals.panes(self.ring).bounds(question.panes)
        column = f"{self.name}_{part}"
        return arrivals.take(column, arrivals.row, newest), arrivals.take(
            column, arrivals.row, before
        )

    def _with_batch(
        self,
        arrivals: Arrivals,
        question: Question,
        stored: Ints,
        part: str,
        values: Callable[[Arrivals], Ints],
    ) -> Ints:
        """Add to the stored sums those of the batch's events that each event sees."""
        result = stored
        if not arrivals.alone:
            panes = arrivals.panes(self.ring)
            prefix = self._prefix(arrivals, part, values)
            result = result + panes.unsort(panes.spans(question.panes).total(prefix))
        return result + values(arrivals) if question.include_self else result

    def _prefix(self, arrivals: Arrivals, part: str, values: Callable[[Arrivals], Ints]) -> Ints:
        """Return int64[n + 1]: sums of the events before each position, in pane order."""

        def compute() -> Ints:
            panes: Panes = arrivals.panes(self.ring)
            prefix = np.zeros(len(arrivals) + 1, np.int64)
            np.cumsum(panes.sort(values(arrivals)), out=prefix[1:])
            return prefix

        return arrivals.once((self.name, "prefix", part), compute)

    def _square_prefixes(self, arrivals: Arrivals) -> tuple[Ints, Ints]:
        return (
            self._prefix(arrivals, "high", self._square_high),
            self._prefix(arrivals, "low", self._square_low),
        )

    def _ones(self, arrivals: Arrivals) -> Ints:
        return arrivals.matched(self.source).view(np.int8).astype(np.int64)

    def _scaled(self, arrivals: Arrivals) -> Ints:
        return arrivals.once(("scaled", self.source, self.step), lambda: self._rounded(arrivals))

    def _rounded(self, arrivals: Arrivals) -> Ints:
        assert self.source.field is not None
        known = np.where(arrivals.matched(self.source), arrivals.values(self.source.field), 0.0)
        return np.rint(known / self.step).astype(np.int64)

    def _limbs(self, arrivals: Arrivals) -> tuple[Ints, Ints]:
        return arrivals.once(
            ("limbs", self.source, self.step), lambda: wide.square_limbs(self._scaled(arrivals))
        )

    def _square_high(self, arrivals: Arrivals) -> Ints:
        return self._limbs(arrivals)[0]

    def _square_low(self, arrivals: Arrivals) -> Ints:
        return self._limbs(arrivals)[1]

    def _unscaled(self, scaled: Ints | Floats) -> Floats:
        """Return `scaled` steps as a number: dividing by 10**6 is exact where 10**-6 is not."""
        per_unit = round(1 / self.step)
        number = scaled.astype(np.float64)
        return number / per_unit if per_unit * self.step == 1.0 else number * self.step


def _fill_gaps(arrivals: Arrivals, panes: Panes, name: str) -> None:
    """Write the newest sum into the slots of the tiles that a row skips."""
    gaps = panes.gaps
    if len(gaps.group):
        rows = arrivals.group_row[gaps.group]
        column = arrivals.shard.rows[name]
        newest = arrivals.take(name, rows, gaps.old_slot)
        column[rows] = np.where(gaps.skipped, newest[:, None], column[rows])
