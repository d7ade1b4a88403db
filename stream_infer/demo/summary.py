"""The summary of a run, as programs read it."""

import time
from importlib.metadata import version
from platform import python_version
from typing import Any

from stream_infer.demo.counts import ENDS, conserved
from stream_infer.demo.live import Ended, Run

LIBRARIES = ("faust-streaming", "aiokafka", "redis", "onnxruntime", "numpy", "feast")


def summary_of(
    run: Run,
    ended: Ended,
    setup_s: dict[str, float],
    started_s: float,
    servers: dict[str, str],
) -> dict[str, Any]:
    """Return what a run was and came to; `ok` when every event sent has one end.

    Latencies are in milliseconds, from just before an event is handed to Kafka's client to its
    prediction in the hands of a consumer; errors in minutes; `started_s` is when the run began.
    """
    board, counts = ended.board, ended.counts
    ends: dict[str, Any] = {"consumed": counts["consumed"] if counts else None}
    ends |= {name: counts[name] if counts else None for name in ENDS.values()}
    fully = counts is not None and conserved(counts)
    ends["conserved"] = fully
    ends["in_flight"] = ended.in_flight
    live = board.sent - board.sent_warm_up
    errors = _errors(run, ended)
    return {
        "ok": fully and ended.drained and not errors,
        "topology": run.made.topology.name,
        **servers,
        "pace": {"speed": run.pace.speed, "rate": run.pace.rate},
        "sent": {
            "events": board.sent,
            "acknowledged": board.acknowledged,
            "refused": board.refused,
            "departures": board.departures,
            "warm_up": board.sent_warm_up,
            "in_the_log_before": ended.skipped,
            "whole_year": ended.complete,
        },
        "ends": ends,
        "read_back": {
            "predictions": board.predictions,
            "repeated": board.repeated,
            "without_score": board.without_score,
            "degraded": board.degraded,
            "outcomes": board.outcomes,
            "dead_letters": board.dead_letters,
        },
        "rates": {
            "warm_up_events_per_s": _rate(board.sent_warm_up, ended.warm_up_s),
            "live_events_per_s": _rate(live, ended.live_s),
        },
        "latency_ms": {
            "p50": _rounded(board.latencies.percentile_ms(50)),
            "p90": _rounded(board.latencies.percentile_ms(90)),
            "p99": _rounded(board.latencies.percentile_ms(99)),
            "max": _rounded(board.latencies.max_ms),
            "measured": board.latencies.n,
        },
        "rmse_min": board.errors.rmse(),
        "errors": errors,
        "seconds": {
            "set_up": setup_s,
            "warm_up": round(ended.warm_up_s, 3),
            "live": round(ended.live_s, 3),
            "first_prediction": _since(started_s, board.first_prediction_s),
            "first_live_prediction": _since(started_s, board.first_live_prediction_s),
            "total": round(time.perf_counter() - started_s, 3),
        },
        "models": board.versions,
        "versions": {"python": python_version(), **{name: version(name) for name in LIBRARIES}},
        "data_dir": str(run.made.data_dir),
    }


def _errors(run: Run, ended: Ended) -> list[str]:
    board, counts = ended.board, ended.counts
    found = []
    if counts is None:
        found.append("the worker's own counts could not be read")
    if not ended.drained:
        found.append("the worker did not finish all that was sent in time")
    if board.refused:
        found.append(f"Kafka refused {board.refused} events")
    if counts is not None and ended.drained and not counts["replayed"]:
        if counts["consumed"] != board.sent and not ended.skipped:
            found.append(f"sent {board.sent} events, consumed {counts['consumed']}")
        if counts["predictions"] != board.predictions:
            found.append(f"read {board.predictions} of {counts['predictions']} predictions back")
    return found


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 1) if seconds else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _since(started_s: float, moment_s: float | None) -> float | None:
    return None if moment_s is None else round(moment_s - started_s, 3)
