"""Choosing an ensemble's weights on scores that its models gave to rows they were not fitted on."""

from itertools import combinations

import numpy as np
import numpy.typing as npt

_MODELS_MAX = 12

F64 = npt.NDArray[np.float64]


def simplex_weights(scores: F64, labels: F64) -> F64:
    """Return float64[M], at least 0 and summing to 1, of least squared error.

    `scores` float64[n, M] and `labels` float64[n] must be finite. The optimum lies inside some face
    of the simplex, where it has a closed form, w ∝ G⁻¹1 with G the mean products of the errors; so
    all faces are tried, which is exact and needs no tolerance. At most 12 models.
    """
    n, models = scores.shape
    if not 1 <= models <= _MODELS_MAX or not n:
        raise ValueError(f"needs rows and 1 to {_MODELS_MAX} models, got scores of {scores.shape}")
    errors = scores - labels[:, None]
    products = errors.T @ errors / n
    best, best_error = np.full(models, 1 / models), np.inf
    for size in range(1, models + 1):
        for face in combinations(range(models), size):
            inside = products[np.ix_(face, face)]
            weights = np.ones(1) if size == 1 else np.linalg.lstsq(inside, np.ones(size))[0]
            total = weights.sum()
            if not total > 0 or (weights < 0).any():
                continue
            weights = weights / total
            error = float(weights @ inside @ weights)
            if error < best_error:
                best, best_error = np.zeros(models), error
                best[list(face)] = weights
    return best


def rmse(scores: F64, labels: F64) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean((scores - labels) ** 2)))
