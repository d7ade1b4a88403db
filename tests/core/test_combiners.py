"""Laws of the weighted mean."""

import numpy as np
import pytest

from stream_infer.core.arrays import FEW
from stream_infer.core.combiners import WeightedMean, all_finite, weighted_mean
from stream_infer.core.errors import DeclarationError

THREE = weighted_mean({"trees": 0.6, "mlp": 0.3, "linear": 0.1})


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(2_000, 3)) * 50
    scores[rng.random(scores.shape) < 0.1] = np.nan
    whole = THREE.combine(scores)
    for size in (1, 2, 3, 7, 64, 999):
        parts = [THREE.combine(scores[at : at + size]) for at in range(0, len(scores), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert THREE.combine(np.asfortranarray(scores)).tobytes() == whole.tobytes()


def test_few_rows_have_the_bits_that_they_have_among_many() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(3 * FEW, 3)) * 10.0 ** rng.integers(-300, 300, (3 * FEW, 1))
    whole = THREE.combine(scores)
    for size in range(1, FEW):
        parts = [THREE.combine(scores[at : at + size]) for at in range(0, len(scores), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("rows", [1, FEW // 3, FEW // 3 + 1, 100])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_one_score_that_is_not_finite_is_found(rows: int, odd: float) -> None:
    scores = np.zeros((rows, 3))
    assert all_finite(scores)
    scores[-1, 1] = odd
    assert not all_finite(scores)


def test_missing_scores_are_left_out_and_weights_renormalised() -> None:
    scores = np.array([[1.0, 2.0, 3.0], [np.nan, 2.0, 6.0], [np.inf, np.nan, 5.0], [np.nan] * 3])
    combined = THREE.combine(scores)
    expected = [0.6 + 0.6 + 0.3, (0.3 * 2 + 0.1 * 6) / 0.4, 5.0, np.nan]
    np.testing.assert_allclose(combined, expected, rtol=1e-14)


def test_models_without_weight_do_not_stand_in_for_those_with() -> None:
    mean = weighted_mean({"trees": 1, "linear": 0})
    np.testing.assert_array_equal(mean.combine(np.array([[np.nan, 3.0], [2.0, 3.0]])), [np.nan, 2])


def test_weights_may_come_with_the_trained_ensemble() -> None:
    declared = weighted_mean(["trees", "linear"])
    assert declared == WeightedMean(("trees", "linear"), None)
    with pytest.raises(DeclarationError, match="has no weights yet"):
        declared.combine(np.zeros((1, 2)))
    mean = declared.with_weights({"linear": 1.0, "mlp": 5.0, "trees": 3.0})
    assert mean.models == ("trees", "linear")
    assert mean.weights == (3.0, 1.0)
    with pytest.raises(
        DeclarationError, match="no weight for model 'trees'; did you mean 'treees'"
    ):
        declared.with_weights({"treees": 1.0, "linear": 1.0})


def test_no_rows_give_no_rows() -> None:
    assert THREE.combine(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"a": -0.1, "b": 1}, "weight of 'a' must be a number of at least 0, not -0.1"),
        ({"a": float("nan")}, "weight of 'a' must be a number of at least 0, not nan"),
        ({"a": float("inf")}, "weight of 'a' must be a number of at least 0, not inf"),
        ({"a": 0.0, "b": 0}, "all weights are 0"),
        ({}, "at least one model"),
        ([], "at least one model"),
        (["a", "b", "a"], "model 'a' is there twice"),
        ("trees", "takes a list or mapping of models"),
    ],
)
def test_weights_that_are_no_mean_are_refused(models: object, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        weighted_mean(models)  # type: ignore[arg-type]
