"""A sum of regression trees, evaluated for many rows at once.

To follow one tree after the other from its root costs what its questions cost that the processor
cannot guess, nearly all of the time. Instead, as in QuickScorer (Lucchese et al., SIGIR 2015), each
tree has a bit for each of its leaves, and each question that is answered no clears the bits of its
left side; the lowest bit that is left is the leaf. The questions of one feature, in the order of
their thresholds, are answered no up to some threshold, which is all that must be found for a row.
What they clear together, in all trees, was worked out before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Masks = npt.NDArray[np.uint32]

LEAVES_MAX = 32
TABLE_BYTES_MAX = 1 << 22
"""Of a larger table, hardly anything would be found in the processor's caches."""
PIECE = 512
_ALL = 0xFFFF_FFFF
_EXPONENT_BITS, _EXPONENT_BIAS = 23, 127


@dataclass(frozen=True, slots=True)
class Trees:
    """Nodes of trees as ONNX's TreeEnsembleRegressor has them, in columns of one length.

    A node asks whether feature `feature` is at most `threshold`, or missing where `missing_left`:
    if so, it goes on with node `left` of its tree, else with `right`. A leaf adds `weight`.
    """

    tree: npt.NDArray[np.int64]
    node: npt.NDArray[np.int64]
    is_leaf: npt.NDArray[np.bool_]
    feature: npt.NDArray[np.int64]
    threshold: F32
    missing_left: npt.NDArray[np.bool_]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    weight: F32
    base: np.float32


@dataclass(frozen=True, slots=True)
class _Column:
    """The questions of one feature: thresholds float32[k] and what the first 0 … k no's leave, and
    at last those of a missing value: uint32[k + 2, T].
    """

    feature: int
    thresholds: F32
    left_over: Masks


class Forest:
    """Gives float32[n] from rows float32[n, F]: the bits of adding the trees' leaves in order."""

    def __init__(
        self,
        columns: Sequence[_Column],
        weights: F32,
        base: np.float32,
        baseline: tuple[int, np.float32] | None = None,
    ) -> None:
        self._columns = columns
        self._weights = weights
        # From the exponent of a power of two to the place of the leaf's weight.
        self._places = np.arange(len(weights), dtype=np.int32) * LEAVES_MAX - _EXPONENT_BIAS
        self._base = base
        self._baseline = baseline

    def on(self, column: int, missing: np.float32) -> "Forest":
        """Return what adds the sums to a column, of which `missing` stands for missing values."""
        return Forest(self._columns, self._weights, self._base, (column, missing))

    @property
    def thresholds(self) -> dict[int, F32]:
        """The thresholds of each feature that is asked about, in order."""
        return {column.feature: column.thresholds for column in self._columns}

    def __call__(self, rows: F32) -> F32:
        """Return the sums."""
        sums = np.empty(len(rows), np.float32)
        found = [self._found(column, rows) for column in self._columns]
        for start in range(0, len(rows), PIECE):
            piece = slice(start, start + PIECE)
            sums[piece] = self._sums([places[piece] for places in found])
        if self._baseline is not None:
            column, missing = self._baseline
            values = rows[:, column]
            sums += np.where(np.isnan(values), missing, values)
        return sums

    @staticmethod
    def _found(column: _Column, rows: F32) -> npt.NDArray[np.int64]:
        """Return how many thresholds are below each row's value; one too many for a missing one."""
        values = rows[:, column.feature]
        # Sorted values are found in a quarter of the time, and sorted in another one.
        order = values.argsort()
        found = np.empty(len(values), np.int64)
        found[order] = column.thresholds.searchsorted(values[order])
        missing = np.isnan(values)
        if missing.any():
            found[missing] = len(column.thresholds) + 1
        return found

    def _sums(self, found: Sequence[npt.NDArray[np.int64]]) -> F32:
        left: Masks = self._columns[0].left_over.take(found[0], axis=0)
        for column, places in zip(self._columns[1:], found[1:], strict=True):
            left &= column.left_over.take(places, axis=0)
        left &= -left  # the lowest bit
        at = left.astype(np.float32).view(np.int32)
        at >>= _EXPONENT_BITS
        at += self._places
        total = np.zeros(len(at), np.float32)
        for weights in self._weights.reshape(-1).take(at.T):
            total += weights
        return total + self._base


def plant(trees: Trees) -> Forest | None:
    """Return what evaluates trees; None where one has too many leaves, or is no tree.

    None also where the tables, and what is taken from them for a piece of rows, would be too large
    to be of use.
    """
    starts = dict.fromkeys(trees.tree.tolist())
    asks = ~trees.is_leaf
    features = np.unique(trees.feature[asks])
    size = (np.count_nonzero(asks) + 2 * len(features) + PIECE) * len(starts) * 4
    if not len(features) or size > TABLE_BYTES_MAX:
        return None
    number_of = {tree: number for number, tree in enumerate(starts)}
    row_of = {pair: i for i, pair in enumerate(zip(*_lists(trees.tree, trees.node), strict=True))}
    if len(row_of) != len(trees.node):
        return None
    cleared = np.zeros(len(trees.node), np.uint32)
    weights = np.zeros((len(starts), LEAVES_MAX), np.float32)
    roots = dict(reversed(list(row_of)))  # the first node of each
    seen: set[int] = set()
    for tree, number in number_of.items():
        leaves = _leaves(trees, row_of, tree, roots[tree], cleared, seen)
        if leaves is None:
            return None
        weights[number, : len(leaves)] = trees.weight[leaves]
    if len(seen) < len(trees.node):
        return None
    numbers = np.array([number_of[tree] for tree in trees.tree.tolist()])
    columns = []
    for feature in features.tolist():
        of = np.flatnonzero(asks & (trees.feature == feature))
        of = of[np.argsort(trees.threshold[of], kind="stable")]
        keeps = ~cleared[of]
        masks = np.full((len(of) + 2, len(starts)), _ALL, np.uint32)
        masks[np.arange(1, len(of) + 1), numbers[of]] = keeps
        np.bitwise_and.accumulate(masks[:-1], axis=0, out=masks[:-1])
        right = ~trees.missing_left[of]
        np.bitwise_and.at(masks[-1], numbers[of[right]], keeps[right])
        columns.append(_Column(int(feature), trees.threshold[of], masks))
    return Forest(columns, weights, trees.base)


def _leaves(
    trees: Trees,
    row_of: dict[tuple[int, int], int],
    tree: int,
    root: int,
    cleared: npt.NDArray[np.uint32],
    seen: set[int],
) -> list[int] | None:
    """Return the rows of a tree's leaves from left to right; None where it is no such tree.

    Notes, of each question, the bits of the leaves on its left side, and which rows were `seen`.
    """
    leaves: list[int] = []
    ways: list[tuple[int, int]] = [(root, -1)]
    while ways:
        node, begun = ways.pop()
        row = row_of.get((tree, node))
        if row is None or (begun < 0 and row in seen):
            return None
        seen.add(row)
        if begun >= 0:  # Its left side is done.
            cleared[row] = (1 << len(leaves)) - (1 << begun)
            ways.append((int(trees.right[row]), -1))
        elif trees.is_leaf[row]:
            leaves.append(row)
        else:
            ways += (node, len(leaves)), (int(trees.left[row]), -1)
        if len(leaves) > LEAVES_MAX:
            return None
    return leaves


def _lists(*columns: npt.NDArray[Any]) -> tuple[list[Any], ...]:
    return tuple(column.tolist() for column in columns)
