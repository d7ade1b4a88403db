"""How fast and how evenly the machine works while nothing is measured.

A machine that is shared is now faster, now slower, and stands still now and then; what was measured
then says as much of it as of what ran. So a fixed piece of work is timed before each part.
"""

import time

import msgspec
import numpy as np

SECONDS = 2.0
PAUSE_S = 0.001


class Evenness(msgspec.Struct, frozen=True):
    """Times of the piece of work, each after a pause of a millisecond, in microseconds."""

    p50_us: float
    p99_us: float

    def __str__(self) -> str:
        return f"a fixed piece of work took {self.p50_us:,.0f} µs, p99 {self.p99_us:,.0f}"


def measure(seconds: float) -> Evenness:
    """Time the piece of work, some thousand look-ups, again and again for so long."""
    # Some megabytes of Python's objects, as a worker has them.
    numbers = dict.fromkeys(range(50_000), 1)
    keys = np.random.default_rng(1).integers(0, len(numbers), 4_000).tolist()
    took_us: list[float] = []
    end_s = time.monotonic() + seconds
    while not took_us or time.monotonic() < end_s:
        time.sleep(PAUSE_S)
        began_s = time.perf_counter()
        sum(map(numbers.__getitem__, keys))
        took_us.append((time.perf_counter() - began_s) * 1e6)
    p50, p99 = np.percentile(took_us, [50, 99]).round(1).tolist()
    return Evenness(p50, p99)
