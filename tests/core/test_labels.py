"""A label joins its prediction by key once: after it, before it, or never beyond the horizon."""

import numpy as np
import pytest

from stream_infer.core.labels import ID_ROW, LABEL_ROW, first_seen, join_label, join_prediction
from stream_infer.core.shard import Shard

ROW = 1
T0 = 1_380_628_800_000_000
WITHIN = 1_000_000


@pytest.fixture
def shard() -> Shard:
    shard = Shard(LABEL_ROW, 10)
    shard.insert(["k"], [None])
    assert shard.lookup(["k"])[0].tolist() == [ROW]
    return shard


def test_a_label_after_its_prediction_is_joined_once(shard: Shard) -> None:
    assert join_prediction(shard, ROW, 0, 7, T0, 1.5, WITHIN) is None
    joined = join_label(shard, ROW, 3, T0 + WITHIN, 2.0, WITHIN)
    assert joined is not None
    assert (joined.event, joined.offset, joined.score, joined.label) == (3, 7, 1.5, 2.0)
    assert join_label(shard, ROW, 4, T0 + WITHIN, 9.0, WITHIN) is None
    assert join_prediction(shard, ROW, 5, 8, T0 + WITHIN, 9.0, WITHIN) is None


def test_a_label_before_its_prediction_is_joined_once(shard: Shard) -> None:
    assert join_label(shard, ROW, 0, T0, 2.0, WITHIN) is None
    assert join_label(shard, ROW, 1, T0, 3.0, WITHIN) is None
    joined = join_prediction(shard, ROW, 2, 9, T0 + 5, 1.5, WITHIN)
    assert joined is not None
    assert (joined.offset, joined.score, joined.label) == (9, 1.5, 2.0)
    assert join_label(shard, ROW, 3, T0 + 6, 4.0, WITHIN) is None


def test_beyond_the_horizon_nothing_is_joined(shard: Shard) -> None:
    join_prediction(shard, ROW, 0, 7, T0, 1.5, WITHIN)
    assert join_label(shard, ROW, 1, T0 + WITHIN + 1, 2.0, WITHIN) is None
    joined = join_prediction(shard, ROW, 2, 8, T0 + WITHIN + 2, 2.5, WITHIN)
    assert joined is not None
    assert joined.offset == 8


def test_a_null_label_is_no_label(shard: Shard) -> None:
    join_prediction(shard, ROW, 0, 7, T0, 1.5, WITHIN)
    assert join_label(shard, ROW, 1, T0, float("nan"), WITHIN) is None
    assert join_label(shard, ROW, 2, T0, 1.0, WITHIN) is not None


def test_an_id_is_accepted_once_within_the_horizon() -> None:
    shard = Shard(ID_ROW, 10)
    shard.insert(["a", "b"], [None, None])
    a, b = shard.lookup(["a", "b"])[0].tolist()
    rows = np.array([a, b, a, a])
    times = np.array([T0, T0, T0 + 1, T0 + WITHIN + 1])
    assert first_seen(shard, rows, times, WITHIN).tolist() == [True, True, False, True]
    again = first_seen(shard, np.array([a, b]), np.array([T0 + WITHIN + 2, T0 + 2]), WITHIN)
    assert again.tolist() == [False, False]
