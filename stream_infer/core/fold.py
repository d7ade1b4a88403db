"""The kernel: what each event of a micro-batch sees of its row, and the rows after it.

However a log is cut into batches, answers and rows are the same, bit for bit.
"""

import numpy as np

from stream_infer.core.arrays import Floats, Ints
from stream_infer.core.arrivals import UPDATED, Arrivals, EventColumns, Observing
from stream_infer.core.shard import EMPTY_ROW, Shard
from stream_infer.core.stored_rows import Rows
from stream_infer.core.windows import ViewPlan

PIECE_BITS = 11
PIECE = 1 << PIECE_BITS  # larger pieces fall out of the processor's caches
FEW = 16
PIECE_BYTES = 1 << 26  # rows of one piece, which are copied where they skip many tiles


def read(
    plan: ViewPlan,
    shard: Rows,
    rows: Ints,
    batch: EventColumns,
    observing: Observing | None = None,
) -> Floats:
    """Answer each event from the stored rows alone: float64[n, F], NaN where missing.

    `rows` int64[n] are the events' rows; -1 reads as an empty row. Changes nothing. `observing`
    says which events are of another stream than the view's.
    """
    places = np.arange(len(batch))
    size = piece_of(plan)
    if 0 < len(batch) <= size:
        return _answer_alone(plan, shard, rows, batch, places, observing)
    answers = np.empty((len(batch), len(plan.features)))
    for start in range(0, len(batch), size):
        order = places[start : start + size]
        answers[order] = _answer_alone(plan, shard, rows, batch, order, observing)
    return answers


def fold(
    plan: ViewPlan,
    shard: Shard,
    rows: Ints,
    batch: EventColumns,
    observing: Observing | None = None,
) -> Floats:
    """Answer each event as it is processed, in offset order, and fold it into its row.

    Returns float64[n, F]: each event sees its row with all events before it in the batch. `rows`
    int64[n] are the events' rows; where -1, the event is answered as from an empty row and is not
    folded. Changed rows become dirty. Events that only observe are answered and not folded.
    """
    n = len(batch)
    answers = np.empty((n, len(plan.features)))
    size = piece_of(plan)
    for start in range(0, n, size):
        order, row = _by_row(rows[start : start + size], start)
        if row[0] < 0:
            keyless = int(row.searchsorted(0))
            nowhere, order, row = order[:keyless], order[keyless:], row[keyless:]
            answers[nowhere] = _answer_alone(plan, shard, rows, batch, nowhere, observing)
            if not len(row):
                continue
        arrivals = Arrivals(shard, batch, order, row, alone=False, observing=observing)
        answers[order] = _answer(plan, arrivals)
        plan.sums.fold(arrivals)
        for aggregate in plan.aggregates:
            aggregate.fold(arrivals)
        newest_us = np.maximum(arrivals.group_old_us, arrivals.group_time_us)
        arrivals.put(UPDATED, arrivals.group_row, newest_us)
        shard.touch(arrivals.changed_rows)
    return answers


def _by_row(rows: Ints, start: int) -> tuple[Ints, Ints]:
    """Return a piece's events, counted from `start`, by row and then in order; and their rows."""
    if len(rows) == 1:
        return np.array([start]), rows
    if len(rows) <= FEW:
        order = rows.argsort(kind="stable")
        by_row = rows.take(order)
        return (order + start if start else order), by_row
    # One sort of (row, offset) pairs packed into single numbers gives both.
    packed = (rows << PIECE_BITS) + np.arange(len(rows))
    packed.sort()
    return (packed & (PIECE - 1)) + start, packed >> PIECE_BITS


def piece_of(plan: ViewPlan) -> int:
    """Return how many events are worked on at once, so that memory stays bounded."""
    return min(PIECE, max(1, PIECE_BYTES // plan.row_bytes))


def _answer_alone(
    plan: ViewPlan,
    shard: Rows,
    rows: Ints,
    batch: EventColumns,
    order: Ints,
    observing: Observing | None,
) -> Floats:
    row = np.maximum(rows.take(order), EMPTY_ROW)  # The first of all rows.
    return _answer(plan, Arrivals(shard, batch, order, row, alone=True, observing=observing))


def _answer(plan: ViewPlan, arrivals: Arrivals) -> Floats:
    """Return float64[n, F]."""
    answers = np.empty((len(plan.features), len(arrivals)))
    plan.sums.answer(arrivals, answers)
    for column, (aggregate, question) in plan.asked:
        answers[column] = aggregate.answer(arrivals, question)
    if plan.ratios:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for column, numerator, denominator in plan.ratios:
                quotient = answers[numerator] / answers[denominator]
                answers[column] = np.where(np.isfinite(quotient), quotient, np.nan)
    return answers.T
