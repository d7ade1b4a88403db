"""The short part of the battery; `make faults` runs all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer
from redis import Redis as RedisClient

from stream_infer.core.errors import SettingsError
from stream_infer.failpoints import parse
from tests.faults.__main__ import play
from tests.faults.bench import Bench
from tests.faults.harness import ROOT, Run
from tests.faults.reading import read_topic
from tests.faults.verifier import Figures, Verifier
from tests.servers.kafka import Kafka
from tests.servers.redis import Redis


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.parametrize(
    "scenario",
    ["kill", "zombie-state-written", "rekey-kill", "exactly-once-transaction-ending"],
)
def test_nothing_is_lost_and_nothing_counts_twice(
    kafka_server: Kafka, redis_server: Redis, tmp_path: Path, scenario: str
) -> None:
    figures = play(Bench(kafka_server, redis_server, tmp_path), scenario, seed=0)
    assert figures.passed, figures.line()


@pytest.mark.kafka
@pytest.mark.redis
def test_the_verifier_notices_what_is_lost_invented_or_changed(
    kafka_server: Kafka, redis_server: Redis, tmp_path: Path
) -> None:
    bench = Bench(kafka_server, redis_server, tmp_path)
    run = Run(bench, "noticed", seed=1)
    try:
        run.generate(400, 4_000)
        clean = run.finish(run.worker())
    finally:
        run.close()
    assert clean.passed, clean.line()
    topic = f"{run.name}.predictions"
    said = json.loads(read_topic(run.broker, topic)[0].value())
    name = said["prediction_id"]
    producer = Producer({"bootstrap.servers": run.broker, "log_level": 0})
    for change in (
        {},
        {"predicted_at": "2024-01-01T00:00:00Z"},
        {"score": 1e9},
        {"prediction_id": "other"},
    ):
        producer.produce(topic, json.dumps(said | change).encode())
    producer.flush()
    with RedisClient.from_url(redis_server.url) as redis:
        redis.delete(*list(redis.scan_iter(f"si:{{{run.name}:*@ids*"))[:3])
    verifier = Verifier(run.broker, redis_server.url, run.source, run.name, calm=f"{run.name}_calm")
    figures = verifier.judge(Figures("noticed", 1))
    assert (figures.missing, figures.extra, figures.conflicting) == (0, 1, 1)
    assert (figures.repeats, figures.state_differences) == (3, 3)
    verifier.drop("predictions", lambda message: f'"{name}"' in message.value().decode())
    figures = verifier.judge(Figures("noticed", 1))
    assert (figures.missing, figures.extra, figures.conflicting) == (1, 1, 0)


def test_a_failpoint_acts_at_its_visit_and_only_there() -> None:
    program = (
        "from stream_infer.failpoints import failpoint\n"
        "for n in range(3):\n"
        "    failpoint('committed'); failpoint('folded'); print(n, flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "STREAM_INFER_FAILPOINTS": "folded=kill@3"},
        capture_output=True,
        check=False,
    )
    assert ended.stdout.split() == [b"0", b"1"]
    assert ended.returncode == -9


@pytest.mark.parametrize("text", ["foldet=kill", "folded=explode", "folded=kill@soon"])
def test_an_unknown_failpoint_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="STREAM_INFER_FAILPOINTS"):
        parse(text)
