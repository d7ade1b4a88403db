"""Laws of the join: missing and stale are NaN, judged at the event's time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.core.join import ABSENT, MISSING, PRESENT, STALE, join

VIEW_OF = np.array([0, 0, 1])


def joined(stamps: list[list[int]], times: list[int], ttl: list[int]):  # type: ignore[no-untyped-def]
    values = np.arange(3.0 * len(times)).reshape(-1, 3)
    return values, join(
        values,
        np.array(stamps, np.int64).reshape(-1, 2),
        np.array(times, np.int64),
        np.array(ttl, np.int64),
        VIEW_OF,
    )


def test_a_missing_view_is_nan_and_leaves_the_others() -> None:
    values, result = joined([[MISSING, 90]], [100], [50, 50])
    np.testing.assert_array_equal(result.values, [[np.nan, np.nan, values[0, 2]]])
    assert result.state.tolist() == [[ABSENT, PRESENT]]
    assert result.age_us.tolist() == [[-1, 10]]


def test_a_row_is_in_use_until_its_time_to_live_has_passed() -> None:
    _, result = joined([[50, 49]], [100], [50, 50])
    assert result.state.tolist() == [[PRESENT, STALE]]
    assert result.age_us.tolist() == [[50, 51]]
    assert np.isnan(result.values).tolist() == [[False, False, True]]


def test_a_row_from_after_the_event_has_age_nought() -> None:
    _, result = joined([[101, 10**15]], [100], [1, 1])
    assert result.state.tolist() == [[PRESENT, PRESENT]]
    assert result.age_us.tolist() == [[0, 0]]


def test_no_time_to_live_is_never_stale() -> None:
    _, result = joined([[0, 0]], [2**62], [0, 1])
    assert result.state.tolist() == [[PRESENT, STALE]]


def test_values_that_need_no_blanking_come_back_themselves() -> None:
    values, result = joined([[100, 100]], [100], [5, 5])
    assert result.values is values


def test_no_events_and_no_views_join() -> None:
    values, result = joined([], [], [1, 1])
    assert result.values is values
    none = np.empty((2, 0))
    empty = np.empty((2, 0), np.int64)
    nothing = np.empty(0, np.int64)
    assert join(none, empty, np.array([1, 2]), nothing, nothing).state.shape == (2, 0)


STAMPS = st.lists(
    st.tuples(
        st.just(MISSING) | st.integers(0, 200),
        st.just(MISSING) | st.integers(0, 200),
        st.integers(0, 200),
    ),
    max_size=8,
)


@given(STAMPS, st.integers(0, 100), st.integers(0, 100))
def test_the_join_equals_the_rule_told_row_by_row(
    rows: list[tuple[int, int, int]], ttl_a: int, ttl_b: int
) -> None:
    values, result = joined([[a, b] for a, b, _ in rows], [at for *_, at in rows], [ttl_a, ttl_b])
    for row, (*stamps, at) in enumerate(rows):
        for view, (stamp, ttl) in enumerate(zip(stamps, (ttl_a, ttl_b), strict=True)):
            if stamp == MISSING:
                expected = (ABSENT, -1)
            else:
                age = max(at - stamp, 0)
                expected = (STALE if 0 < ttl < age else PRESENT, age)
            assert (result.state[row, view], result.age_us[row, view]) == expected
            for column in np.flatnonzero(view == VIEW_OF):
                usable = expected[0] == PRESENT
                kept = result.values[row, column]
                assert kept == values[row, column] if usable else np.isnan(kept)
