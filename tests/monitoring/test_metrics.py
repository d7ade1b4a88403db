"""Metrics and a worker's own pages."""

import json
from collections import Counter
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.monitoring.exposition import StreamInferCollector, registry, render
from stream_infer.monitoring.metrics import Histogram, HttpMetrics
from stream_infer.monitoring.watchdog import Heartbeat
from stream_infer.monitoring.worker import worker_pages
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.processing import TP

values = st.lists(st.floats(0, 100, allow_nan=False), max_size=50)


@given(values)
def test_observing_one_by_one_and_all_at_once_are_the_same(observed: list[float]) -> None:
    one, many = Histogram(), Histogram()
    for value in observed:
        one.observe(value)
    many.observe_many(np.array([*observed, np.nan]))
    assert one.counts == many.counts
    assert one.count == len(observed)
    assert one.total == pytest.approx(many.total)


def test_few_values_are_counted_as_many_are() -> None:
    values = np.array([0.2, 1.0, 1.5, np.nan, 7e6, 31_000.0] * 10)
    together, few = TopologyCounters(), TopologyCounters()
    known = np.nan_to_num(values)
    together.predicted(known, values, [])
    for start in range(0, len(values), 7):
        few.predicted(known[start : start + 7], values[start : start + 7], [])
    assert together.latency_counts.tolist() == few.latency_counts.tolist()
    assert together.latency_sum_ms == pytest.approx(few.latency_sum_ms)
    assert together.feature_age_s.counts == few.feature_age_s.counts
    assert together.feature_age_s.total == pytest.approx(few.feature_age_s.total)


@given(values.filter(bool), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(observed: list[float], q: float) -> None:
    histogram = Histogram()
    histogram.observe_many(np.array(observed))
    true = float(np.quantile(observed, q, method="inverted_cdf"))
    edges = (0.0, *histogram.bounds)
    place = int(np.searchsorted(histogram.bounds, true))
    estimate = histogram.quantile(q)
    assert estimate is not None
    assert edges[min(place, len(edges) - 2)] <= estimate <= edges[min(place + 1, len(edges) - 1)]


def scraped(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_exposed_numbers_are_the_counted_ones() -> None:
    counters, stream, http = TopologyCounters(), StreamCounters(), HttpMetrics()
    counters.ends.consumed, counters.ends.predictions, counters.ends.late = 5, 3, 2
    counters.latency_counts[2] = 3
    counters.latency_sum_ms = 9.0
    counters.feature_age_s.observe(30.0)
    counters.degraded["missing:plane"] = 1
    counters.models_failed({"trees": "model:trees:timeout"})
    counters.models_failed({"trees": "model:trees:timeout", "linear": "model:linear:nan"})
    http.model_failures["t"] = Counter({("net", "error"): 4})
    counters.batch(3, {"fold": 0.004, "models": 0.2})
    stream.publish_s.observe(0.3)
    http.batch("u", 1, {"read": 0.002})
    counters.outcome(3.0)
    counters.outcome(-5.0)
    stream.lag_records[TP("flights", 1)] = 7
    stream.last_poll_s, stream.oldest_in_flight_s = 90.0, 99.5
    http.request("GET", "/v1/topologies", 200, 0.002)
    collector = StreamInferCollector({"t": counters}, {"t": stream}, http, now_s=lambda: 100.0)
    found = scraped(render(registry(collector)).decode())
    of_t = ("topology", "t")
    assert found["stream_infer_consumed_events_total", (of_t,)] == 5
    assert found["stream_infer_events_total", (("end", "prediction"), of_t)] == 3
    assert found["stream_infer_events_total", (("end", "late"), of_t)] == 2
    assert found["stream_infer_prediction_latency_seconds_bucket", (("le", "0.002"), of_t)] == 0
    assert found["stream_infer_prediction_latency_seconds_bucket", (("le", "0.003"), of_t)] == 3
    assert found["stream_infer_prediction_latency_seconds_sum", (of_t,)] == pytest.approx(0.009)
    for stage, topology, seconds in (
        ("fold", "t", 0.004), ("models", "t", 0.2), ("publish", "t", 0.3), ("read", "u", 0.002)
    ):  # fmt: skip
        place = (("stage", stage), ("topology", topology))
        assert found["stream_infer_stage_seconds_sum", place] == pytest.approx(seconds)
        assert found["stream_infer_stage_seconds_count", place] == 1
    assert found["stream_infer_batch_records_sum", (of_t,)] == 3
    assert found["stream_infer_batch_records_sum", (("topology", "u"),)] == 1
    failed = "stream_infer_model_failures_total"
    for model, reason, n in (("trees", "timeout", 2), ("linear", "nan", 1), ("net", "error", 4)):
        assert found[failed, (("model", model), ("reason", reason), of_t)] == n
    ages = "stream_infer_feature_age_seconds_bucket"
    assert [found[ages, (("le", bound), of_t)] for bound in ("10.0", "60.0")] == [0, 1]
    assert found["stream_infer_label_error_mae", (of_t,)] == 4
    assert found["stream_infer_label_error_rmse", (of_t,)] == pytest.approx(17**0.5)
    lag = (("partition", "1"), ("topic", "flights"), of_t)
    assert found["stream_infer_stream_lag_records", lag] == 7
    assert found["stream_infer_stream_last_poll_age_seconds", (of_t,)] == 10
    assert found["stream_infer_stream_oldest_in_flight_seconds", (of_t,)] == 0.5
    request = (("method", "GET"), ("route", "/v1/topologies"), ("status", "200"))
    assert found["stream_infer_http_requests_total", request] == 1


def fetched(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_workers_pages_follow_its_state() -> None:
    stream = StreamCounters()
    now_s = 100.0
    heartbeat = Heartbeat(60.0, lambda: now_s)
    heartbeat.beat()
    away: dict[str, str | None] = {"kafka": None}
    counted = {"t": TopologyCounters()}
    with worker_pages(counted, {"t": stream}, heartbeat, lambda: away, port=0) as pages:
        base = f"http://127.0.0.1:{pages.port}"
        status, text = fetched(f"{base}/health/ready")
        assert status == 503
        assert json.loads(text)["checks"] == {
            "t": "partitions are not assigned yet",
            "kafka": None,
        }
        stream.ready = True
        assert fetched(f"{base}/health/ready")[0] == 200
        away["kafka"] = "cannot be reached"
        status, text = fetched(f"{base}/health/ready")
        assert (status, json.loads(text)["checks"]) == (503, {"t": None, "kafka": away["kafka"]})
        away["kafka"] = None
        stream.retrying["storing state"] = "redis: refused"
        status, text = fetched(f"{base}/health/ready")
        assert (status, json.loads(text)["checks"]["t"]) == (503, "storing state: redis: refused")
        assert fetched(f"{base}/health/live")[0] == 200
        assert "stream_infer_consumed_events_total" in fetched(f"{base}/metrics")[1]
        assert fetched(f"{base}/secret")[0] == 404
        now_s = 161.0
        status, text = fetched(f"{base}/health/live")
        assert status == 503
        assert json.loads(text)["checks"] == {"loop": "the event loop has not moved for 61 s"}
