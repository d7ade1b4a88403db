"""One model that fails does not stop the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stream_infer.core.combiners import WeightedMean, weighted_mean
from stream_infer.core.errors import ModelError
from stream_infer.models.ensemble import Begun, ModelSet, Scorer
from stream_infer.models.loading import load_ensemble
from stream_infer.models.manifest import Ensemble
from stream_infer.models.repository import ModelRepository
from stream_infer.models.sessions import Rows, Scores
from tests.models import tiny

VECTORS = np.arange(6, dtype=np.float32).reshape(2, 3)


class First:
    """Scores a row by its first feature."""

    def run(self, vectors: Rows) -> Scores:
        return vectors[:, 0].astype(np.float64)


class Raises:
    def run(self, vectors: Rows) -> Scores:
        raise ValueError("no")


@dataclass
class Gives:
    scores: Scores

    def run(self, vectors: Rows) -> Scores:
        return self.scores


def test_scores_stand_in_the_order_of_the_models() -> None:
    result = ModelSet({"b": First(), "a": Gives(np.array([7.0, 8.0]))}).run(VECTORS)
    np.testing.assert_array_equal(result.scores, [[0, 7], [3, 8]])
    assert result.failures == {}


def test_a_model_that_raises_leaves_the_others_scores() -> None:
    models = ModelSet({"bad": Raises(), "good": First()})
    result = models.run(VECTORS)
    np.testing.assert_array_equal(result.scores, [[np.nan, 0], [np.nan, 3]])
    assert result.failures == {"bad": "model:bad:error"}
    assert result.details == {"bad": "ValueError: no"}


def test_only_finite_scores_count() -> None:
    result = ModelSet({"odd": Gives(np.array([np.inf, 2.0])), "good": First()}).run(VECTORS)
    np.testing.assert_array_equal(result.scores, [[np.nan, 0], [2, 3]])
    assert result.failures == {"odd": "model:odd:nan"}


@pytest.mark.parametrize("rows", [1, 100])
def test_no_row_of_a_model_that_raises_has_a_score(rows: int) -> None:
    models = ModelSet({"odd": Gives(np.full(rows, -np.inf)), "bad": Raises(), "good": First()})
    result = models.run(np.ones((rows, 3), np.float32))
    np.testing.assert_array_equal(result.scores, [[np.nan, np.nan, 1]] * rows)
    assert result.failures == {"odd": "model:odd:nan", "bad": "model:bad:error"}


def test_scores_of_a_wrong_shape_are_a_failure() -> None:
    result = ModelSet({"short": Gives(np.zeros(1))}).run(VECTORS)
    assert np.isnan(result.scores).all()
    assert result.failures == {"short": "model:short:error"}


def test_a_caller_that_gives_up_in_time_is_a_timeout() -> None:
    def give_up() -> Scores:
        raise TimeoutError

    def call(models: Mapping[str, Scorer], vectors: Rows) -> list[Begun]:
        return [
            give_up if name == "slow" else partial(model.run, vectors)
            for name, model in models.items()
        ]

    result = ModelSet({"slow": First(), "good": First()}, call).run(VECTORS)
    assert result.failures == {"slow": "model:slow:timeout"}
    np.testing.assert_array_equal(result.scores[:, 1], [0, 3])


@dataclass
class Declared:
    graph: WeightedMean
    name: str = "flights"


def test_an_ensemble_is_loaded_with_its_weights_and_versions(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    tiny.save(repository, tiny.linear(), "a")
    tiny.save(repository, tiny.linear((0, 0, 1)), "b")
    tiny.save(repository, tiny.linear((0, 1, 0)), "b")
    with pytest.raises(ModelError, match="ensemble of topology 'flights' is not in"):
        load_ensemble(tmp_path, Declared(weighted_mean(["b", "a"])), tiny.NAMES)
    weights = {"a": 0.25, "b": 0.75}
    repository.save_ensemble(
        "flights", Ensemble(weights=weights, versions={}, chosen="", created_at=tiny.CREATED)
    )
    loaded = load_ensemble(tmp_path, Declared(weighted_mean(["b", "a"])), tiny.NAMES)
    assert loaded.versions == {"b": "2", "a": "1"}
    assert loaded.combiner == weighted_mean({"b": 0.75, "a": 0.25})
    scores = loaded.models.run(VECTORS).scores
    np.testing.assert_array_equal(scores, [[1, 8], [4, 26]])
    declared = weighted_mean({"a": 1.0})
    assert load_ensemble(tmp_path, Declared(declared), tiny.NAMES).combiner is declared
    with pytest.raises(ModelError, match="'c' of topology 'flights' has no version"):
        load_ensemble(tmp_path, Declared(weighted_mean(["c"])), tiny.NAMES)
