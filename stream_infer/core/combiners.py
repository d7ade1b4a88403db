"""Combining the scores of several models into one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import FEW
from stream_infer.core.errors import DeclarationError

CULPRIT = "weighted_mean"


@dataclass(frozen=True, slots=True)
class WeightedMean:
    """Mean of the models' scores by weight; `weights` None: they come with the trained ensemble.

    Made by `weighted_mean`. `models` is also the order of the columns of `combine`.
    """

    models: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def with_weights(self, weights: Mapping[str, float]) -> "WeightedMean":
        """Return the same combiner with the weights of its models; others' weights are ignored.

        Raises DeclarationError when a model has none, or the weights cannot be a mean's.
        """
        for model in self.models:
            if model not in weights:
                raise DeclarationError(
                    CULPRIT, f"no weight for model {model!r}", name=model, choices=weights
                )
        values = tuple(float(weights[model]) for model in self.models)
        _check_weights(self.models, values)
        return WeightedMean(self.models, values)

    def combine(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return float64[n] from scores float64[n, M] in the order of `models`.

        A score that is not finite is left out and the other weights count for more; where none
        with a weight is left, the result is NaN. The steps are element by element in the order of
        `models`, so that a row's result has the same bits whatever rows stand beside it.
        """
        if self.weights is None:
            raise DeclarationError(CULPRIT, "has no weights yet; give them, or train the ensemble")
        is_complete = all_finite(scores)
        if is_complete and scores.size <= FEW:
            return np.array([_mean(row, self.weights) for row in scores.tolist()])
        total = np.zeros(len(scores))
        if is_complete:
            everything = 0.0
            for column, weight in enumerate(self.weights):
                total += scores[:, column] * weight
                everything += weight
            return total / everything
        weight_sum = np.zeros(len(scores))
        for column, weight in enumerate(self.weights):
            score = scores[:, column]
            present = np.isfinite(score)
            total += np.where(present, score, 0.0) * weight
            weight_sum += np.where(present, weight, 0.0)
        combined = np.full(len(scores), np.nan)
        np.divide(total, weight_sum, out=combined, where=weight_sum > 0)
        return combined


def all_finite(scores: npt.NDArray[np.float64]) -> bool:
    """Say whether every score is a finite number."""
    if scores.size <= FEW:
        return all(map(math.isfinite, scores.ravel().tolist()))
    return bool(np.count_nonzero(np.isfinite(scores)) == scores.size)


def _mean(row: Sequence[float], weights: Sequence[float]) -> float:
    """Return the mean of one row's scores; the same steps as those of many rows, one by one."""
    total = everything = 0.0
    for score, weight in zip(row, weights, strict=True):
        total += score * weight
        everything += weight
    return total / everything


def weighted_mean(models: Mapping[str, float] | Sequence[str]) -> WeightedMean:
    """Declare a weighted mean of models: `{"trees": 0.6, "linear": 0.4}`.

    A list of names takes its weights from the trained ensemble. Weights need not add up to one.
    Raises DeclarationError when a weight is negative or not finite, or all of them are zero.

    >>> weighted_mean({"trees": 3, "linear": 1}).combine(np.array([[4.0, 8.0], [np.nan, 8.0]]))
    array([5., 8.])
    """
    if isinstance(models, str):
        raise DeclarationError(CULPRIT, f"takes a list or mapping of models, not {models!r}")
    names = tuple(models)
    if not names:
        raise DeclarationError(CULPRIT, "needs at least one model")
    for name in names:
        if not isinstance(name, str) or not name:
            raise DeclarationError(CULPRIT, f"a model is named by text, not {name!r}")
        if names.count(name) > 1:
            raise DeclarationError(CULPRIT, f"model {name!r} is there twice")
    if isinstance(models, Mapping):
        return WeightedMean(names).with_weights(models)
    return WeightedMean(names)


def _check_weights(models: tuple[str, ...], weights: tuple[float, ...]) -> None:
    for model, weight in zip(models, weights, strict=True):
        if not math.isfinite(weight) or weight < 0:
            raise DeclarationError(
                CULPRIT, f"weight of {model!r} must be a number of at least 0, not {weight!r}"
            )
    if not sum(weights) > 0:
        raise DeclarationError(CULPRIT, "all weights are 0; at least one model needs more")
