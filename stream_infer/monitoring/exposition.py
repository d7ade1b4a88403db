"""The counts of `monitoring.metrics` in Prometheus' form, read at the moment of each scrape."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from stream_infer.monitoring.counters import LATENCY_BOUNDS_MS, TopologyCounters
from stream_infer.monitoring.metrics import Histogram, HttpMetrics
from stream_infer.monitoring.rekeyed import rekeyed_metrics

ENDS = {
    "prediction": "predictions",
    "update": "updates",
    "dead_letter": "dead_letters",
    "late": "late",
    "duplicate": "duplicates",
    "replayed": "replayed",
}
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class StreamCounts(Protocol):
    """What is shown of a worker's stream side (`stream.counters.StreamCounters` has it all)."""

    batches: int
    produced: int
    refused: int
    commits: int
    commit_failures: int
    retries: int
    fenced: int
    rebalances: int
    in_flight_batches: int
    waiting_records: int
    waiting_bytes: int
    last_poll_s: float | None
    oldest_in_flight_s: float | None
    publish_s: Histogram

    @property
    def lag_records(self) -> Mapping[tuple[str, int], int]: ...

    @property
    def merge_waits(self) -> Mapping[str, int]: ...


_STREAM_COUNTERS = (
    ("batches", "micro-batches taken; records consumed by batches is their mean size"),
    ("produced", "records acknowledged by Kafka"),
    ("refused", "records too large for their topic"),
    ("commits", "commits of source offsets"),
    ("commit_failures", "commits that failed"),
    ("retries", "attempts that failed and were made again"),
    ("fenced", "partitions taken over by another worker"),
    ("rebalances", "changes of the partitions assigned"),
)
_STREAM_GAUGES = (
    ("in_flight_batches", "micro-batches not acknowledged yet"),
    ("waiting_records", "records fetched and not taken yet"),
    ("waiting_bytes", "bytes fetched and not taken yet"),
)
_HTTP_COUNTERS = (
    ("scored", "http_scored_events", "events scored over HTTP"),
    ("score_batches", "http_score_batches", "batches of events scored over HTTP"),
    ("shed", "http_shed_requests", "requests refused because too many waited"),
    ("published", "http_published_events", "events published over HTTP"),
    ("lost", "live_lost_events", "live results not delivered to clients that are too slow"),
)


class StreamInferCollector(Collector):
    """Everything of one process: counts of each topology, and of its stream side, by its name."""

    def __init__(
        self,
        topologies: Mapping[str, TopologyCounters] | None = None,
        streams: Mapping[str, StreamCounts] | None = None,
        http: HttpMetrics | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topologies = topologies if topologies is not None else {}
        self.streams = streams if streams is not None else {}
        self.http = http
        self._now_s = now_s

    def describe(self) -> list[Metric]:
        """Name nothing at registration, so that registering collects nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now."""
        yield self._model_failures()
        yield from self._batches()
        if self.topologies:
            yield from self._events()
            yield from self._distributions()
            yield from self._errors()
            rekeyed = {name: counters.rekeyed for name, counters in self.topologies.items()}
            yield from rekeyed_metrics(rekeyed)
        if self.streams:
            yield from self._streams()
        if self.http is not None:
            yield from self._requests(self.http)

    def _events(self) -> Iterator[Metric]:
        consumed = _counter("consumed_events", "records consumed")
        ends = _counter("events", "events by how they ended", "end")
        degraded = _counter("degraded_predictions", "predictions lacking an input", "reason")
        discards = _counter("state_discards", "partitions folded anew after evictions")
        blind = _counter("predictions_without_state", "predictions made while Redis was away")
        away = _gauge("state_away", "1 while the worker predicts without state")
        for topology, counters in self.topologies.items():
            blind.add_metric([topology], counters.without_state)
            away.add_metric([topology], float(counters.state_away))
            consumed.add_metric([topology], counters.ends.consumed)
            for end, attribute in ENDS.items():
                ends.add_metric([topology, end], getattr(counters.ends, attribute))
            discards.add_metric([topology], counters.state_discards)
            for reason, n in list(counters.degraded.items()):
                degraded.add_metric([topology, reason], n)
        yield from (consumed, ends, degraded, discards, blind, away)

    def _model_failures(self) -> Metric:
        family = _counter("model_failures", "batches in which a model failed", "model", "reason")
        counts = {name: counters.model_failures for name, counters in self.topologies.items()}
        for found in (counts, {} if self.http is None else self.http.model_failures):
            for topology, failures in list(found.items()):
                for (model, reason), n in list(failures.items()):
                    family.add_metric([topology, model, reason], n)
        return family

    def _distributions(self) -> Iterator[Metric]:
        latency = _histogram("prediction_latency_seconds", "from broker timestamp to prediction")
        age = _histogram("feature_age_seconds", "oldest batch feature in use, at the event's time")
        for topology, counters in self.topologies.items():
            counts = counters.latency_counts.tolist()
            bounds = [milliseconds / 1e3 for milliseconds in LATENCY_BOUNDS_MS]
            _add(latency, [topology], bounds, counts, counters.latency_sum_ms / 1e3)
            ages = counters.feature_age_s
            _add(age, [topology], ages.bounds, list(ages.counts), ages.total)
        yield from (latency, age)

    def _batches(self) -> Iterator[Metric]:
        """Sizes of micro-batches, and how long their stages took."""
        sizes = _histogram("batch_records", "records of a micro-batch")
        stages = _histogram("stage_seconds", "time of a micro-batch in one stage", "stage")
        for topology, counters in self.topologies.items():
            _show(sizes, [topology], counters.batch_records)
            for stage, histogram in counters.stages_s.items():
                _show(stages, [topology, stage], histogram)
        for topology, counts in self.streams.items():
            _show(stages, [topology, "publish"], counts.publish_s)
        if self.http is not None:
            for topology, by_stage in list(self.http.stages_s.items()):
                for stage, histogram in list(by_stage.items()):
                    _show(stages, [topology, stage], histogram)
            for topology, histogram in list(self.http.batch_events.items()):
                _show(sizes, [topology], histogram)
        yield from (sizes, stages)

    def _errors(self) -> Iterator[Metric]:
        count = _counter("outcomes", "predictions joined with their label")
        mean = _gauge("label_error_mean", "mean of score minus label, in the label's unit")
        mae = _gauge("label_error_mae", "mean absolute error, in the label's unit")
        rmse = _gauge("label_error_rmse", "root mean squared error, in the label's unit")
        for topology, counters in self.topologies.items():
            n = counters.outcomes
            count.add_metric([topology], n)
            if n:
                mean.add_metric([topology], counters.error_sum / n)
                mae.add_metric([topology], counters.error_absolute_sum / n)
                rmse.add_metric([topology], (counters.error_square_sum / n) ** 0.5)
        yield from (count, mean, mae, rmse)

    def _streams(self) -> Iterator[Metric]:
        for name, text in _STREAM_COUNTERS:
            counter = _counter(f"stream_{name}", text)
            for topology, counts in self.streams.items():
                counter.add_metric([topology], getattr(counts, name))
            yield counter
        for name, text in _STREAM_GAUGES:
            gauge = _gauge(f"stream_{name}", text)
            for topology, counts in self.streams.items():
                gauge.add_metric([topology], getattr(counts, name))
            yield gauge
        waits = _counter("merge_waits", "waits for a topic with more that ran out", "topic")
        lag = _gauge("stream_lag_records", "end of the log minus next offset", "topic", "partition")
        poll = _gauge("stream_last_poll_age_seconds", "time since the consumer last asked")
        oldest = _gauge("stream_oldest_in_flight_seconds", "age of the oldest unacknowledged batch")
        for topology, counts in self.streams.items():
            for (topic, partition), records in list(counts.lag_records.items()):
                lag.add_metric([topology, topic, str(partition)], records)
            for topic, n in list(counts.merge_waits.items()):
                waits.add_metric([topology, topic], n)
            if counts.last_poll_s is not None:
                poll.add_metric([topology], self._now_s() - counts.last_poll_s)
            since_s = counts.oldest_in_flight_s
            oldest.add_metric([topology], 0.0 if since_s is None else self._now_s() - since_s)
        yield from (waits, lag, poll, oldest)

    def _requests(self, http: HttpMetrics) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "stream_infer_http_requests",
            "HTTP requests answered",
            labels=["method", "route", "status"],
        )
        for (method, route, status), n in list(http.requests.items()):
            requests.add_metric([method, route, str(status)], n)
        durations = HistogramMetricFamily(
            "stream_infer_http_request_seconds", "time to answer a request", labels=["route"]
        )
        for route, histogram in list(http.duration_s.items()):
            _add(durations, [route], histogram.bounds, list(histogram.counts), histogram.total)
        yield from (requests, durations)
        for name, metric, text in _HTTP_COUNTERS:
            yield CounterMetricFamily(f"stream_infer_{metric}", text, value=getattr(http, name))
        yield GaugeMetricFamily("stream_infer_live_clients", "live followers", value=http.clients)


def registry(collector: StreamInferCollector) -> CollectorRegistry:
    """Return a registry of this process: its counts, and the process' own."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    made.register(collector)
    return made


def render(made: CollectorRegistry) -> bytes:
    """Return the text of a `/metrics` page; its type is `CONTENT_TYPE`."""
    return generate_latest(made)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"stream_infer_{name}", text, labels=["topology", *labels])


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"stream_infer_{name}", text, labels=["topology", *labels])


def _histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"stream_infer_{name}", text, labels=["topology", *labels])


def _add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    bounds: Sequence[float],
    counts: Sequence[int],
    total: float,
) -> None:
    seen, buckets = 0, []
    for bound, n in zip((*bounds, float("inf")), counts, strict=True):
        seen += n
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(seen)))
    family.add_metric(labels, buckets, total)


def _show(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    _add(family, labels, histogram.bounds, list(histogram.counts), histogram.total)
