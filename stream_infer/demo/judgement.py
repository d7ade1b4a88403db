"""The judgement of an evaluation: every figure, and for each law whether it holds."""

from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_infer.core.results import Prediction
from stream_infer.demo.counts import ENDS, conserved
from stream_infer.demo.flights import LIVE_FROM, microseconds
from stream_infer.demo.offline import delays
from stream_infer.demo.prepared import Prepared
from stream_infer.demo.replaying import Replayed
from stream_infer.demo.summary import LIBRARIES
from stream_infer.training.replay import Table

RMSE_MAX_MIN = 14.1
DIFFERENCE_MAX = 1e-6


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the live run and the offline replay of the same log have said."""

    made: Prepared
    replayed: Replayed
    table: Table
    batch_only: dict[str, NDArray[np.float64]] | None
    partitions: int


def judge(evidence: Evidence) -> dict[str, Any]:
    """Return every figure, and for each law whether it holds."""
    replayed, table = evidence.replayed, evidence.table
    board, counts = replayed.ended.board, replayed.ended.counts
    errors = _errors(evidence)
    ends: dict[str, Any] = {} if counts is None else {name: counts[name] for name in ENDS.values()}
    sums = counts is not None and conserved(counts) and counts["consumed"] == board.sent
    offline = _differences(replayed.predictions, table)
    http = [
        _difference(answer, replayed.predictions.get(key))
        for key, answer in replayed.over_http.items()
    ]
    everything = (
        replayed.ended.drained
        and replayed.ended.complete
        and len(replayed.predictions) == len(table.keys)
        and not replayed.conflicting
    )
    live = errors["live"]["rmse_min"]
    laws = {
        "rmse_live": {
            # The bound is one of the whole quarter.
            "holds": None if evidence.batch_only is None else live <= RMSE_MAX_MIN,
            "value": live,
            "at_most": RMSE_MAX_MIN,
        },
        "live_equals_offline": {
            "holds": everything and offline <= DIFFERENCE_MAX,
            "value": offline,
            "at_most": DIFFERENCE_MAX,
        },
        "http_equals_stream": {
            "holds": bool(http) and max(http) <= DIFFERENCE_MAX,
            "value": max(http, default=None),
            "at_most": DIFFERENCE_MAX,
            "samples": len(http),
        },
        "conservation": {
            "holds": sums and ends["predictions"] == board.predictions,
            "sent": board.sent,
            "consumed": None if counts is None else counts["consumed"],
            **ends,
            "read_back": board.predictions,
            "repeated": board.repeated,
            "conflicting": replayed.conflicting,
        },
    }
    return {
        "ok": all(law["holds"] is not False for law in laws.values()),
        "laws": laws,
        "rmse_min": errors,
        "events": board.sent,
        "predictions": len(replayed.predictions),
        "predictions_offline": len(table.keys),
        "outcomes": board.outcomes,
        "events_per_s": round(replayed.events_per_s, 1),
        "partitions": evidence.partitions,
        "seconds": evidence.made.seconds,
        "models": board.versions,
        "versions": {"python": python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def _errors(evidence: Evidence) -> dict[str, Any]:
    """RMSE in minutes over the flights that left from October on, were predicted, and landed."""
    landed = delays(evidence.made.log)
    predictions, table = evidence.replayed.predictions, evidence.table
    after = table.times_us >= microseconds(LIVE_FROM)
    places = [
        place
        for place in np.flatnonzero(after).tolist()
        if table.keys[place] in landed and table.keys[place] in predictions
    ]
    keys = [table.keys[place] for place in places]
    found = [predictions[key] for key in keys]
    departure = np.array([landed[key][0] for key in keys])
    actual = np.array([landed[key][1] for key in keys])

    def rmse(scores: Any) -> float:
        return round(float(np.sqrt(np.mean((np.asarray(scores, float) - actual) ** 2))), 4)

    models = found[0].scores if found else {}
    return {
        "flights": len(keys),
        "live": {
            "rmse_min": rmse([p.score for p in found]),
            "by_model": {name: rmse([p.scores[name] for p in found]) for name in models},
        },
        "same_models_on_batch_features_alone": None
        if evidence.batch_only is None
        else {name: rmse(scores[places]) for name, scores in evidence.batch_only.items()},
        "departure_delay_plus_mean_gain": rmse(departure + evidence.made.mean_gain_min),
        "schedule": rmse(np.zeros(len(actual))),
    }


def _differences(live: dict[str, Prediction], table: Table) -> float:
    """Greatest |live − offline| over every prediction of the log, of the scores of all models."""
    worst = 0.0
    for key, score, each in zip(
        table.keys, table.scores.tolist(), table.each.tolist(), strict=True
    ):
        prediction = live.get(key)
        if prediction is None:
            return float("inf")
        for ours, theirs in zip(
            (prediction.score, *prediction.scores.values()), (score, *each), strict=True
        ):
            worst = max(worst, _apart(ours, theirs))
    return worst


def _difference(one: Prediction, other: Prediction | None) -> float:
    if other is None:
        return float("inf")
    pairs = zip(
        (one.score, *one.scores.values()), (other.score, *other.scores.values()), strict=True
    )
    return max(_apart(ours, theirs) for ours, theirs in pairs)


def _apart(one: float | None, other: float | None) -> float:
    """|one − other|; no number equals no number (None, NaN) and nothing else."""
    a = np.nan if one is None else one
    b = np.nan if other is None else other
    if np.isnan(a) or np.isnan(b):
        return 0.0 if np.isnan(a) and np.isnan(b) else float("inf")
    return abs(a - b)
