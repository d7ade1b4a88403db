"""The replay law: features and rows depend on the log, not on how it is cut."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_infer.core.features import Feature
from stream_infer.core.windows import ViewPlan, plan_view
from tests.laws.logs import EVENT_TYPES, TYPE_FIELDS, Run, feature_sets, make_log, pieces
from tests.laws.oracle import Fact, answers

SECOND_US = 1_000_000
LATENESS = [0, 1, SECOND_US, 95 * SECOND_US, 600 * SECOND_US]
RESOLUTIONS = [{}, {"x": 1e-3, "y": 1.0}, {"x": 0.5}, {"x": 3e-7, "y": 100.0}]

Case = tuple[dict[str, Feature], ViewPlan, dict[str, float], list[Fact]]


@st.composite
def cases(draw: st.DrawFn, size_max: int = 60) -> Case:
    """Return features, their plan, the fields' resolution and a log."""
    features, lateness_us = draw(feature_sets()), draw(st.sampled_from(LATENESS))
    resolution = draw(st.sampled_from(RESOLUTIONS))
    plan = plan_view("view", features, EVENT_TYPES, lateness_us, resolution)
    seed, length = draw(st.integers(0, 2**32)), draw(st.integers(1, size_max))
    return features, plan, resolution, make_log(seed, length, lateness_us, resolution)


def bits(answers: np.ndarray) -> bytes:
    """Return what is compared bit for bit; any NaN is as good as another."""
    return np.where(np.isnan(answers), np.nan, answers).tobytes()


few = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@few
@given(cases(size_max=40))
def test_features_are_what_the_oracle_says_at_every_prefix(case: Case) -> None:
    features, plan, resolution, log = case
    result = Run(plan).fold(log)
    for n in range(len(log)):
        expected = answers(features, TYPE_FIELDS, resolution, log, n)
        for name, value in zip(plan.features, result[n].tolist(), strict=True):
            assert expected[name].matches(value), (n, name, expected[name], value)


@few
@given(cases(), st.lists(st.integers(1, 59), max_size=6))
def test_features_and_rows_do_not_depend_on_batch_cuts(case: Case, cuts: list[int]) -> None:
    _, plan, _, log = case
    whole, cut, single = Run(plan), Run(plan), Run(plan)
    at_once = whole.fold(log)
    for piece in pieces(log, cuts):
        cut.fold(piece)
    for fact in log:
        single.fold([fact])
    assert bits(np.concatenate(cut.answers)) == bits(at_once)
    assert bits(np.concatenate(single.answers)) == bits(at_once)
    assert cut.state() == whole.state() == single.state()


@few
@given(cases(), st.integers(0, 60))
def test_reading_before_an_event_answers_as_folding_it_does(case: Case, cut: int) -> None:
    _, plan, _, log = case
    run = Run(plan)
    run.fold(log[:cut])
    for fact in log[cut:]:
        before = run.state()
        seen = run.read([fact])
        assert {key: row for key, row in run.state().items() if key in before} == before
        assert bits(seen) == bits(run.fold([fact]))


@few
@given(cases(), st.lists(st.integers(1, 59), max_size=3))
def test_rows_that_were_stored_and_fetched_again_go_on_alike(case: Case, cuts: list[int]) -> None:
    _, plan, _, log = case
    whole, restarted = Run(plan), Run(plan)
    at_once = whole.fold(log)
    for piece in pieces(log, cuts):
        restarted.fold(piece)
        restarted.restart()
    assert bits(np.concatenate(restarted.answers)) == bits(at_once)
    assert restarted.state() == whole.state()


@few
@given(cases(), st.data())
def test_events_of_other_keys_change_nothing(case: Case, data: st.DataObject) -> None:
    _, plan, _, log = case
    key = data.draw(st.sampled_from(["a", "b", "c", None]))
    at_once = Run(plan).fold(log)
    mine = [i for i, fact in enumerate(log) if fact.key == key]
    if mine:
        assert bits(Run(plan).fold([log[i] for i in mine])) == bits(at_once[mine])


@few
@given(cases())
def test_a_row_that_idled_beyond_the_horizon_answers_as_an_empty_one(case: Case) -> None:
    _, plan, _, log = case
    kept, expired = Run(plan), Run(plan)
    kept.fold(log)
    newest_us = max(fact.time_us for fact in log)
    later = [
        Fact(fact.time_us + plan.horizon_us + newest_us - log[0].time_us, *_rest(fact))
        for fact in log
    ]
    earliest_us = min(fact.time_us for fact in later)
    shift_us = max(0, newest_us + plan.horizon_us - earliest_us)
    later = [Fact(fact.time_us + shift_us, *_rest(fact)) for fact in later]
    assert bits(kept.fold(later)) == bits(expired.fold(later))


def _rest(fact: Fact) -> tuple[str, str | None, dict[str, float | bool | str | None]]:
    return fact.type_name, fact.key, dict(fact.values)
