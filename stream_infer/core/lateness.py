"""Which events come too late, by the clock of their partition: the newest event time in its log."""

from itertools import pairwise

import numpy as np

from stream_infer.core.arrays import Bools, Choice, Ints
from stream_infer.core.partitioned import Partitioned


def on_time(work: Partitioned, lateness_us: int) -> Choice:
    """Advance the clocks of partitions of a single stream; return which events are on time."""
    times_us = work.batch.times_us
    parts = [
        (state, start, end)
        for state, (start, end) in zip(work.states, pairwise(work.bounds), strict=True)
        if start < end
    ]
    if not parts:
        return None
    starts = [start for _, start, _ in parts]
    # What is oldest and newest of each partition tells nearly always that none is late.
    if len(parts) == len(times_us):  # One event each.
        oldest_us = newest_us = times_us.tolist()
    else:
        oldest_us = np.minimum.reduceat(times_us, starts).tolist()
        newest_us = np.maximum.reduceat(times_us, starts).tolist()
    late = False
    clocks_us: list[int] = []
    for (state, _, _), oldest, newest in zip(parts, oldest_us, newest_us, strict=True):
        (clock_us,) = state.stream_times_us
        clocks_us.append(clock_us)
        if newest > clock_us:
            state.stream_times_us = (newest,)
            clock_us = newest
        late |= oldest < clock_us - lateness_us
    if not late:
        return None
    return np.concatenate(
        [
            within_lateness(times_us[start:end], clock_us, lateness_us)[0]
            for (_, start, end), clock_us in zip(parts, clocks_us, strict=True)
        ]
    )


def within_lateness(times_us: Ints, newest_us: int, lateness_us: int) -> tuple[Bools, int]:
    """Return which events of one stream are on time, bool[n], and its newest event time then."""
    if not len(times_us):
        return np.ones(0, bool), newest_us
    latest_us = max(newest_us, int(times_us.max()))
    if int(times_us.min()) >= latest_us - lateness_us:
        return np.ones(len(times_us), bool), latest_us
    newest = np.maximum.accumulate(times_us)
    before = np.maximum(np.concatenate(([newest_us], newest[:-1])), newest_us)
    result: Bools = times_us >= before - lateness_us
    return result, latest_us
