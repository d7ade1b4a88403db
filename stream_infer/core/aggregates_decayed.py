"""Exponentially weighted mean, by event time."""

from dataclasses import dataclass

import numpy as np

from stream_infer.core.aggregates import Column, Question
from stream_infer.core.aggregates_latest import latest_of
from stream_infer.core.arrays import Bools, Floats, Ints
from stream_infer.core.arrivals import Arrivals, Source
from stream_infer.core.durations import text_of


@dataclass(frozen=True, slots=True)
class Decayed:
    """Weighted sum of a field, sum of the weights, and the time of its newest contribution.

    A contribution weighs 2 ** (-age / half_life), so the mean does not depend on when it is read.
    Sums are kept as of the newest contribution and folded strictly in offset order. After a silence
    of `over_us` they start afresh: a row that idled so long may be forgotten.
    """

    name: str
    source: Source
    half_life_us: int
    over_us: int

    def columns(self) -> list[Column]:
        """Return the columns kept; time 0 means none."""
        return [
            Column(f"{self.name}_time", "<i8"),
            Column(f"{self.name}_sum", "<f8"),
            Column(f"{self.name}_weight", "<f8"),
        ]

    def meaning(self, tags: tuple[str, ...]) -> str:
        """Return text that identifies the stored numbers."""
        halves, over = text_of(self.half_life_us), text_of(self.over_us)
        return f"decayed {','.join(tags)} {self.source.field} {halves} {over}"

    def answer(self, arrivals: Arrivals, question: Question) -> Floats:
        """Return the weighted mean, NaN where its newest contribution is as old as the window."""
        newest_us, total, weight = self._states(arrivals, include_self=question.include_self)
        seen = (weight > 0) & (arrivals.times_us - newest_us < question.over_us)
        return np.where(seen, total / np.where(seen, weight, 1.0), np.nan)

    def fold(self, arrivals: Arrivals) -> None:
        """Store the state after the last event of each group."""
        last = arrivals.starts[1:] - 1
        newest_us, total, weight = self._states(arrivals, include_self=True)
        arrivals.put(f"{self.name}_time", arrivals.group_row, newest_us[last])
        arrivals.put(f"{self.name}_sum", arrivals.group_row, total[last])
        arrivals.put(f"{self.name}_weight", arrivals.group_row, weight[last])

    def _states(self, arrivals: Arrivals, *, include_self: bool) -> tuple[Ints, Floats, Floats]:
        """Return newest time, sum and weight as each event sees them, before or after itself."""
        stored = tuple(
            arrivals.take(f"{self.name}_{part}", arrivals.row) for part in ("time", "sum", "weight")
        )
        newest_us = self._newest(arrivals, stored[0], include_self=include_self)
        if arrivals.lone and not include_self:
            return newest_us, stored[1], stored[2]
        at, total, weight = arrivals.once(
            (self.name, "steps"), lambda: self._steps(arrivals, stored[0], stored[1], stored[2])
        )
        # The step that counts is the last one of the same row, up to the event or before it.
        upto = arrivals.positions + 1 if include_self else arrivals.positions
        step = np.searchsorted(at, upto) - 1
        stepped = step >= 0
        stepped[stepped] = at[step[stepped]] >= arrivals.starts[arrivals.group[stepped]]
        if not len(at):
            return newest_us, stored[1], stored[2]
        return (
            newest_us,
            np.where(stepped, total[step], stored[1]),
            np.where(stepped, weight[step], stored[2]),
        )

    def _newest(self, arrivals: Arrivals, stored_us: Ints, *, include_self: bool) -> Ints:
        winner = latest_of(arrivals, self.source, include_self=include_self)
        return np.where(winner < 0, stored_us, np.maximum(arrivals.times_us[winner], stored_us))

    def _steps(
        self, arrivals: Arrivals, stored_us: Ints, stored_sum: Floats, stored_weight: Floats
    ) -> tuple[Ints, Floats, Floats]:
        """Return positions of contributions, and sum and weight after each, in offset order."""
        assert self.source.field is not None
        at = np.flatnonzero(arrivals.matched(self.source))
        ahead = arrivals.times_us - self._newest(arrivals, stored_us, include_self=False)
        ahead_us = ahead[at]
        fading = np.exp2(-np.abs(ahead_us) / self.half_life_us)
        keep = np.where(ahead_us >= 0, fading, 1.0)  # what the state before is worth now
        keep[ahead_us >= self.over_us] = 0.0
        share = np.where(ahead_us >= 0, 1.0, fading)  # what the contribution is worth
        value = arrivals.values(self.source.field)[at]
        group = arrivals.group[at]
        first = np.ones(len(at), bool)
        np.not_equal(group[1:], group[:-1], out=first[1:])
        total, weight = stored_sum[at] * keep + value * share, stored_weight[at] * keep + share
        if not first.all():
            _run(first, keep, value * share, share, total, weight)
        return at, total, weight


def _run(
    first: Bools,
    keep: Floats,
    added: Floats,
    share: Floats,
    total: Floats,
    weight: Floats,
) -> None:
    """Replace `total` and `weight` by running values; those of first contributions are right."""
    totals, weights = total.tolist(), weight.tolist()
    sum_now = weight_now = 0.0
    steps = zip(first.tolist(), keep.tolist(), added.tolist(), share.tolist(), strict=True)
    for i, (is_first, factor, more, much) in enumerate(steps):
        if is_first:
            sum_now, weight_now = totals[i], weights[i]
        else:
            totals[i] = sum_now = sum_now * factor + more
            weights[i] = weight_now = weight_now * factor + much
    total[:], weight[:] = totals, weights
