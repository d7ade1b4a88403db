"""Minimum and maximum over windows: the least value of each tile."""

from dataclasses import dataclass

import numpy as np

from stream_infer.core.aggregates import Column, Question
from stream_infer.core.arrays import Floats, Ints
from stream_infer.core.arrivals import Arrivals, Source
from stream_infer.core.durations import text_of
from stream_infer.core.panes import Panes, Ring


@dataclass(frozen=True, slots=True)
class Extremes:
    """Smallest values of one field of some event types in one ring; +inf where there are none.

    With `largest`, values are negated on the way in and out, so that the least is the largest.
    """

    name: str
    ring: Ring
    source: Source
    largest: bool

    def columns(self) -> list[Column]:
        """Return the one column kept."""
        return [Column(f"{self.name}_least", "<f8", self.ring.slots)]

    def meaning(self, tags: tuple[str, ...]) -> str:
        """Return text that identifies the stored numbers."""
        word = "max" if self.largest else "min"
        return f"{word} {','.join(tags)} {self.source.field} {text_of(self.ring.tile_us)}"

    def answer(self, arrivals: Arrivals, question: Question) -> Floats:
        """Return the extreme of what each event sees, NaN where it sees none."""
        panes = arrivals.panes(self.ring)
        values = self._values(arrivals)
        least = self._stored(arrivals, panes, question.panes)[panes.tile_of]
        if not arrivals.lone:
            least = np.minimum(least, self._in_batch(panes, panes.sort(values), question.panes))
        least = panes.unsort(least)
        if question.include_self:
            least = np.minimum(least, values)
        least = np.where(np.isposinf(least), np.nan, least)
        return -least if self.largest else least

    def fold(self, arrivals: Arrivals) -> None:
        """Lower the tiles of the events' panes."""
        panes, column = arrivals.panes(self.ring), f"{self.name}_least"
        group, slot = panes.fresh
        arrivals.put(column, arrivals.group_row[group], np.full(len(group), np.inf), slot)
        kept = panes.pane > panes.group_new_head[arrivals.group] - self.ring.slots
        arrivals.lower(
            column,
            arrivals.row[kept],
            self._values(arrivals)[kept],
            self.ring.slot(panes.pane[kept]),
        )

    def _values(self, arrivals: Arrivals) -> Floats:
        assert self.source.field is not None
        values = arrivals.values(self.source.field)
        signed = -values if self.largest else values
        return np.where(arrivals.matched(self.source), signed, np.inf)

    def _stored(self, arrivals: Arrivals, panes: Panes, k: int) -> Floats:
        """Return the least of the stored tiles that the events of each tile see."""
        seen, newest, at = panes.stored(k)
        most = int(seen.max())
        if most == 0:
            return np.full(len(seen), np.inf)
        lag = np.arange(most)
        slot = newest[:, None] - lag
        slot += np.where(slot < 0, self.ring.slots, 0)
        row = panes.sort(arrivals.row)[at][:, None]
        least = arrivals.take(f"{self.name}_least", row, slot)
        least[lag >= seen[:, None]] = np.inf
        lowest: Floats = np.minimum.reduce(least, axis=1)
        return lowest

    def _in_batch(self, panes: Panes, values: Floats, k: int) -> Floats:
        """Return the least of the batch's events that each event sees, in pane order."""
        pairs = panes.pairs(k)
        assert pairs.first is not None
        some = pairs.high > pairs.low
        if not some.any():
            return np.full(len(values), np.inf)
        running = running_least(values, panes.tile_of)
        least = np.where(some, running[pairs.high - 1], np.inf)
        lowest: Floats = np.minimum.reduceat(least, pairs.first)
        return lowest


def running_least(values: Floats, part: Ints) -> Floats:
    """Return the least value so far within each part; `part` int64[n] are ascending numbers.

    >>> running_least(np.array([3.0, 2.0, 5.0, 4.0]), np.array([0, 0, 1, 1]))
    array([3., 2., 5., 4.])
    """
    n = len(values)
    descending = np.argsort(-values)
    rank = np.empty(n, np.int64)
    rank[descending] = np.arange(n)
    best = np.maximum.accumulate(part * n + rank) - part * n
    least: Floats = values[descending[best]]
    return least
