"""The three regression models of an ensemble, each fitted and exported to ONNX.

All take float32[n, F] with NaN where missing. The random numbers of a fit come from its seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from stream_infer.training.export import Baseline, Scaling, export_network, export_trees

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Step = Callable[[float], None]
"""Told the share of a fit that is done, 0 to 1."""

_SCALED_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model: what it predicts (float64[n]), and its ONNX file with a baseline added."""

    predict: Callable[[F32], F64]
    export: Callable[[Baseline | None, Sequence[str]], bytes]


class Estimator(Protocol):
    """A kind of model that can be fitted; `cost` is about how long that takes beside others."""

    @property
    def cost(self) -> float:
        """Relative duration of a fit, for the progress of the whole."""
        ...

    def fit(self, x: F32, y: F64, seed: int, step: Step) -> Fitted:
        """Fit x float32[n, F] to y float64[n], telling `step` how far it is."""
        ...


@dataclass(frozen=True, slots=True)
class BoostedTrees:
    """Gradient boosting by histograms; half of the features are looked at for each split.

    The trees do not depend on `threads`. More than one is faster on an idle machine only: they wait
    for each other by spinning, and beside other work a fit then takes many times as long.
    """

    trees: int = 200
    leaves: int = 31
    learning_rate: float = 0.07
    leaf_rows_min: int = 80
    trees_per_step: int = 100
    threads: int = 1
    cost: float = 8.0

    def fit(self, x: F32, y: F64, seed: int, step: Step) -> Fitted:
        """Fit to y float64[n]."""
        # A column without any value cannot be binned; as a constant it is never split on.
        x = np.where(np.isnan(x).all(axis=0), np.float32(0), x)
        model = HistGradientBoostingRegressor(
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.leaf_rows_min,
            l2_regularization=10.0,
            max_features=0.5,
            early_stopping=False,
            warm_start=True,  # so that the fit can be continued, and progress shown
            random_state=seed,
        )
        for trees in range(self.trees_per_step, self.trees, self.trees_per_step):
            self._grow(model, x, y, trees, step)
        self._grow(model, x, y, self.trees, step)

        def export(baseline: Baseline | None, features: Sequence[str]) -> bytes:
            # Private to scikit-learn, which has no public way; `fit` compares the exported model's
            # scores with the estimator's, so that a change there cannot go unseen.
            trees = [predictors[0].nodes for predictors in model._predictors]
            constant = float(np.ravel(model._baseline_prediction)[0])
            return export_trees(trees, constant, baseline, features)

        return Fitted(model.predict, export)

    def _grow(
        self, model: HistGradientBoostingRegressor, x: F32, y: F64, trees: int, step: Step
    ) -> None:
        model.max_iter = trees
        with threadpool_limits(self.threads, user_api="openmp"):
            model.fit(x, y)
        step(trees / self.trees)


@dataclass(frozen=True, slots=True)
class Network:
    """A multi-layer perceptron on scaled features; its weights are averaged over late epochs."""

    layers: tuple[int, ...] = (64, 32)
    epochs: int = 9
    averaged_from: int = 3
    batch_rows: int = 512
    learning_rate: float = 1e-3
    cost: float = 4.0

    def fit(self, x: F32, y: F64, seed: int, step: Step) -> Fitted:
        """Fit to y float64[n]."""
        scaling = fit_scaling(x)
        scaled = scaling.apply(x).astype(np.float64)
        centre, spread = float(y.mean()), float(y.std()) or 1.0
        model = MLPRegressor(
            hidden_layer_sizes=self.layers,
            batch_size=min(self.batch_rows, len(x)),
            learning_rate_init=self.learning_rate,
            alpha=1e-3,
            random_state=seed,
        )
        target = (y - centre) / spread
        mean: list[F64] | None = None
        for epoch in range(self.epochs):
            # Products this small gain nothing from threads, and lose much on a busy machine.
            with threadpool_limits(1, user_api="blas"):
                model.partial_fit(scaled, target)
            now = [array.copy() for array in (*model.coefs_, *model.intercepts_)]
            if mean is None or epoch <= self.averaged_from:
                mean = now
            else:
                mean = [0.75 * old + 0.25 * new for old, new in zip(mean, now, strict=True)]
            step((epoch + 1) / self.epochs)
        arrays = mean or []
        weights, biases = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
        weights[-1], biases[-1] = weights[-1] * spread, biases[-1] * spread + centre
        return _network(scaling, weights, biases)


@dataclass(frozen=True, slots=True)
class Linear:
    """Ridge regression on scaled features."""

    penalty: float = 10.0
    cost: float = 0.4

    def fit(self, x: F32, y: F64, seed: int, step: Step) -> Fitted:
        """Fit to y float64[n]; has no use for the seed."""
        scaling = fit_scaling(x)
        model = Ridge(self.penalty, solver="cholesky")
        model.fit(scaling.apply(x).astype(np.float64), y)
        step(1.0)
        weight = np.asarray(model.coef_, np.float64).reshape(-1, 1)
        return _network(scaling, [weight], [np.array([float(model.intercept_)])])


def fit_scaling(x: F32) -> Scaling:
    """Return the scaling to mean 0 and deviation 1; columns without values become 0."""
    known = ~np.isnan(x)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, x, np.float32(0)).astype(np.float64)
    mean = values.sum(axis=0) / count
    spread = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
    # A column that is constant but for rounding says nothing: dividing by its spread would.
    told = spread > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    inverse = np.where(told, 1 / np.where(told, spread, 1.0), 0.0)
    return Scaling(mean.astype(np.float32), inverse.astype(np.float32), _SCALED_MAX)


def _network(scaling: Scaling, weights: list[F64], biases: list[F64]) -> Fitted:
    def predict(x: F32) -> F64:
        value: npt.NDArray[Any] = scaling.apply(x).astype(np.float64)
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            value = (np.maximum(value, 0.0) if number else value) @ weight + bias
        return value[:, 0]

    def export(baseline: Baseline | None, features: Sequence[str]) -> bytes:
        return export_network(scaling, weights, biases, baseline, features)

    return Fitted(predict, export)
