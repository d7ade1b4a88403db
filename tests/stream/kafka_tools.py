"""Producing, reading and waiting, for tests of the stream side on a real Kafka."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from stream_infer.stream.app import StreamApp, build_app
from stream_infer.stream.processing import TP, Processor
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.topics import TopicSpec
from tests.servers.offsets import committed_offsets

PARTITIONS = 4
Result = tuple[str, int, int, str]
"""Topic, partition and offset of a source record, and its value."""


def stream_settings(bootstrap: str, **changes: Any) -> StreamSettings:
    """Settings with short times."""
    quick: dict[str, Any] = {
        "broker": bootstrap,
        "commit_interval_s": 0.05,
        "flush_interval_s": 0.02,
        "session_timeout_s": 6.0,
        "heartbeat_interval_s": 0.3,
        "retry_delay_min_s": 0.02,
        "retry_delay_max_s": 0.2,
        "drain_timeout_s": 5.0,
    }
    return StreamSettings(**{**quick, **changes})


def echo_app(
    settings: StreamSettings, source: str, output: str, processor: Processor, group: str
) -> StreamApp:
    """An app that answers what is in `source` with records in `output`."""
    return build_app(
        group,
        source_topics=[TopicSpec(name=source, partitions=PARTITIONS)],
        other_topics=[TopicSpec(name=output, partitions=PARTITIONS)],
        processor_factory=lambda counts: processor,
        settings=settings,
    )


@asynccontextmanager
async def running(*apps: StreamApp) -> AsyncIterator[None]:
    """Start apps, and stop those that still run."""
    try:
        async with asyncio.timeout(30):
            for app in apps:
                await app.start()
        yield
    finally:
        for app in apps:
            await app.stop()


@cache
def ordered_producer(bootstrap: str) -> Producer:
    """Return the producer that places keys as ours does, and keeps each partition's order.

    A batch that is sent again, as is common while a topic is new, would land after those that
    followed it meanwhile, were it not for idempotence. Such a producer takes half a second to
    begin, so all tests share one.
    """
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "log_level": 0,
        }
    )


def produce(bootstrap: str, topic: str, values: Iterable[str], keys: int = 50) -> int:
    """Produce values under a few keys, placed as our own producer would; return how many."""
    producer = ordered_producer(bootstrap)
    count = 0
    for count, value in enumerate(values, 1):
        producer.produce(topic, key=f"key-{count % keys}".encode(), value=value.encode())
        if count % 1000 == 0:
            producer.poll(0)
    producer.flush()
    return count


class Reader:
    """Reads a topic from its beginning, as far as it is written when asked."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False}
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        self._topic = topic
        self._next = dict.fromkeys(range(PARTITIONS), 0)
        self.by_partition: dict[int, list[Any]] = {number: [] for number in range(PARTITIONS)}
        self.messages: list[Any] = []

    def read(self, enough: int = 1 << 62) -> int:
        """Read what is there, or until `enough` is read in all; return how many were."""
        deadline_s = time.monotonic() + 30.0
        ends = {
            number: self._consumer.get_watermark_offsets(TopicPartition(self._topic, number))[1]
            for number in range(PARTITIONS)
        }
        while len(self.messages) < enough and any(
            self._next[number] < end for number, end in ends.items()
        ):
            assert time.monotonic() < deadline_s, f"read up to {self._next} of {ends}"
            for message in self._consumer.consume(500, 0.1):
                assert message.error() is None, message.error()
                self._next[message.partition()] = message.offset() + 1
                self.messages.append(message)
                if message.value() is not None:
                    value = json.loads(message.value())
                    self.by_partition[message.partition()].append(value)
        return len(self.messages)

    def results(self) -> list[Result]:
        """All results read so far."""
        return [tuple(found) for part in self.by_partition.values() for found in part]

    def close(self) -> None:
        self._consumer.close()


def committed(bootstrap: str, group: str, topic: str) -> dict[TP, int]:
    """Committed offsets of a group; partitions without one are left out."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        wanted = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        offsets = committed_offsets(consumer, wanted)
        return {TP(o.topic, o.partition): o.offset for o in offsets if o.offset >= 0}
    finally:
        consumer.close()


def limit_topic(broker: str, topic: str, size_bytes: int) -> None:
    """Set how large a topic's record batches may be."""
    entry = ConfigEntry(
        "max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


def ends(bootstrap: str, topic: str) -> dict[TP, int]:
    """The end of each partition's log."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
    try:
        return {
            TP(topic, number): consumer.get_watermark_offsets(TopicPartition(topic, number))[1]
            for number in range(PARTITIONS)
        }
    finally:
        consumer.close()


async def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until the condition holds; fails after the timeout."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:.0f} s"
        await asyncio.sleep(0.01)
