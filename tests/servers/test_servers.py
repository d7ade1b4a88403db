"""The servers of the tests are real: they keep data across stops and crashes, and go with the
run."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka import Consumer, Producer

from stream_infer.processes import wait_until
from tests.servers.jars import MissingProgramError, program
from tests.servers.kafka import Kafka
from tests.servers.redis import Redis

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    kafka = Kafka(tmp_path)
    yield kafka.start()
    kafka.stop()


def _produce(kafka: Kafka, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all", "log_level": 0})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def _values(kafka: Kafka, topic: str, count: int) -> list[bytes]:
    settings = {"bootstrap.servers": kafka.bootstrap, "group.id": topic, "log_level": 0}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    values = [message.value() for message in consumer.consume(count, timeout=30)]
    consumer.close()
    return values


def test_topics_are_created_and_deleted_with_their_partitions(
    kafka_server: Kafka, unique: str
) -> None:
    kafka_server.create_topics({f"{unique}.a": 3, f"{unique}.b": 1})
    assert kafka_server.topics().items() >= {f"{unique}.a": 3, f"{unique}.b": 1}.items()
    kafka_server.delete_topics([f"{unique}.a", f"{unique}.b"])
    assert not [name for name in kafka_server.topics() if name.startswith(unique)]


def test_acknowledged_records_survive_a_stop_and_a_crash_of_the_broker(own_kafka: Kafka) -> None:
    address = own_kafka.bootstrap
    own_kafka.create_topics({"events": 1})
    _produce(own_kafka, "events", b"before")
    own_kafka.restart()
    _produce(own_kafka, "events", b"between")
    own_kafka.restart(kill=True)
    assert own_kafka.bootstrap == address
    assert _values(own_kafka, "events", 2) == [b"before", b"between"]


def test_tests_do_not_share_a_redis_database(redis_server: Redis, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as mine, redis.Redis.from_url(redis_server.url) as other:
        assert mine.dbsize() == 0
        mine.set("key", "value")
        assert other.get("key") is None


def test_a_missing_program_says_what_to_install() -> None:
    with pytest.raises(MissingProgramError, match=r"apt-get install openjdk-17-jre-headless"):
        program("no-such-java", "openjdk-17-jre-headless")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_servers_go_with_the_run_however_it_ends(tmp_path: Path, how: signal.Signals) -> None:
    test = tmp_path / "test_waits.py"
    test.write_text(
        "import signal\n"
        "pytest_plugins = ['tests.servers.fixtures']\n"
        "def test_waits(kafka_server, redis_server, capfd):\n"
        "    with capfd.disabled():\n"
        "        print('pids', kafka_server.pid, redis_server._server.pid, flush=True)\n"
        "    signal.pause()\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_INFER_TEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [*command, "-c", os.devnull, f"--rootdir={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment, "PYTHONPATH": str(root)},
    ) as run:
        assert run.stdout is not None
        line = next(line for line in run.stdout if "pids" in line)
        servers = [psutil.Process(int(pid)) for pid in line.split("pids")[1].split()]
        run.send_signal(how)
        run.stdout.read()
    assert wait_until(lambda: not any(s.is_running() for s in servers), timeout_s=30)
