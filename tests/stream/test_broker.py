"""The embedded broker does what the worker needs of a broker, and leaves nothing behind."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_infer.core.errors import StreamInferError
from stream_infer.processes import wait_until
from stream_infer.stream.broker import BrokerProcess, EmbeddedBroker


async def _produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(topic, value) for value in values])
    finally:
        await producer.stop()


async def _consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """The next `count` records of `topic` for one group, which then commits."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id="readers",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    values: list[bytes] = []
    try:
        async with asyncio.timeout(20):
            while len(values) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    values += [record.value for record in records]
        await consumer.commit()
    finally:
        await consumer.stop()
    return values


async def _committed(bootstrap: str, topic: str) -> int:
    """How many records of `topic` the group has committed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id="readers")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(4)]
        return sum([await consumer.committed(partition) or 0 for partition in partitions])
    finally:
        await consumer.stop()


async def test_what_an_idempotent_producer_sends_a_group_reads_once() -> None:
    sent = [b"event %d" % number for number in range(200)]
    with EmbeddedBroker({"events": 4}) as broker:
        await _produce(broker.bootstrap, "events", sent)
        assert sorted(await _consume(broker.bootstrap, "events", 200)) == sorted(sent)
        assert await _committed(broker.bootstrap, "events") == 200


async def test_a_transaction_reaches_readers_of_committed_records_whole() -> None:
    with EmbeddedBroker({"results": 1}) as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="worker-0")
        await producer.start()
        async with producer.transaction():
            await asyncio.gather(*[await producer.send("results", b"%d" % n) for n in range(3)])
        await producer.stop()
        assert await _consume(broker.bootstrap, "results", 3) == [b"0", b"1", b"2"]


async def test_topics_have_the_partitions_asked_for_and_others_four() -> None:
    with EmbeddedBroker({"wide": 10}) as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await producer.start()
        await producer.send_and_wait("unnamed", b"first use")
        assert len(await producer.partitions_for("wide")) == 10
        assert len(await producer.partitions_for("unnamed")) == 4
        await producer.stop()


def test_a_topic_is_created_once() -> None:
    with EmbeddedBroker({"events": 4}) as broker, pytest.raises(StreamInferError, match="'events'"):
        broker.create_topic("events", 8)


def test_it_says_that_it_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), EmbeddedBroker() as broker:
        assert f"embedded broker at {broker.bootstrap}: it keeps nothing" in caplog.text
    with pytest.raises(StreamInferError, match="does not run"):
        broker.bootstrap  # noqa: B018


async def test_a_child_process_serves_and_stops() -> None:
    with BrokerProcess({"events": 3}) as broker:
        await _produce(broker.bootstrap, "events", [b"one"])
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap)
        await consumer.start()
        partitions = [TopicPartition("events", number) for number in range(3)]
        assert sum((await consumer.end_offsets(partitions)).values()) == 1
        await consumer.stop()
        process = psutil.Process(broker._process.pid)
    assert not process.is_running()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_process_ends_with_its_parent(how: signal.Signals) -> None:
    program = (
        "from stream_infer.stream.broker import BrokerProcess\n"
        "import signal\n"
        "broker = BrokerProcess().start()\n"
        "print(broker._process.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(how)
    assert wait_until(lambda: not child.is_running(), timeout_s=10)


def test_it_runs_as_a_program_that_writes_its_address(tmp_path: Path) -> None:
    file = tmp_path / "address"
    command = [sys.executable, "-m", "stream_infer.stream.broker", "--port-file", str(file)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline().strip()
        assert line == f"bootstrap={file.read_text()}"
        process.terminate()
        assert "keeps nothing" in process.stderr.read()
    assert process.returncode == 0
