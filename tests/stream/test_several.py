"""Several topologies in one worker: each folds its own stream, and is counted by its name."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from stream_infer.processes import Guarded, free_port, wait_until
from tests.faults.models import save_models
from tests.faults.reading import PARTITIONS, read_topic
from tests.servers.kafka import Kafka
from tests.stream.kafka_tools import produce

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

ROOT = Path(__file__).parents[2]
EVENTS = 30


def declared(folder: Path, names: list[str]) -> list[str]:
    """Write a module for each topology; the shop of the battery under another name."""
    text = (ROOT / "tests" / "faults" / "shop.py").read_text()
    made = []
    for name in names:
        module = folder / f"{name}.py"
        module.write_text(
            text.replace('os.environ.get("STREAM_INFER_TEST_TOPOLOGY", "shop")', repr(name))
            .replace('os.environ.get("STREAM_INFER_TEST_SOURCE", "sales")', repr(f"{name}.sales"))
        )  # fmt: skip
        made.append(str(module))
    return made


def environment(kafka: Kafka, redis_url: str, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "STREAM_INFER_BROKER": kafka.bootstrap,
        "STREAM_INFER_REDIS": redis_url,
        "STREAM_INFER_MODELS_DIR": str(folder / "models"),
    }


def test_two_topologies_work_side_by_side(
    kafka_server: Kafka, redis_url: str, unique: str, tmp_path: Path
) -> None:
    names = [f"{unique}_a", f"{unique}_b"]
    broker, port = kafka_server.bootstrap, free_port()
    for name in names:
        save_models(tmp_path / "models", name)
        kinds = ("sales", "predictions", "dead_letters", "outcomes")
        kafka_server.create_topics({f"{name}.{kind}": PARTITIONS for kind in kinds})
    log = tmp_path / "log"
    with log.open("wb") as output:
        worker = Guarded(
            [sys.executable, "-m", "stream_infer.cli", "worker", *declared(tmp_path, names)],
            cwd=ROOT,
            env=environment(kafka_server, redis_url, tmp_path)
            | {"STREAM_INFER_METRICS_PORT": str(port)},
            stderr=output,
            grace_s=30,
        )
    try:
        sale = {"type": "sale", "shop": "s", "at": "2024-01-01T00:00:00Z", "amount": 1.0}
        for name in names:
            sales = (json.dumps({**sale, "sale_id": f"{name}-{n}"}) for n in range(EVENTS))
            produce(broker, f"{name}.sales", sales)

        def answered() -> bool:
            return all(len(read_topic(broker, f"{name}.predictions")) == EVENTS for name in names)

        alive = lambda: worker.poll() is None  # noqa: E731
        assert wait_until(answered, alive=alive, timeout_s=90), log.read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            text = page.read().decode()
        found = re.findall(
            r'^stream_infer_consumed_events_total{topology="(\w+)"} (\S+)', text, re.M
        )
        assert {name: float(n) for name, n in found} == dict.fromkeys(names, float(EVENTS))
        os.kill(worker.pid, signal.SIGTERM)
        assert wait_until(lambda: worker.poll() is not None, timeout_s=60)
        assert worker.poll() == 0, log.read_text()
    finally:
        worker.kill()


def test_one_of_two_that_cannot_run_is_named_and_ends_the_worker(
    kafka_server: Kafka, redis_url: str, unique: str, tmp_path: Path
) -> None:
    names = [f"{unique}_a", f"{unique}_b"]
    save_models(tmp_path / "models", names[0])
    ended = subprocess.run(
        [sys.executable, "-m", "stream_infer.cli", "worker", *declared(tmp_path, names)],
        cwd=ROOT,
        env=environment(kafka_server, redis_url, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert names[1] in ended.stderr
    assert "Traceback" not in ended.stderr
