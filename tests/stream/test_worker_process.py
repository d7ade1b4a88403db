"""Workers as processes: killed at random moments, stopped by a signal, started by Faust's CLI."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream_infer.stream.processing import TP
from tests.servers.kafka import Kafka
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import (
    PARTITIONS,
    Reader,
    committed,
    echo_app,
    ends,
    eventually,
    produce,
    running,
    stream_settings,
)

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("worker_program.py")


@contextmanager
def worker(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process, killed at the end if it still runs."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_killed_workers_lose_nothing_and_repeat_only_from_the_last_commit(
    kafka_server: Kafka, unique: str, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    broker, source, output = kafka_server.bootstrap, f"{unique}.in", f"{unique}.out"
    kafka_server.create_topics({source: PARTITIONS, output: PARTITIONS})
    total = produce(broker, source, (str(n) for n in range(40_000)))
    environment = {"BROKER": broker, "SOURCE": source, "OUTPUT": output, "GROUP": unique}
    environment |= {"WORK_S": "0.005", "COMMIT_INTERVAL_S": "0.1"}
    environment["MEMBER_ID"] = "the-only-one"  # else the dead hold the group for their session
    log = tmp_path / "worker.log"
    reader = Reader(broker, output)
    commits: list[dict[TP, int]] = []
    for _ in range(3):
        with worker([sys.executable, str(PROGRAM)], log, **environment) as process:
            goal = reader.read() + chance.randrange(1, 9_000)
            await eventually(lambda goal=goal: reader.read(goal) >= goal)
            process.send_signal(signal.SIGKILL)
            process.wait()
        commits.append(committed(broker, unique, source))
    with worker([sys.executable, str(PROGRAM)], log, **environment) as process:
        await eventually(lambda: committed(broker, unique, source) == ends(broker, source))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0, log.read_text()
    reader.read()
    results = reader.results()
    assert len(set(results)) == total
    for number, found in reader.by_partition.items():
        tp = TP(source, number)
        offsets = [offset for _, _, offset, _ in found]
        steps = list(zip([-1, *offsets], offsets, strict=False))
        restarts = [after for before, after in steps if after != before + 1]
        assert set(restarts) <= {commit.get(tp, 0) for commit in commits}, f"seed {seed}"
        assert len(restarts) <= len(commits)
    reader.close()


async def test_fausts_own_command_line_starts_an_app_and_a_signal_stops_it(
    kafka_server: Kafka, unique: str, tmp_path: Path
) -> None:
    broker, source, output = kafka_server.bootstrap, f"{unique}.in", f"{unique}.out"
    kafka_server.create_topics({source: PARTITIONS, output: PARTITIONS})
    total = produce(broker, source, (str(n) for n in range(1_000)))
    environment = {"BROKER": broker, "SOURCE": source, "OUTPUT": output, "GROUP": unique}
    faust = "import faust.__main__, sys; sys.exit(faust.__main__.main())"
    command = [sys.executable, "-c", faust, "-A", "tests.stream.worker_program"]
    log = tmp_path / "worker.log"
    before = set(ROOT.iterdir())
    with worker([*command, "worker", "-l", "info"], log, **environment) as process:
        await eventually(lambda: committed(broker, unique, source) == ends(broker, source))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0, log.read_text()
    reader = Reader(broker, output)
    assert reader.read() == total
    reader.close()
    assert set(ROOT.iterdir()) == before
    assert "Traceback" not in log.read_text()


async def test_a_broker_that_comes_late_and_goes_away_is_waited_for(
    tmp_path: Path, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, output = f"{unique}.in", f"{unique}.out"
    broker = Kafka(tmp_path, heap="256m")
    broker._format()  # it has an address now, and answers later
    try:
        echo = Echo(output)
        app = echo_app(stream_settings(broker.bootstrap), source, output, echo, unique)
        starting = running(app)
        entering = asyncio.create_task(starting.__aenter__())
        await eventually(lambda: "not reachable" in caplog.text)
        await asyncio.to_thread(broker.start)
        await entering
        produce(broker.bootstrap, source, (str(n) for n in range(5_000)))
        await eventually(lambda: app.counters.produced == 5_000)
        broker.kill()
        await asyncio.to_thread(broker.start)
        produce(broker.bootstrap, source, (str(n) for n in range(5_000)))
        await eventually(lambda: app.counters.produced >= 10_000)
        await eventually(
            lambda: committed(broker.bootstrap, unique, source) == ends(broker.bootstrap, source)
        )
        await starting.__aexit__(None, None, None)
        reader = Reader(broker.bootstrap, output)
        reader.read()
        assert len(set(reader.results())) == 10_000
        reader.close()
    finally:
        broker.stop()
