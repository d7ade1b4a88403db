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
Places = npt.NDArray[np.int32]

LEAVES_MAX = 32
TABLE_BYTES_MAX = 1 << 22
"""Of a larger table, hardly anything would be found in the processor's caches."""
PIECE = 512
CELLS = 4096
"""Into how many a feature's range is cut; few cells have more than one threshold of hundreds."""
_ALL = 0xFFFF_FFFF
_EXPONENT_BITS, _EXPONENT_BIAS = 23, 127
_PAST = np.array([np.inf, np.inf], np.float32)
"""In the place of thresholds: of values above them all, and of missing ones."""
_F32_MAX = float(np.finfo(np.float32).max)


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
    """The questions of one feature: thresholds float32[k], each once, and what the no's to the
    first 0 … k of them leave, and at last those of a missing value: uint32[k + 2, T].
    """

    feature: int
    thresholds: F32
    left_over: Masks


class _Places:
    """Finds how many of its feature's thresholds are below a value, for all features at once.

    Each feature's range is cut into cells of one width, so that a value's cell is found by
    arithmetic: thresholds of the cells before are below it, and those of its own are asked.
    Rounding does no harm: a smaller value is never in a later cell.
    """

    def __init__(self, columns: Sequence[_Column]) -> None:
        self._features = np.array([column.feature for column in columns])
        padded = [np.append(c.thresholds, _PAST) for c in columns]
        self._thresholds = np.concatenate(padded)
        self._starts = np.array([0, *map(len, padded[:-1])]).cumsum()[:, np.newaxis]
        self._missing = (self._starts + [[len(row) - 1] for row in padded]).astype(np.int32)
        ranges = [_range(column.thresholds) for column in columns]
        self._low, self._cells_a_unit = np.array(ranges, np.float32).T[..., np.newaxis]
        self._first_cell = np.arange(len(columns), dtype=np.int32)[:, np.newaxis] * CELLS
        cells = [self._cells(column.thresholds)[i] for i, column in enumerate(columns)]
        counts = np.array([np.bincount(own, minlength=CELLS) for own in cells])
        self._before = (self._starts + counts.cumsum(axis=1) - counts).astype(np.int32).reshape(-1)
        self._questions = int(counts.max())

    def _cells(self, values: F32) -> Places:
        """Return int32[F, n], the cell of each of values float32[F, n] or float32[n]."""
        with np.errstate(over="ignore", invalid="ignore"):
            cells = (values - self._low) * self._cells_a_unit
        # Unlike `clip`, these take the number where the other is none.
        np.fmax(cells, 0, out=cells)
        np.fmin(cells, CELLS - 1, out=cells)
        numbers: Places = cells.astype(np.int32)
        return numbers

    def of(self, rows: F32) -> Places:
        """Return int32[F, n] for rows float32[n, …]: places in all features' tables together."""
        values = rows.T.take(self._features, axis=0)
        cells = self._cells(values)
        cells += self._first_cell
        places: Places = self._before.take(cells)
        for _ in range(self._questions):
            places += values > self._thresholds.take(places)
        missing = np.isnan(values)
        if missing.any():
            np.copyto(places, self._missing, where=missing)
        return places


def _range(thresholds: F32) -> tuple[float, float]:
    """Return where the cells of a feature begin, and how many there are in 1."""
    finite = thresholds[np.isfinite(thresholds)].astype(np.float64)
    if not len(finite):
        return 0.0, 0.0
    span = float(finite[-1] - finite[0])
    a_unit = (CELLS - 1) / span if span else 0.0
    return float(finite[0]), a_unit if a_unit < _F32_MAX else 0.0


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
        self._places = _Places(columns)
        self._left_over = np.concatenate([column.left_over for column in columns])
        self._weights = weights
        # From the exponent of a power of two to the place of the leaf's weight.
        self._leaves = np.arange(len(weights), dtype=np.int32) * LEAVES_MAX - _EXPONENT_BIAS
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
        for start in range(0, len(rows), PIECE):
            piece = slice(start, start + PIECE)
            sums[piece] = self._sums(self._places.of(rows[piece]))
        if self._baseline is not None:
            column, missing = self._baseline
            values = rows[:, column]
            sums += np.where(np.isnan(values), missing, values)
        return sums

    def _sums(self, places: Places) -> F32:
        left: Masks = self._left_over.take(places[0], axis=0)
        other = np.empty_like(left)
        for of_feature in places[1:]:
            # With `raise`, numpy would fill another array first.
            left &= self._left_over.take(of_feature, axis=0, out=other, mode="clip")
        left &= np.negative(left, out=other)  # the lowest bit
        at = left.astype(np.float32).view(np.int32)
        at >>= _EXPONENT_BITS
        at += self._leaves
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
        keeps = ~cleared[of]
        thresholds, rank = np.unique(trees.threshold[of], return_inverse=True)
        masks = np.full((len(thresholds) + 2, len(starts)), _ALL, np.uint32)
        for row, number, kept in zip(*_lists(rank + 1, numbers[of], keeps), strict=True):
            masks[row, number] &= kept
        np.bitwise_and.accumulate(masks[:-1], axis=0, out=masks[:-1])
        right = ~trees.missing_left[of]
        np.bitwise_and.at(masks[-1], numbers[of[right]], keeps[right])
        columns.append(_Column(int(feature), thresholds, masks))
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
