"""Exported models say what the fitted ones say; training stores an ensemble that can be loaded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from stream_infer.core.combiners import WeightedMean, weighted_mean
from stream_infer.core.errors import ModelError, StreamInferError
from stream_infer.models.loading import load_ensemble
from stream_infer.models.repository import MODEL_FILE, ModelArtifact, ModelRepository
from stream_infer.models.sessions import OnnxModel, is_steady
from stream_infer.training.estimators import BoostedTrees, Estimator, Fitted, Linear, Network
from stream_infer.training.export import Baseline, round_down
from stream_infer.training.fit import TrainingTable, train
from stream_infer.training.weights import rmse, simplex_weights
from tests.models import tiny

DAY_US = 86_400_000_000
NAMES = ("base", "a", "b", "c", "constant", "absent")
SMALL: dict[str, Estimator] = {
    "boosted_trees": BoostedTrees(trees=30, leaf_rows_min=10, trees_per_step=10),
    "mlp": Network(layers=(16, 8), epochs=6, batch_rows=64),
    "linear": Linear(),
}


def make_table(rows: int = 4_000, seed: int = 3) -> TrainingTable:
    """Return rows over 100 days whose label is `base` plus a function of a, b and c."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, len(NAMES))) * [30, 1, 5, 100, 0, 1] + [10, 0, 0, 2000, 7, 0]
    y = x[:, 0] + 3 * x[:, 1] + np.where(x[:, 2] > 1, 6, -2) + np.abs(x[:, 3] - 2000) / 40
    x[rng.random(rows) < 0.2, 1] = np.nan
    x[rng.random(rows) < 0.05, 0] = np.nan
    x[:, 5] = np.nan
    times_us = np.sort(rng.integers(0, 100 * DAY_US, rows)).astype(np.int64)
    return TrainingTable(NAMES, x.astype(np.float32), y + rng.normal(size=rows), times_us)


def open_exported(model: Fitted, base: Baseline | None) -> OnnxModel:
    content = model.export(base, NAMES)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    described = tiny.described(features=NAMES)
    return OnnxModel(ModelArtifact(described, content, Path(MODEL_FILE)), NAMES)


@pytest.mark.parametrize("name", SMALL)
def test_an_exported_model_equals_the_fitted_one(name: str) -> None:
    table = make_table()
    fitted = SMALL[name].fit(table.x, table.y, 0, lambda share: None)
    exported = open_exported(fitted, None)
    x = make_table(seed=9).x
    x[:50] = np.nan
    x[50:60, 3] = [1e30, -1e30, 1e-30, 0, -0.0, 1e9, -1e9, 3.4e38, np.inf, -np.inf]
    if name == "boosted_trees":
        x = at_thresholds(fitted, x)
    np.testing.assert_allclose(exported.run(x), fitted.predict(x), rtol=0, atol=2e-4)


def at_thresholds(fitted: Fitted, x: np.ndarray) -> np.ndarray:
    """Put the float32 numbers beside the trees' thresholds into the rows."""
    proto = onnx.load_from_string(fitted.export(None, NAMES))
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.graph.node[0].attribute}
    rows = []
    for mode, feature, value in zip(
        attributes["nodes_modes"],
        attributes["nodes_featureids"],
        attributes["nodes_values"],
        strict=True,
    ):
        for near in (np.nextafter(np.float32(value), s) for s in np.float32([-np.inf, np.inf])):
            if mode == b"BRANCH_LEQ":
                row = x[len(rows) % len(x)].copy()
                row[feature] = (near, value)[len(rows) % 2]
                rows.append(row)
    return np.concatenate([x, np.array(rows, np.float32)])


@pytest.mark.parametrize("name", SMALL)
def test_a_rows_score_does_not_depend_on_its_batch(name: str) -> None:
    table = make_table()
    model = open_exported(SMALL[name].fit(table.x, table.y, 0, lambda share: None), None)
    assert is_steady(model.run, table.x)
    whole = model.run(table.x)
    rng = np.random.default_rng(5)
    at = 0
    while at < len(whole):
        n = int(rng.integers(1, 2001) if rng.random() < 0.2 else rng.integers(1, 20))
        assert model.run(table.x[at : at + n]).tobytes() == whole[at : at + n].tobytes()
        at += n


def test_a_baseline_is_added_inside_the_graph_also_where_it_is_missing() -> None:
    table = make_table()
    fitted = Linear().fit(table.x, table.y, 0, lambda share: None)
    exported = open_exported(fitted, Baseline(column=0, missing=12.5))
    base = np.where(np.isnan(table.x[:, 0]), 12.5, table.x[:, 0])
    np.testing.assert_allclose(
        exported.run(table.x), base + fitted.predict(table.x), rtol=0, atol=1e-4
    )


def test_rounded_thresholds_ask_the_same_of_float32_inputs() -> None:
    rng = np.random.default_rng(2)
    thresholds = np.concatenate([rng.normal(size=5000) * 10.0 ** rng.integers(-30, 30, 5000), [0]])
    rounded = round_down(thresholds)
    assert rounded.dtype == np.float32
    for x in (rounded, np.nextafter(rounded, np.float32(np.inf)), -rounded):
        np.testing.assert_array_equal(x.astype(np.float64) <= thresholds, x <= rounded)
    largest = np.finfo(np.float32).max
    beyond = round_down(np.array([np.inf, 1e300, -1e300]))
    np.testing.assert_array_equal(beyond, np.array([np.inf, largest, -np.inf], np.float32))


class Declared:
    name: str = "flights"
    graph: WeightedMean = weighted_mean(list(SMALL))


def test_training_stores_an_ensemble_that_beats_its_members(tmp_path: Path) -> None:
    table, told = make_table(), []
    repository = ModelRepository(tmp_path)
    cutoff_us = 80 * DAY_US
    report = train(
        table,
        cutoff_us,
        repository,
        "flights",
        baseline="base",
        estimators=SMALL,
        created_at=tiny.CREATED,
        progress=lambda stage, share: told.append((stage, share)),
    )
    assert report.rows_fitted == int((table.times_us < cutoff_us).sum())
    assert report.rmse_ensemble <= min(report.rmse.values()) + 1e-3
    assert sum(report.weights.values()) == pytest.approx(1, abs=3e-4)
    ensemble = repository.ensemble("flights")
    assert ensemble.weights == report.weights
    assert ensemble.metrics["ensemble"] == {"rmse": report.rmse_ensemble}
    assert ensemble.validated_from is not None
    assert ensemble.validated_from.timestamp() == pytest.approx(62.2 * 86400, rel=0.01)
    manifest = repository.load("flights", "mlp").manifest
    assert manifest.features == NAMES
    assert manifest.created_at == tiny.CREATED
    assert manifest.metrics == {"validation_rmse": report.rmse["mlp"]}
    assert set(manifest.frameworks) == {"numpy", "onnx", "onnxruntime", "scikit-learn", "python"}
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert told[-1] == ("trained", 1.0)
    loaded = load_ensemble(tmp_path, Declared(), NAMES)
    test = table.take((table.times_us >= cutoff_us) & np.isfinite(table.x[:, :2]).all(axis=1))
    combined = loaded.combiner.combine(loaded.models.run(test.x).scores)
    assert rmse(combined, test.y) < 2.5


def test_the_same_table_and_seed_train_the_same_files(tmp_path: Path) -> None:
    table = make_table(1_000)
    for threads, folder in ((1, "one"), (2, "two")):
        trees = BoostedTrees(trees=20, leaf_rows_min=10, trees_per_step=10, threads=threads)
        kinds = SMALL | {"boosted_trees": trees}
        train(table, 10**15, ModelRepository(tmp_path / folder), "flights", estimators=kinds)
    for name in SMALL:
        one, two = (
            ModelRepository(tmp_path / folder).load("flights", name) for folder in ("one", "two")
        )
        assert one.manifest.sha256 == two.manifest.sha256


def test_a_file_that_differs_from_its_estimator_is_not_stored(tmp_path: Path) -> None:
    class Wrong(Linear):
        def fit(self, *args: object) -> Fitted:
            fitted = super().fit(*args)  # type: ignore[arg-type]
            return replace(fitted, predict=lambda x: fitted.predict(x) + 1)

    with pytest.raises(ModelError, match="'wrong': its ONNX file differs from the fitted"):
        train(make_table(), 10**15, ModelRepository(tmp_path), "f", estimators={"wrong": Wrong()})
    assert ModelRepository(tmp_path).models("f") == []


def test_tables_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    table, repository = make_table(), ModelRepository(tmp_path)
    with pytest.raises(StreamInferError, match="0 rows with a label before the cutoff"):
        train(table, 0, repository, "flights")
    with pytest.raises(StreamInferError, match="baseline 'bas' is no feature; did you mean 'base'"):
        train(table, 10**15, repository, "flights", baseline="bas")
    with pytest.raises(StreamInferError, match=r"x has shape \(4000, 6\).* expected \(4000, 5\)"):
        train(replace(table, names=NAMES[1:]), 10**15, repository, "flights")


def test_weights_are_the_best_of_all_on_the_simplex() -> None:
    rng = np.random.default_rng(7)
    labels = rng.normal(size=500) * 10
    for _ in range(20):
        scores = labels[:, None] + rng.normal(size=(500, 3)) * rng.uniform(0.5, 4, 3)
        scores += rng.normal(size=(500, 1)) * rng.uniform(0, 3)
        weights = simplex_weights(scores, labels)
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1)
        others = rng.dirichlet([0.5, 0.5, 0.5], 300)
        assert rmse(scores @ weights, labels) <= min(rmse(scores @ w, labels) for w in others)
    same = np.repeat(labels[:, None] + 1, 2, axis=1)
    assert simplex_weights(same, labels).sum() == pytest.approx(1)
    perfect = np.stack([labels, labels + 1], axis=1)
    assert rmse(perfect @ simplex_weights(perfect, labels), labels) < 1e-6
