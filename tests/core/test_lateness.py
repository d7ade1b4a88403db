"""Laws of lateness: a partition has a clock of its own, however many are worked on at once."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.core.arrays import Ints
from stream_infer.core.lateness import on_time
from stream_infer.core.partitioned import bounds_of, from_on

LATENESS_US = 10


@dataclass
class Clock:
    stream_times_us: tuple[int, ...]


@dataclass
class Times:
    times_us: Ints

    def __len__(self) -> int:
        return len(self.times_us)


@dataclass
class Works:
    batch: Times
    states: list[Clock]
    bounds: list[int] = field(default_factory=list)


def one_by_one(clock_us: int, times_us: list[int]) -> tuple[list[bool], int]:
    found = []
    for time_us in times_us:
        found.append(time_us >= clock_us - LATENESS_US)
        clock_us = max(clock_us, time_us)
    return found, clock_us


partitions = st.lists(
    st.tuples(st.integers(0, 60), st.lists(st.integers(0, 60), max_size=5)), min_size=1, max_size=4
)


@given(partitions)
def test_each_event_is_judged_by_what_came_before_it_in_its_partition(
    given_parts: list[tuple[int, list[int]]],
) -> None:
    clocks = [Clock((clock_us,)) for clock_us, _ in given_parts]
    bounds = np.cumsum([0] + [len(times) for _, times in given_parts]).tolist()
    times_us = np.array([time for _, times in given_parts for time in times], np.int64)
    work = Works(Times(times_us), clocks, bounds)
    result = on_time(work, LATENESS_US)  # type: ignore[arg-type]
    expected = [one_by_one(clock_us, times) for clock_us, times in given_parts]
    wanted = [is_on_time for found, _ in expected for is_on_time in found]
    assert (wanted if result is None else result.tolist()) == wanted
    assert [clock.stream_times_us for clock in clocks] == [(clock_us,) for _, clock_us in expected]
    kept = bounds_of(result, bounds)
    counts = [sum(found) for found, _ in expected]
    assert list(kept) == np.cumsum([0, *counts]).tolist()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 4)), min_size=1))
def test_what_is_below_the_start_of_its_partition_was_published_before(
    given_parts: list[tuple[int, int, int]],
) -> None:
    starts = [(start,) for start, _, _ in given_parts]
    logs = [range(first, first + n) for _, first, n in given_parts]
    bounds = np.cumsum([0] + [len(log) for log in logs]).tolist()
    offsets = np.array([offset for log in logs for offset in log], np.int64)
    wanted = [o >= start for (start,), log in zip(starts, logs, strict=True) for o in log]
    assert from_on(starts, bounds, offsets, None).tolist() == wanted
