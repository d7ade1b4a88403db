"""What the demo measures is what it says."""

import numpy as np
import pytest

from stream_infer.demo.measures import Latencies, Recent, SquaredErrors


def test_percentiles_are_right_to_two_percent() -> None:
    random = np.random.default_rng(1)
    values = random.lognormal(2.0, 1.0, 20_000)
    latencies = Latencies()
    for value in values.tolist():
        latencies.add(value)
    for percent in (1, 50, 90, 99, 99.9):
        exact = float(np.percentile(values, percent))
        assert latencies.percentile_ms(percent) == pytest.approx(exact, rel=0.02)
    assert latencies.n == len(values)
    assert latencies.max_ms == values.max()


def test_no_latency_has_no_percentile() -> None:
    assert Latencies().percentile_ms(50) is None


def test_latencies_outside_the_buckets_are_counted_at_the_edge() -> None:
    latencies = Latencies()
    for value in (0.0, -1.0, 1e9):
        latencies.add(value)
    assert latencies.n == 3


def test_recent_percentiles_forget_what_was_before() -> None:
    latencies, recent = Latencies(), Recent(10.0)
    latencies.add(1_000.0)
    for second in range(0, 40, 5):
        recent.mark(float(second), second * 3, latencies.counts())
    latencies.add(5.0)
    assert recent.rate() == pytest.approx(3.0)
    assert latencies.percentile_ms(99, recent.since) == pytest.approx(5.0, rel=0.02)


def test_model_and_baselines_are_compared_on_the_same_flights() -> None:
    errors = SquaredErrors()
    assert errors.rmse()["model"] is None
    errors.add(score=10.0, actual=7.0, departure_delay=12.0, mean_gain=-5.0)
    errors.add(score=1.0, actual=5.0, departure_delay=6.0, mean_gain=-5.0)
    rmse = errors.rmse()
    assert rmse["model"] == pytest.approx(np.sqrt((9 + 16) / 2), abs=1e-4)
    assert rmse["schedule"] == pytest.approx(np.sqrt((49 + 25) / 2), abs=1e-4)
    assert rmse["departure_plus_gain"] == pytest.approx(np.sqrt((0 + 16) / 2), abs=1e-4)
    assert rmse["labelled"] == 2
