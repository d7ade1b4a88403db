"""What the demo measures of what comes back: latencies, errors, how far the worker is behind."""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

LOWEST_MS, HIGHEST_MS, STEP = 0.01, 100_000.0, 1.02
_BUCKETS = math.ceil(math.log(HIGHEST_MS / LOWEST_MS) / math.log(STEP)) + 1


class Latencies:
    """Latencies in buckets 2 % wide, from 0.01 ms to 100 s: a percentile is right to 1 %."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(_BUCKETS, np.int64)
        self.max_ms = 0.0

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        bounded = min(max(latency_ms, LOWEST_MS), HIGHEST_MS)
        self._counts[int(math.log(bounded / LOWEST_MS) / math.log(STEP))] += 1
        self.max_ms = max(self.max_ms, latency_ms)

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the counts so far, to take the difference of later."""
        return self._counts.copy()

    def percentile_ms(
        self, percent: float, since: npt.NDArray[np.int64] | None = None
    ) -> float | None:
        """Return a percentile of all latencies, or of those after `counts()` returned `since`."""
        seen = np.cumsum(self._counts if since is None else self._counts - since)
        if seen[-1] == 0:
            return None
        place = int(np.searchsorted(seen, percent / 100 * int(seen[-1])))
        return float(LOWEST_MS * STEP ** (place + 0.5))

    @property
    def n(self) -> int:
        """How many were counted."""
        return int(self._counts.sum())


@dataclass(slots=True)
class SquaredErrors:
    """Squared errors of the model and of its baselines, over the same flights."""

    labelled: int = 0
    model: float = 0.0
    schedule: float = 0.0
    departure_plus_gain: float = 0.0

    def add(self, score: float, actual: float, departure_delay: float, mean_gain: float) -> None:
        """Count one flight: all in minutes."""
        self.labelled += 1
        self.model += (score - actual) ** 2
        self.schedule += actual**2
        self.departure_plus_gain += (departure_delay + mean_gain - actual) ** 2

    def rmse(self) -> dict[str, float | int | None]:
        """Return the root mean square errors in minutes, None before the first flight."""

        def root(total: float) -> float | None:
            return round(math.sqrt(total / self.labelled), 4) if self.labelled else None

        return {
            "model": root(self.model),
            "schedule": root(self.schedule),
            "departure_plus_gain": root(self.departure_plus_gain),
            "labelled": self.labelled,
        }


@dataclass(slots=True)
class Recent:
    """Counts of the last seconds, for what is shown as of now."""

    span_s: float
    _marks: deque[tuple[float, int, npt.NDArray[np.int64]]] = field(default_factory=deque)

    def mark(self, now_s: float, count: int, latencies: npt.NDArray[np.int64]) -> None:
        """Remember where counts stand now; older marks than needed are forgotten."""
        self._marks.append((now_s, count, latencies))
        while len(self._marks) > 2 and self._marks[1][0] <= now_s - self.span_s:
            self._marks.popleft()

    def rate(self) -> float:
        """Return the count's growth a second over the span."""
        (first_s, first, _), (last_s, last, _) = self._marks[0], self._marks[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0

    @property
    def since(self) -> npt.NDArray[np.int64]:
        """The latency counts at the beginning of the span."""
        return self._marks[0][2]
