"""A short run of each benchmark: every figure is there, with its unit, and can be true."""

import math
from collections.abc import Mapping, Sequence

import pytest

from benchmarks import (
    core,
    exactly_once,
    feast_reads,
    freshness,
    growth,
    http,
    latency,
    scale,
    start,
)
from benchmarks.figures import Figure
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.processes import BenchmarkError
from stream_infer.settings import FIELDS

SHORT = Options(
    keys=(300,),
    draws=("uniform",),
    events=20_000,
    runs=1,
    rates=(200,),
    seconds=0.8,
    warm_up_s=0.4,
    broker_warm_up_s=0.5,
    curve_events=20,
    curve_points_max=1,
    entities=(1, 10),
    stored_keys=6_000,
    read_seconds=0.02,
)
STAGES = {"decode", "lookup", "fold", "assemble", "models", "results", "all"}


def by_name(figures: Sequence[Figure], **case: object) -> Mapping[str, Figure]:
    """The figures of one case; all of them are numbers of some unit, and never below 0."""
    for item in figures:
        assert math.isfinite(item.value), item
        assert item.value >= 0, item
    return {item.name: item for item in figures if item.case.items() >= case.items()}


def test_core_gives_each_stage_of_the_step(place: Place) -> None:
    found = by_name(core.measure(place, SHORT), keys=300, batch=1)
    assert found.keys() == STAGES
    parts = sum(item.value for name, item in found.items() if name != "all")
    assert 0.3 * parts < found["all"].value < 3 * parts
    assert {item.unit for item in found.values()} == {"µs/event"}


def test_growth_has_a_point_of_each_curve(place: Place) -> None:
    figures = growth.measure(place, SHORT)
    curves = {item.case["curve"] for item in figures}
    assert curves == {"features", "models", "resolutions", "keys", "batch size"}
    assert by_name(figures, curve="models", x=1).keys() == STAGES | {"row"}
    assert by_name(figures, curve="features", x=4)["row"].value > 100


def test_reads_are_compared_with_feast(place: Place) -> None:
    figures = feast_reads.measure(place, SHORT)
    readers = {item.case["reader"] for item in figures}
    assert readers == {"ours", "get_online_features", "get_online_features_async"}
    ours = by_name(figures, reader="ours", entities=10)
    assert 0 < ours["each entity"].value < ours["p50"].value <= ours["p99"].value


def test_latency_counts_from_when_an_event_was_due(place: Place) -> None:
    found = by_name(latency.measure(place, SHORT))
    assert 0.1 < found["p50"].value <= found["p99"].value <= found["p99.9"].value < 60_000
    assert found["CPU"].value > 0
    assert found["p50, Kafka alone"].value <= found["p99, Kafka alone"].value < 60_000


def test_two_workers_are_compared_with_one(place: Place) -> None:
    figures = scale.measure(place, SHORT)
    one, two = by_name(figures, workers=1), by_name(figures, workers=2)
    ratio = two["throughput"].value / one["throughput"].value
    assert two["of one"].value == pytest.approx(ratio, rel=1e-3)


def test_http_has_saturation_a_steady_rate_and_overload(place: Place) -> None:
    figures = http.measure(place, SHORT)
    saturated = by_name(figures, load="saturation")
    assert saturated["accepted"].value > 10
    assert saturated["p50"].value <= saturated["p99"].value
    assert by_name(figures, load="1000/s")["CPU"].value > 0
    overload = by_name(figures, load="2 x saturation")
    assert overload["p99"].value > 0
    assert 0 < overload["in server, p50"].value <= overload["in server, p99"].value
    assert by_name(figures, load="load alone")["accepted"].value > saturated["accepted"].value


def test_freshness_sees_the_effect_of_probes(place: Place) -> None:
    found = by_name(freshness.measure(place, SHORT))
    assert found["probes"].value >= 1
    assert 0.5 < found["p50"].value <= found["p99"].value < 20_000


def test_start_finds_the_first_result(place: Place) -> None:
    figures = start.measure(place, SHORT)
    worker = by_name(figures, program="worker")
    assert 0 < worker["process to first result"].value < 60
    assert 0 < by_name(figures, program="stream-infer --help")["shown after"].value < 30


@pytest.mark.skipif("delivery" in FIELDS, reason="this version has the setting")
def test_exactly_once_says_what_it_lacks(place: Place) -> None:
    with pytest.raises(BenchmarkError, match="delivery"):
        exactly_once.measure(place, SHORT)
