"""Counts, sums and sums of squares over windows: exact integers, kept as prefix sums.

The cell of pane p holds the sum over everything the row has seen in panes up to p, so a window is
the difference of two cells, however many tiles it has. Cells wrap around; differences do not, as
long as the window's own sum is in range.
"""

from dataclasses import dataclass

import numpy as np

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

    @property
    def has_squares(self) -> bool:
        """Whether sums of squares are kept."""
        return SQUARES in self.parts

    def deviation(self, arrivals: Arrivals, question: Question, count: Ints, total: Ints) -> Floats:
        """Return the standard deviation of what each event sees, where `count` is not 0.

        `count` and `total` int64[n] are the number and the sum of what it sees, in steps.
        """
        size = np.maximum(count, 1)
        product = wide.multiply(size.view(np.uint64), self._squares(arrivals, question))
        spread = wide.subtract(product, wide.square(total))
        divisor, factor = per_unit(self.step)
        result: Floats = np.sqrt(wide.to_float(spread)) / size / divisor * factor
        return result

    def fold_squares(self, arrivals: Arrivals) -> None:
        """Add the squares to the cells from their pane up to the row's newest."""
        panes = arrivals.panes(self.ring)
        change, rows = panes.rewrite, arrivals.group_row[panes.rewrite.group]
        high, low = (self._prefix(arrivals, limb) for limb in (0, 1))
        added = wide.from_limbs(
            high[change.end] - high[change.begin], low[change.end] - low[change.begin]
        )
        for name in self._square_names:
            fill_gaps(arrivals, panes, name)
        old = tuple(arrivals.take(name, rows, change.old_slot) for name in self._square_names)
        for name, word in zip(self._square_names, wide.add((old[0], old[1]), added), strict=True):
            arrivals.put(name, rows, word, change.new_slot)

    @property
    def _square_names(self) -> tuple[str, str]:
        return f"{self.name}_high", f"{self.name}_low"

    def _squares(self, arrivals: Arrivals, question: Question) -> Wide:
        """Return the sum of the squares that each event sees."""
        panes = arrivals.panes(self.ring)
        newest, before = panes.bounds(question.panes)
        ends = [
            tuple(arrivals.take(name, arrivals.row, slots) for name in self._square_names)
            for slots in (newest, before)
        ]
        result = wide.subtract((ends[0][0], ends[0][1]), (ends[1][0], ends[1][1]))
        if not arrivals.lone:
            spans = panes.spans(question.panes)
            high, low = (panes.unsort(spans.total(self._prefix(arrivals, limb))) for limb in (0, 1))
            result = wide.add(result, wide.from_limbs(high, low))
        if question.include_self:
            result = wide.add(result, wide.from_limbs(*self._limbs(arrivals)))
        return result

    def _prefix(self, arrivals: Arrivals, limb: int) -> Ints:
        """Return int64[n + 1]: sums of a limb before each position, in pane order."""

        def compute() -> Ints:
            prefix = np.zeros(len(arrivals) + 1, np.int64)
            limbs = self._limbs(arrivals)[limb]
            np.cumsum(arrivals.panes(self.ring).sort(limbs), out=prefix[1:])
            return prefix

        return arrivals.once((self.name, "squares", limb), compute)

    def _limbs(self, arrivals: Arrivals) -> tuple[Ints, Ints]:
        def compute() -> tuple[Ints, Ints]:
            return wide.square_limbs(scaled(arrivals, self.source, self.step))

        return arrivals.once(("limbs", self.source, self.step), compute)


def scaled(arrivals: Arrivals, source: Source, step: float) -> Ints:
    """Return a field of matching events as a number of steps, int64[n]; of others, 0."""

    def compute() -> Ints:
        assert source.field is not None
        known, matched = arrivals.values(source.field), arrivals.matched(source)
        if np.count_nonzero(matched) < len(arrivals):
            known = np.where(matched, known, 0.0)
        return np.rint(known / step).astype(np.int64)

    return arrivals.once(("scaled", source, step), compute)


def per_unit(step: float | None) -> tuple[float, float]:
    """Return what a number of steps is divided by, and then multiplied by, to be a number.

    Dividing by 10**6 is exact where multiplying by 10**-6 is not. None: it counts.

    >>> per_unit(1e-6), per_unit(0.3), per_unit(None)
    ((1000000, 1.0), (1.0, 0.3), (1.0, 1.0))
    """
    if step is None:
        return 1.0, 1.0
    divisor = round(1 / step)
    return (divisor, 1.0) if divisor * step == 1.0 else (1.0, step)


def fill_gaps(arrivals: Arrivals, panes: Panes, name: str) -> None:
    """Write the newest sum into the slots of the tiles that a row skips."""
    gaps = panes.gaps
    if len(gaps.group):
        rows = arrivals.group_row[gaps.group]
        column = arrivals.shard.rows[name]
        newest = arrivals.take(name, rows, gaps.old_slot)
        column[rows] = np.where(gaps.skipped, newest[:, None], column[rows])
