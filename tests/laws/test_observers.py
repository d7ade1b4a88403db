"""Events of another stream observe a view: they see what it says, and leave no trace in it."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.logs import TYPE_FIELDS, Run, pieces
from tests.laws.oracle import Fact, answers
from tests.laws.test_replay import LATENESS, Case, bits, cases, few

SECOND_US = 1_000_000
SHIFTS_S = [0, 0, 0, 1, 30, 4_000, -1, -30, -95, -4_000, 10**8, -(10**8)]


@st.composite
def observed(draw: st.DrawFn, size_max: int = 60) -> tuple[Case, int]:
    """Return a case in which some facts are of another stream, at times of their own."""
    features, plan, resolution, log = draw(cases(size_max=size_max))
    lateness_us = plan.horizon_us - max(feature.over_us for feature in features.values())
    assert lateness_us in LATENESS
    share = draw(st.sampled_from([0.1, 0.5, 0.9]))
    random = draw(st.randoms(use_true_random=False))
    mixed = [
        replace(
            fact,
            type_name="Passerby",
            time_us=max(0, fact.time_us + random.choice(SHIFTS_S) * SECOND_US),
        )
        if random.random() < share
        else fact
        for fact in log
    ]
    return (features, plan, resolution, mixed), lateness_us


def is_own(fact: Fact) -> bool:
    return fact.type_name in TYPE_FIELDS


@few
@given(observed(size_max=40))
def test_observers_see_what_the_oracle_says(given_case: tuple[Case, int]) -> None:
    (features, plan, resolution, log), lateness_us = given_case
    result = Run(plan, lateness_us).fold(log)
    for n, fact in enumerate(log):
        before = [other for other in log[:n] if is_own(other)]
        if not is_own(fact):
            newest_us = max((o.time_us for o in before if o.key == fact.key), default=0)
            fact = replace(fact, time_us=max(fact.time_us, newest_us - lateness_us))
        seen = [*before, fact]
        expected = answers(features, TYPE_FIELDS, resolution, seen, len(before))
        for name, value in zip(plan.features, result[n].tolist(), strict=True):
            assert expected[name].matches(value), (n, name, expected[name], value)


@few
@given(observed(), st.lists(st.integers(1, 59), max_size=6))
def test_what_observers_see_does_not_depend_on_batch_cuts(
    given_case: tuple[Case, int], cuts: list[int]
) -> None:
    (_, plan, _, log), lateness_us = given_case
    whole, cut, single = (Run(plan, lateness_us) for _ in range(3))
    at_once = whole.fold(log)
    for piece in pieces(log, cuts):
        cut.fold(piece)
    for fact in log:
        single.fold([fact])
    assert bits(np.concatenate(cut.answers)) == bits(at_once)
    assert bits(np.concatenate(single.answers)) == bits(at_once)
    assert cut.state() == whole.state() == single.state()


@few
@given(observed())
def test_observers_change_nothing(given_case: tuple[Case, int]) -> None:
    (_, plan, _, log), lateness_us = given_case
    own = [fact for fact in log if is_own(fact)]
    alone, together = Run(plan, lateness_us), Run(plan, lateness_us)
    seen = together.fold(log)
    if own:
        assert bits(alone.fold(own)) == bits(seen[[is_own(fact) for fact in log]])
    assert dict(alone.shard.take_dirty()) == dict(together.shard.take_dirty())


@few
@given(observed())
def test_reading_rows_answers_an_observer_as_the_log_does(given_case: tuple[Case, int]) -> None:
    (_, plan, _, log), lateness_us = given_case
    run = Run(plan, lateness_us)
    for fact in log:
        if not is_own(fact):
            seen = run.read([fact])
            assert bits(seen) == bits(run.fold([fact]))
        else:
            run.fold([fact])
