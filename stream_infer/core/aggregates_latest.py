"""The latest event: its value, and the time since it."""

from dataclasses import dataclass

import numpy as np

from stream_infer.core.aggregates import Column, Question
from stream_infer.core.arrays import Floats, Ints
from stream_infer.core.arrivals import Arrivals, Source
from stream_infer.core.durations import SECOND_US
from stream_infer.core.features import Kind


@dataclass(frozen=True, slots=True)
class Latest:
    """Time, and value if `source` has a field, of the event with the latest time.

    Of events with equal times, the one with the later offset counts. There is one cell, so an event
    that is older than the latest one sees that one too, as if they were of the same time.
    """

    name: str
    source: Source

    def columns(self) -> list[Column]:
        """Return the columns kept; time 0 means none."""
        time = [Column(f"{self.name}_time", "<i8")]
        return time if self.source.field is None else [*time, Column(f"{self.name}_value", "<f8")]

    def meaning(self, tags: tuple[str, ...]) -> str:
        """Return text that identifies the stored numbers."""
        return f"latest {','.join(tags)} {self.source.field}"

    def answer(self, arrivals: Arrivals, question: Question) -> Floats:
        """Return the latest value, or the seconds since it; NaN where older than the window."""
        winner = latest_of(arrivals, self.source, include_self=question.include_self)
        stored_us: Ints = arrivals.take(f"{self.name}_time", arrivals.row)
        in_batch = winner >= 0
        in_batch &= arrivals.times_us[winner] >= stored_us
        latest_us = np.where(in_batch, arrivals.times_us[winner], stored_us)
        age_us = np.maximum(arrivals.times_us - latest_us, 0)
        if question.kind is Kind.SINCE_LAST:
            result = age_us / SECOND_US
        else:
            assert self.source.field is not None
            stored: Floats = arrivals.take(f"{self.name}_value", arrivals.row)
            result = np.where(in_batch, arrivals.values(self.source.field)[winner], stored)
        return np.where((latest_us > 0) & (age_us < question.over_us), result, np.nan)

    def fold(self, arrivals: Arrivals) -> None:
        """Keep the latest event of each group where it is not older than the stored one."""
        winner = latest_of(arrivals, self.source, include_self=True)[arrivals.starts[1:] - 1]
        stored_us: Ints = arrivals.take(f"{self.name}_time", arrivals.group_row)
        newer = (winner >= 0) & (arrivals.times_us[winner] >= stored_us)
        rows, winner = arrivals.group_row[newer], winner[newer]
        arrivals.put(f"{self.name}_time", rows, arrivals.times_us[winner])
        if self.source.field is not None:
            values = arrivals.values(self.source.field)[winner]
            arrivals.put(f"{self.name}_value", rows, values)


def latest_of(arrivals: Arrivals, source: Source, *, include_self: bool) -> Ints:
    """Return, for each event, which event of the batch before it is its row's latest; -1: none.

    int64[n], positions in the order of `arrivals`; only events that `source` matches count.
    """
    if arrivals.lone:
        itself = arrivals.positions if include_self else -1
        return np.where(arrivals.matched(source), itself, -1)
    upto: Ints = arrivals.once(("latest", source), lambda: _latest_up_to(arrivals, source))
    if include_self:
        return upto
    before = np.empty_like(upto)
    before[1:] = upto[:-1]
    before[arrivals.starts[:-1]] = -1
    return before


def _latest_up_to(arrivals: Arrivals, source: Source) -> Ints:
    n = len(arrivals)
    by_time = np.argsort(arrivals.times_us, kind="stable")
    rank = np.empty(n, np.int64)
    rank[by_time] = np.arange(1, n + 1)
    base = arrivals.group * (n + 1)
    best = np.maximum.accumulate(base + np.where(arrivals.matched(source), rank, 0)) - base
    return np.where(best > 0, by_time[best - 1], -1)
