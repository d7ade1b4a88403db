"""What a worker counts of rekeyed views: what it sends on, what it folds, how old the rows are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from stream_infer.core.rekeyed_state import Counted
from stream_infer.core.vectors import RekeyedValues
from stream_infer.monitoring.metrics import Histogram

AGE_BOUNDS_S = (0.1, 1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)
_ENDS = ("folded", "duplicates", "late", "rejected")


@dataclass(slots=True)
class RekeyedCounts:
    """Plain numbers of one topology since the worker started.

    `forwarded` are the records that the first stage sent on. Of those `consumed` by the second,
    each was folded, a duplicate (published again after a restart), late, or rejected (no event).
    `ages_s` are, by view, the ages of the rows that predictions found (see `RekeyedValues.age_s`).
    """

    forwarded: int = 0
    consumed: int = 0
    folded: int = 0
    duplicates: int = 0
    late: int = 0
    rejected: int = 0
    discards: int = 0
    """Partitions of the second stage folded anew because Redis may have evicted their rows."""
    ages_s: dict[str, Histogram] = field(default_factory=dict)

    def add(self, consumed: int, counted: Counted, rejected: int) -> None:
        """Count one partition's share of a micro-batch."""
        self.consumed += consumed
        self.folded += counted.folded
        self.duplicates += counted.duplicates
        self.late += counted.late
        self.rejected += rejected

    def read(self, found: Mapping[str, RekeyedValues]) -> None:
        """Count the ages of the rows that scored events found."""
        for view, values in found.items():
            if view not in self.ages_s:
                self.ages_s[view] = Histogram(AGE_BOUNDS_S)
            self.ages_s[view].observe_many(np.asarray(values.age_s))

    @property
    def conserved(self) -> bool:
        """Whether every consumed record has exactly one end."""
        return self.consumed == self.folded + self.duplicates + self.late + self.rejected


def rekeyed_metrics(counts: Mapping[str, RekeyedCounts]) -> Iterator[Metric]:
    """Yield the metrics of the topologies that have rekeyed views, by name."""
    sent = _counter("forwarded_events", "events sent on by another key")
    consumed = _counter("consumed_events", "events consumed by the second stage")
    ends = _counter("events", "events of the second stage by how they ended", "end")
    discards = _counter("state_discards", "partitions of the second stage folded anew")
    ages = HistogramMetricFamily(
        "stream_infer_rekeyed_age_seconds",
        "from a row's newest event to the event that reads it, by event time",
        labels=["topology", "view"],
    )
    for topology, one in counts.items():
        sent.add_metric([topology], one.forwarded)
        consumed.add_metric([topology], one.consumed)
        discards.add_metric([topology], one.discards)
        for end in _ENDS:
            ends.add_metric([topology, end.removesuffix("s")], getattr(one, end))
        for view, histogram in list(one.ages_s.items()):
            seen, buckets = 0, []
            for bound, n in zip(
                (*map(repr, histogram.bounds), "+Inf"), histogram.counts, strict=True
            ):
                seen += n
                buckets.append((bound, float(seen)))
            ages.add_metric([topology, view], buckets, histogram.total)
    yield from (sent, consumed, ends, discards, ages)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"stream_infer_rekeyed_{name}", text, labels=["topology", *labels])
