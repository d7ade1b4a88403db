"""Answers on small logs that can be checked by hand, and what holds for every kind of feature."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stream_infer.core import features as declare
from stream_infer.core import sums_table
from stream_infer.core.features import Feature, Kind
from stream_infer.core.fold import PIECE, fold, read
from stream_infer.core.shard import Shard
from stream_infer.core.windows import plan_view
from tests.laws.logs import (
    BASE_US,
    EVENT_TYPES,
    TYPE_FIELDS,
    Alarm,
    Columns,
    Reading,
    Run,
    make_log,
)
from tests.laws.oracle import Fact, answers

SECOND_US = 1_000_000
LATENESS_US = 30 * SECOND_US
ONE_OF_EACH: dict[Kind, Feature] = {
    Kind.COUNT: declare.count("1m"),
    Kind.SUM: declare.total("x", "1m"),
    Kind.MEAN: declare.mean("x", "1m"),
    Kind.MIN: declare.minimum("x", "1m"),
    Kind.MAX: declare.maximum("x", "1m"),
    Kind.STD: declare.std("x", "1m"),
    Kind.EWM_MEAN: declare.ewm_mean("x", "10s", "1m"),
    Kind.LAST: declare.last("x", "1m"),
    Kind.SINCE_LAST: declare.since_last("1m"),
    Kind.DISTINCT: declare.distinct("who", "1m"),
    Kind.RATIO: declare.ratio("part", "whole"),
}
PARTS = {"part": declare.total("x", "1m"), "whole": declare.count("1m")}


def features_of(kind: Kind) -> dict[str, Feature]:
    """Return a view with one feature of a kind, and what that needs."""
    return {**(PARTS if kind is Kind.RATIO else {}), "f": ONE_OF_EACH[kind]}


def run_of(features: dict[str, Feature], resolution: dict[str, float] | None = None) -> Run:
    """Return an empty run of a view."""
    return Run(plan_view("view", features, EVENT_TYPES, LATENESS_US, resolution or {}))


def reading(seconds: float, x: float, key: str | None = "a", who: str = "p") -> Fact:
    """Return a reading some seconds after the base."""
    time_us = BASE_US + round(seconds * SECOND_US)
    return Fact(time_us, "Reading", key, {"x": x, "y": None, "ok": None, "who": who})


def answer(feature: Feature, log: Sequence[Fact], resolution: dict[str, float] | None = None):
    """Return what the last event of a log sees."""
    return float(run_of({"f": feature}, resolution).fold(log)[-1, 0])


def test_every_kind_is_covered() -> None:
    assert set(ONE_OF_EACH) == set(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_nothing_seen_is_zero_for_counts_and_sums_and_missing_for_all_others(kind: Kind) -> None:
    value = run_of(features_of(kind)).fold([reading(0, 1.0)])[0, -1]
    if kind in (Kind.COUNT, Kind.SUM, Kind.DISTINCT):
        assert value == 0.0
    else:
        assert math.isnan(value)


@pytest.mark.parametrize("kind", Kind)
def test_an_event_beyond_the_window_is_not_seen(kind: Kind) -> None:
    run = run_of(features_of(kind))
    seen = run.fold([reading(0, 5.0), reading(59.5, 5.0)])[1, -1]
    beyond = run.fold([reading(59.5 + 61, 5.0)])[0, -1]
    nothing = run_of(features_of(kind)).fold([reading(0, 1.0)])[0, -1]
    assert seen != nothing
    assert beyond == nothing or (math.isnan(beyond) and math.isnan(nothing))


@pytest.mark.parametrize("kind", Kind)
def test_an_event_without_a_key_is_answered_as_from_an_empty_row_and_not_folded(kind: Kind) -> None:
    run = run_of(features_of(kind))
    found = run.fold([reading(0, 5.0, None), reading(1, 5.0, None), reading(2, 3.0, "b")])
    nothing = run_of(features_of(kind)).fold([reading(0, 1.0)])
    assert np.array_equal(found, np.repeat(nothing, 3, axis=0), equal_nan=True)
    assert set(run.state()) == {"b"}
    assert set(run.shard.payload(0)) == {0}


@pytest.mark.parametrize("kind", Kind)
def test_folding_marks_the_changed_rows_and_reading_changes_nothing(kind: Kind) -> None:
    run = run_of(features_of(kind))
    run.fold([reading(0, 5.0, "a"), reading(0, 5.0, "b")])
    assert sorted(key for key, _ in run.shard.take_dirty()) == ["a", "b"]
    before = run.state()
    run.read([reading(1, 5.0, "a")])
    assert run.state() == before
    assert run.shard.take_dirty() == []
    run.fold([reading(1, 5.0, "b")])
    assert [key for key, _ in run.shard.take_dirty()] == ["b"]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("late", [False, True])
def test_a_batch_larger_than_a_piece_answers_as_the_oracle_does(kind: Kind, late: bool) -> None:
    log = [
        reading(i / 40 - (20 * (i % 7 == 0) if late else 0) + 30, float(i % 11), "ab"[i % 2])
        for i in range(PIECE + 40)
    ]
    found = run_of(features_of(kind)).fold(log)
    for n in (0, 1, 700, PIECE - 1, PIECE, PIECE + 39):
        expected = answers(features_of(kind), TYPE_FIELDS, {}, log, n)["f"]
        assert expected.matches(float(found[n, -1])), (n, expected, found[n])


@pytest.mark.parametrize("kind", Kind)
def test_no_events_are_no_special_case(kind: Kind) -> None:
    run = run_of(features_of(kind))
    assert run.fold([]).shape == run.read([]).shape == (0, len(run.plan.features))


@pytest.mark.parametrize("kind", Kind)
def test_far_future_and_the_earliest_time_are_exact(kind: Kind) -> None:
    year_9999_s = 252_000_000_000
    log = [reading(0, 5.0), reading(1, 6.0)]
    log += [reading(year_9999_s, 7.0), reading(year_9999_s + 1, 8.0)]
    found = run_of(features_of(kind)).fold(log)
    for n in range(4):
        expected = answers(features_of(kind), TYPE_FIELDS, {}, log, n)["f"]
        assert expected.matches(float(found[n, -1])), (n, expected, found[n])


def test_a_window_covers_whole_tiles_and_never_more_than_its_length() -> None:
    feature = declare.count("1m", tile="10s")
    assert answer(feature, [reading(9.9, 1), reading(60, 1)]) == 0.0
    assert answer(feature, [reading(10, 1), reading(69.9, 1)]) == 1.0
    assert answer(feature, [reading(9.9, 1), reading(59.9, 1)]) == 1.0


def test_events_of_later_tiles_are_not_seen_by_an_event_out_of_order() -> None:
    log = [reading(5, 1.0), reading(20, 2.0), reading(7.5, 3.0), reading(7, 9.0)]
    assert answer(declare.total("x", "1m"), log) == 4.0
    assert answer(declare.maximum("x", "1m"), log) == 3.0
    assert answer(declare.last("x", "1m"), log) == 2.0
    assert answer(declare.since_last("1m"), log) == 0.0


def test_of_equal_times_the_later_offset_is_the_last() -> None:
    log = [reading(1, 1.0), reading(1, 2.0), reading(0, 3.0), reading(2, 4.0)]
    assert answer(declare.last("x"), log) == 2.0


def test_include_self_counts_the_event_itself() -> None:
    log = [reading(0, 2.0), reading(1, 4.0)]
    assert answer(declare.mean("x", "1m", include_self=True), log) == 3.0
    assert answer(declare.last("x", include_self=True), log) == 4.0
    assert answer(declare.distinct("who", "1m", include_self=True), log) == 1.0


def test_only_the_declared_event_types_count() -> None:
    alarm = Fact(BASE_US, "Alarm", "a", {"x": 10.0, "who": "p"})
    log = [alarm, reading(1, 1.0), reading(2, 0.0)]
    assert answer(declare.total("x", "1m", of=Alarm), log) == 10.0
    assert answer(declare.total("x", "1m", of=Reading), log) == 1.0
    assert answer(declare.total("x", "1m"), log) == 11.0


def test_a_half_life_halves_a_weight() -> None:
    log = [reading(0, 0.0), reading(10, 3.0), reading(25, 0.0)]
    assert answer(declare.ewm_mean("x", "10s"), log) == pytest.approx(2.0, rel=1e-12)


def test_sums_of_decimal_fractions_are_exact() -> None:
    log = [reading(i / 10, 0.1) for i in range(11)]
    assert answer(declare.total("x", "1m"), log) == 1.0
    assert answer(declare.mean("x", "1m"), log) == 0.1
    assert answer(declare.std("x", "1m"), log) == 0.0


@pytest.mark.parametrize(("step", "base"), [(1e-6, 1_099_511.0), (1.0, 2.0**40 - 100), (1e-3, 1e9)])
def test_a_standard_deviation_far_below_the_mean_is_exact(step: float, base: float) -> None:
    values = [base + step * k for k in (0, 1, 0, 3, 1, 1, 7)]
    log = [reading(i, value) for i, value in enumerate([*values, 0.0])]
    scaled = [Fraction(round(value / step)) for value in values]
    mean = sum(scaled) / len(scaled)
    variance = sum((value - mean) ** 2 for value in scaled) / len(scaled)
    found = answer(declare.std("x", "1m"), log, {"x": step})
    assert found == pytest.approx(math.sqrt(variance) * step, rel=1e-12)


@pytest.mark.parametrize(("precision", "many"), [(7, 1000), (10, 5000), (12, 20000)])
def test_distinct_counts_are_within_four_standard_errors(precision: int, many: int) -> None:
    log = [reading(0, 1.0, who=f"user {i % many}") for i in range(many + 50)]
    found = answer(declare.distinct("who", "1m", precision=precision, tile="1m"), log)
    assert found == pytest.approx(many, rel=4 * 1.04 / math.sqrt(2**precision))


def test_a_few_distinct_values_are_counted_exactly() -> None:
    log = [reading(i, 1.0, who=f"w{i % 5}") for i in range(30)]
    assert answer(declare.distinct("who", "1m", precision=10), log) == 5.0


def test_a_ratio_by_zero_is_missing() -> None:
    features = {
        "a": declare.count("1m", of=Alarm),
        "b": declare.count("1m"),
        "ab": declare.ratio("a", "b"),
        "ba": declare.ratio("b", "a"),
    }
    found = run_of(features).fold([reading(0, 1.0), reading(1, 1.0)])
    assert found[1].tolist()[:3] == [0.0, 1.0, 0.0]
    assert np.isnan(found[[0, 1], [2, 3]]).all()


def test_reads_far_behind_the_rows_are_answered_without_harm() -> None:
    run = run_of({name: ONE_OF_EACH[kind] for name, kind in zip("abcdef", Kind, strict=False)})
    run.fold([reading(1e6 + i, 1.0) for i in range(100)])
    run.fold([reading(10, 5.0)])
    late = run.read([reading(10.5, 1.0), reading(1e6 + 99.5, 1.0)])
    assert late[0, 0] == 0.0
    assert late[1, 0] == 60.0


def test_rows_may_come_in_any_order_of_keys() -> None:
    plan = plan_view("view", {"n": declare.count("1m")}, EVENT_TYPES, LATENESS_US, {})
    shard = Shard(plan, 10)
    shard.insert(["a", "b"], [None, None])
    (a, b), _ = shard.lookup(["a", "b"])
    rows = np.array([b, a, -1, b, a, b])
    batch = Columns([reading(0, 1.0)] * 6)
    assert fold(plan, shard, rows, batch)[:, 0].tolist() == [0, 0, 0, 1, 1, 2]
    assert read(plan, shard, rows, batch)[:, 0].tolist() == [3, 2, 0, 3, 2, 3]


@pytest.mark.parametrize("size", [1, 7, 200])
@pytest.mark.parametrize("seed", range(6))
def test_rows_filled_one_by_one_are_those_written_pane_by_pane(
    seed: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {
        "n": declare.count("1m"),
        "x": declare.std("x", "1h"),
        "t": declare.total("x", "5m"),
    }
    log = make_log(seed, 400, LATENESS_US, {})
    runs = []
    for panes_max in (sums_table.RUNS_MAX, 0):
        monkeypatch.setattr(sums_table, "RUNS_MAX", panes_max)
        run = run_of(features)
        for start in range(0, len(log), size):
            run.fold(log[start : start + size])
        runs.append((np.concatenate(run.answers).tobytes(), run.state()))
    assert runs[0] == runs[1]


def test_windows_of_one_tile_share_their_cells() -> None:
    hour = declare.mean("x", "1h")
    alone = plan_view("view", {"a": declare.std("x", "1h")}, EVENT_TYPES, LATENESS_US, {})
    shared = {"a": declare.std("x", "1h"), "b": hour, "c": declare.total("x", "1h")}
    shared["d"] = replace(hour, over_us=hour.over_us // 2, tile_us=hour.over_us // 60)
    plan = plan_view("view", shared, EVENT_TYPES, LATENESS_US, {})
    assert plan.row_bytes == alone.row_bytes
