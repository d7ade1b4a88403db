"""Joining each label with its prediction by key, whichever comes first, once."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_infer.core.shard import Shard

PREDICTED, LABELLED, JOINED = 1, 2, 4
LABEL_ROW = np.dtype(
    [
        ("status", "<u8"),
        ("offset", "<i8"),
        ("predicted_us", "<i8"),
        ("score", "<f8"),
        ("labelled_us", "<i8"),
        ("label", "<f8"),
    ]
)


@dataclass(frozen=True, slots=True)
class Joined:
    """A prediction and its label; `event` indexes the event in the batch that made the pair."""

    event: int
    offset: int
    score: float
    label: float
    predicted_us: int
    labelled_us: int


def join_prediction(
    shard: Shard, row: int, event: int, offset: int, time_us: int, score: float, within_us: int
) -> Joined | None:
    """Remember a prediction; return the pair when its label came before it."""
    record = shard.rows[row]
    status = int(record["status"])
    labelled_us = int(record["labelled_us"])
    if status & LABELLED and not status & JOINED and abs(time_us - labelled_us) <= within_us:
        record["status"] = PREDICTED | LABELLED | JOINED
        record["offset"], record["predicted_us"], record["score"] = offset, time_us, score
        return Joined(event, offset, score, float(record["label"]), time_us, labelled_us)
    if status & JOINED and abs(time_us - int(record["predicted_us"])) <= within_us:
        return None
    record["status"] = PREDICTED
    record["offset"], record["predicted_us"], record["score"] = offset, time_us, score
    return None


def join_label(
    shard: Shard, row: int, event: int, time_us: int, label: float, within_us: int
) -> Joined | None:
    """Remember a label; return the pair when its prediction is known and has no label yet."""
    if math.isnan(label):
        return None
    record = shard.rows[row]
    status = int(record["status"])
    predicted_us = int(record["predicted_us"])
    fresh = status & PREDICTED and abs(time_us - predicted_us) <= within_us
    if fresh and not status & JOINED:
        record["status"] = PREDICTED | LABELLED | JOINED
        record["labelled_us"], record["label"] = time_us, label
        score, offset = float(record["score"]), int(record["offset"])
        return Joined(event, offset, score, label, predicted_us, time_us)
    repeated = status & LABELLED and abs(time_us - int(record["labelled_us"])) <= within_us
    if not fresh and not repeated:
        record["status"] = LABELLED
        record["labelled_us"], record["label"] = time_us, label
    return None


ID_ROW = np.dtype([("seen_us", "<i8")])


def first_seen(
    shard: Shard,
    rows: npt.NDArray[np.int64],
    times_us: npt.NDArray[np.int64],
    within_us: int,
) -> npt.NDArray[np.bool_]:
    """Return bool[n]: true where no event with this id was accepted within the horizon.

    Accepted events are remembered; events are taken in order, so that of several equal ids in one
    batch the first wins.
    """
    accepted = np.ones(len(rows), bool)
    stored = shard.rows["seen_us"][rows].tolist()
    latest: dict[int, int] = {}
    for i, (row, time_us) in enumerate(zip(rows.tolist(), times_us.tolist(), strict=True)):
        seen_us = latest.get(row, stored[i])
        if seen_us and abs(time_us - seen_us) <= within_us:
            accepted[i] = False
        else:
            latest[row] = time_us
    changed = np.fromiter(latest, np.int64, len(latest))
    shard.rows["seen_us"][changed] = np.fromiter(latest.values(), np.int64, len(latest))
    shard.touch(changed)
    return accepted
