"""What a worker counts of one topology: plain numbers, cheap to add to, read by who shows them."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream_infer.monitoring.metrics import BATCH_BOUNDS, FEW, Histogram
from stream_infer.monitoring.rekeyed import RekeyedCounts

LATENCY_BOUNDS_MS = (1, 2, 3, 5, 8, 13, 20, 30, 50, 80, 130, 200, 500, 1_000, 5_000, 30_000)

STAGES = ("decode", "read", "fold", "models", "conclude", "store")
"""What a micro-batch goes through; `publish` is counted by the stream side."""

AGE_BOUNDS_S = (1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)


@dataclass(slots=True)
class Ends:
    """Where consumed events ended; each is exactly one of the kinds below `consumed`.

    `replayed` are events folded again after a restart, whose end was published before it.
    """

    consumed: int = 0
    predictions: int = 0
    updates: int = 0
    dead_letters: int = 0
    late: int = 0
    duplicates: int = 0
    replayed: int = 0

    @property
    def conserved(self) -> bool:
        """Whether every consumed event has exactly one end."""
        return self.consumed == (
            self.predictions
            + self.updates
            + self.dead_letters
            + self.late
            + self.duplicates
            + self.replayed
        )


@dataclass(slots=True)
class TopologyCounters:
    """Ends of events, latencies and errors of one topology, since the worker started."""

    ends: Ends = field(default_factory=Ends)
    latency_counts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(LATENCY_BOUNDS_MS) + 1, np.int64)
    )
    latency_sum_ms: float = 0.0
    degraded: Counter[str] = field(default_factory=Counter)
    model_failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Micro-batches in which a model failed, by model and by `timeout`, `error` or `nan`."""
    feature_age_s: Histogram = field(default_factory=lambda: Histogram(AGE_BOUNDS_S))
    without_state: int = 0
    """Published predictions that were made without state, while Redis was away."""
    state_away: bool = False
    """Whether the worker predicts without state now."""
    state_discards: int = 0
    """Partitions folded anew because Redis may have evicted their rows."""
    rekeyed: RekeyedCounts = field(default_factory=RekeyedCounts)
    batch_records: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS))
    stages_s: dict[str, Histogram] = field(
        default_factory=lambda: {stage: Histogram() for stage in STAGES}
    )
    """How long micro-batches took, by stage."""
    outcomes: int = 0
    error_sum: float = 0.0
    error_absolute_sum: float = 0.0
    error_square_sum: float = 0.0

    def batch(self, records: int, stages_s: Mapping[str, float]) -> None:
        """Count a micro-batch and how long its stages took."""
        self.batch_records.observe(records)
        for stage, seconds in stages_s.items():
            self.stages_s[stage].observe(seconds)

    def predicted(
        self,
        latency_ms: npt.NDArray[np.float64],
        age_s: npt.NDArray[np.float64],
        degraded: Iterable[tuple[str, ...]],
    ) -> None:
        """Count latencies, ages of batch features (NaN: none) and degraded inputs of n predictions
        that are published, each float64[n].
        """
        if len(latency_ms) <= FEW:
            for value_ms in latency_ms.tolist():
                self.latency_counts[bisect_left(LATENCY_BOUNDS_MS, value_ms)] += 1
                self.latency_sum_ms += value_ms
        else:
            places = np.searchsorted(LATENCY_BOUNDS_MS, latency_ms)
            self.latency_counts += np.bincount(places, minlength=len(self.latency_counts))
            self.latency_sum_ms += float(latency_ms.sum())
        self.feature_age_s.observe_many(age_s)
        for reasons in filter(None, degraded):
            self.degraded.update(reasons)

    def models_failed(self, failures: Mapping[str, str]) -> None:
        """Count the failures of one micro-batch, `model:NAME:REASON` by model."""
        count_failures(self.model_failures, failures)

    def outcome(self, error: float) -> None:
        """Count one joined label by its error, score − label."""
        self.outcomes += 1
        self.error_sum += error
        self.error_absolute_sum += abs(error)
        self.error_square_sum += error * error

    @property
    def rmse(self) -> float | None:
        """Root mean square error of the labels joined so far, None before the first."""
        return math.sqrt(self.error_square_sum / self.outcomes) if self.outcomes else None


def count_failures(counts: Counter[tuple[str, str]], failures: Mapping[str, str]) -> None:
    """Add failures of models, `model:NAME:REASON` by model, to counts by model and reason."""
    for model, reason in failures.items():
        counts[model, reason.rpartition(":")[2]] += 1
