"""`stream-infer evaluate`: the laws of the flight example, judged on all flights of a quarter."""

import asyncio
import contextlib
import signal
import sys
import tempfile
import uuid
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from stream_infer.core.errors import SettingsError, StateError, StreamInferError
from stream_infer.demo import servers
from stream_infer.demo.children import ChildEndedError, Children
from stream_infer.demo.flights import (
    LIVE_TO,
    TOPOLOGY,
    WARM_UP_FROM,
)
from stream_infer.demo.judgement import Evidence, judge
from stream_infer.demo.live import Run, new_board
from stream_infer.demo.offline import batch_only_scores, replay_offline
from stream_infer.demo.player import UNLIMITED
from stream_infer.demo.prepared import Prepared
from stream_infer.demo.progress import Report, progress
from stream_infer.demo.replaying import replay_live
from stream_infer.demo.setup import prepare_data, prepare_features, prepare_models
from stream_infer.settings import Settings, load
from stream_infer.store.embedded import EmbeddedRedis

HTTP_SAMPLES = 60


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


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
