"""`stream-infer evaluate`: the laws of the flight example, judged on all flights of a quarter."""

import asyncio
import contextlib
import signal
import sys
import tempfile
import uuid
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from types import FrameType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_infer.core.errors import SettingsError, StateError, StreamInferError
from stream_infer.core.results import Prediction
from stream_infer.demo import servers
from stream_infer.demo.children import ChildEndedError, Children
from stream_infer.demo.counts import ENDS, conserved
from stream_infer.demo.flights import (
    LIVE_FROM,
    LIVE_TO,
    TOPOLOGY,
    WARM_UP_FROM,
    microseconds,
)
from stream_infer.demo.live import Run, new_board
from stream_infer.demo.offline import batch_only_scores, delays, replay_offline
from stream_infer.demo.player import UNLIMITED
from stream_infer.demo.prepared import Prepared
from stream_infer.demo.progress import Report, progress
from stream_infer.demo.replaying import Replayed, replay_live
from stream_infer.demo.setup import prepare_data, prepare_features, prepare_models
from stream_infer.demo.summary import LIBRARIES
from stream_infer.settings import Settings, load
from stream_infer.store.embedded import EmbeddedRedis
from stream_infer.training.replay import Table

RMSE_MAX_MIN = 14.1
DIFFERENCE_MAX = 1e-6
HTTP_SAMPLES = 60


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the live run and the offline replay of the same log have said."""

    made: Prepared
    replayed: Replayed
    table: Table
    batch_only: dict[str, NDArray[np.float64]] | None
    partitions: int


def run_evaluation(
    broker: str | None, redis: str | None, data_dir: str | None, end: datetime | None = None
) -> int:
    """Print the judgement as one JSON object; return 0 where every law holds, 1 otherwise."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    stack = contextlib.ExitStack()
    code, judgement = 1, dict[str, Any]()
    try:
        with progress() as report:
            evidence = _gather(stack, broker, redis, data_dir, end, report)
        judgement = judge(evidence)
        code = 0 if judgement["ok"] else 1
    except KeyboardInterrupt:
        code = 130
        judgement = {"interrupted": True}
    except ChildEndedError as error:
        print(f"stream-infer: {error}", file=sys.stderr)
        judgement = {"ok": False, "error": str(error)}
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stack.close()
    sys.stdout.buffer.write(msgspec.json.encode(judgement) + b"\n")
    sys.stdout.buffer.flush()
    return code


def _gather(
    stack: contextlib.ExitStack,
    broker: str | None,
    redis: str | None,
    data_dir: str | None,
    end: datetime | None,
    report: Report,
) -> Evidence:
    settings = load(broker=broker, redis=redis, data_dir=data_dir)
    folder = servers.data_folder(settings.data_dir).resolve()
    # A run of its own each time: nothing of it outlives the judgement.
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stream-infer-")))
    made = prepare_data(folder, report)
    report("starting Redis and Kafka", 0.0)
    if redis is None:
        redis = stack.enter_context(EmbeddedRedis(scratch / "redis")).url
    if broker is None:
        broker = _own_kafka(stack, scratch / "kafka")
    settings = msgspec.structs.replace(
        settings,
        broker=broker,
        redis=redis,
        models_dir=str(made.models_dir),
        group=f"stream-infer.evaluation.{uuid.uuid4().hex[:12]}",
    )
    prepare_features(made, redis, report)
    prepare_models(made, report)
    run = _start(stack, made, settings, LIVE_TO if end is None else end)
    board = new_board(made)
    replayed = asyncio.run(replay_live(run, board, HTTP_SAMPLES, report))
    # Stopped before the offline replay, which then has the machine for itself.
    run.children.stop()
    table = replay_offline(made, settings, run.partitions, run.log_to, report)
    simpler = batch_only_scores(made, table, report) if end is None else None
    return Evidence(made, replayed, table, simpler, run.partitions)


def _own_kafka(stack: contextlib.ExitStack, folder: Path) -> str:
    try:
        # Late: it is the tests' own, and lies in a clone of the repository only.
        from tests.servers.jars import MissingProgramError
        from tests.servers.kafka import Kafka
    except ModuleNotFoundError as error:
        raise SettingsError("give the address of a running Kafka with --broker") from error
    kafka = Kafka(folder)
    try:
        kafka.start()
    except (MissingProgramError, RuntimeError) as error:
        raise StreamInferError(str(error)) from error
    stack.callback(kafka.stop)
    return kafka.bootstrap


def _start(
    stack: contextlib.ExitStack, made: Prepared, settings: Settings, log_to: datetime
) -> Run:
    """Start worker and server on an empty log and an empty state."""
    stream = made.topology.stream.name
    cluster, counts, ends = asyncio.run(servers.real_log(made.topology, settings))
    if any(ends.values()):
        raise StateError(
            f"topic {stream!r} at {settings.broker} is not empty: the evaluation sends a whole log "
            "of its own; delete the topic, or give another broker"
        )
    servers.fit_state_to_log(settings.redis, TOPOLOGY, cluster, ends, may_delete=False)
    settings = msgspec.structs.replace(settings, http_port=servers.http_port(0))
    children = Children(made.data_dir / "logs-evaluation")
    stack.callback(children.stop)
    ports = servers.free_ports(1)
    children.start("server", ["serve", TOPOLOGY], settings)
    worker = msgspec.structs.replace(settings, metrics_port=ports[0])
    children.start("worker", ["worker", TOPOLOGY], worker)
    servers.wait_ready(settings.http_port, children)
    return Run(
        made=made,
        settings=settings,
        children=children,
        metrics_ports=ports,
        partitions=counts[stream],
        embedded=False,
        pace=UNLIMITED,
        duration_s=None,
        stay=False,
        log_from=WARM_UP_FROM,
        log_to=log_to,
    )


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


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
