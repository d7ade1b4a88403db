"""Histograms of plain numbers, and what an HTTP server counts; Prometheus reads them on demand."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0),
)


FEW = 32
"""Up to so many values are counted one by one: that is cheaper than whole arrays of them."""

BATCH_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


class Histogram:
    """Counts of values by upper bound; `counts` int64[B+1], the last beyond all bounds."""

    __slots__ = ("_edges", "bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(map(float, bounds))
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total = 0.0
        self._edges = np.array(bounds, np.float64)

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_many(self, values: npt.NDArray[np.float64]) -> None:
        """Count float64[n] values; NaN is left out."""
        if len(values) <= FEW:
            for value in values.tolist():
                if value == value:
                    self.observe(value)
            return
        values = values[~np.isnan(values)]
        if not len(values):
            return
        places = np.searchsorted(self._edges, values)
        for place, n in enumerate(np.bincount(places, minlength=len(self.counts)).tolist()):
            self.counts[place] += n
        self.total += float(values.sum())

    def quantile(self, q: float) -> float | None:
        """Estimate a quantile by linear interpolation within its bucket; None without values."""
        target, seen = q * self.count, 0
        if not self.count:
            return None
        low = 0.0
        for bound, n in zip(self.bounds, self.counts, strict=False):
            if n and seen + n >= target:
                return low + (bound - low) * (target - seen) / n
            seen, low = seen + n, bound
        return self.bounds[-1]


class Laps:
    """How long the stages of one piece of work took; `seconds` by stage."""

    __slots__ = ("_since_s", "seconds")

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since_s = time.perf_counter()

    def end(self, stage: str) -> None:
        """Note that a stage has ended, and the next one begins."""
        now_s = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now_s - self._since_s
        self._since_s = now_s


@dataclass(slots=True)
class HttpMetrics:
    """Counts of one HTTP server; requests by (method, route, status)."""

    requests: dict[tuple[str, str, int], int] = field(default_factory=dict)
    duration_s: dict[str, Histogram] = field(default_factory=dict)
    scored: int = 0
    score_batches: int = 0
    shed: int = 0
    published: int = 0
    clients: int = 0
    lost: int = 0
    model_failures: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    """By topology: batches in which a model failed, by model and reason."""
    batch_events: dict[str, Histogram] = field(default_factory=dict)
    """By topology: events scored together."""
    stages_s: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    """By topology: how long batches took, by stage: `decode`, `read`, `fold`, `models`."""

    def batch(self, topology: str, events: int, stages_s: Mapping[str, float]) -> None:
        """Count a batch of events, and how long its stages took."""
        sizes = self.batch_events.get(topology)
        if sizes is None:
            sizes = self.batch_events[topology] = Histogram(BATCH_BOUNDS)
        sizes.observe(events)
        by_stage = self.stages_s.get(topology)
        if by_stage is None:
            by_stage = self.stages_s[topology] = {}
        for stage, seconds in stages_s.items():
            histogram = by_stage.get(stage)
            if histogram is None:
                histogram = by_stage[stage] = Histogram()
            histogram.observe(seconds)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a path template, never a caller's path."""
        key = (method, route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        histogram = self.duration_s.get(route)
        if histogram is None:
            histogram = self.duration_s[route] = Histogram()
        histogram.observe(seconds)
