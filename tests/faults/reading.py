"""Reading whole topics and all stored rows, as they are now."""

import time
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from stream_infer.store.connection import connect_blocking
from tests.servers.offsets import committed_offsets

PARTITIONS = 4
ATTEMPTS = 5
TRANSACTIONS_MAX_S = 120.0
"""How long transactions that are open, or whose end is being written, may keep readers waiting."""


def _consumer(broker: str, group: str = "verifier", isolation: str = "read_committed") -> Any:
    return Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "reconnect.backoff.max.ms": 200,
            "log_level": 0,
        }
    )


def read_topic(broker: str, topic: str) -> list[Any]:
    """Return all committed messages of a topic, in the order of each partition."""
    ends = log_ends(broker, topic)
    deadline_s = time.monotonic() + TRANSACTIONS_MAX_S
    consumer = _consumer(broker)
    try:
        parts = [TopicPartition(topic, number, 0) for number, end in ends.items() if end]
        unread = {part.partition for part in parts}
        consumer.assign(parts)
        found: list[Any] = []
        while unread:
            assert time.monotonic() < deadline_s, f"{topic}: partitions {unread} cannot be read"
            for message in consumer.consume(1_000, 0.1):
                assert message.error() is None, message.error()
                deadline_s = time.monotonic() + TRANSACTIONS_MAX_S
                if message.offset() < ends[message.partition()]:
                    found.append(message)
            places = consumer.position([p for p in parts if p.partition in unread])
            unread -= {p.partition for p in places if p.offset >= ends[p.partition]}
        return found
    finally:
        consumer.close()


def log_ends(broker: str, topic: str) -> dict[int, int]:
    """Return the end of each partition's log; a broker that has just gone is asked again.

    The end of all that was written: Kafka acknowledges a commit before readers of committed
    records see it, so what they see may still be without the last transaction.
    """
    for _ in range(ATTEMPTS):
        try:
            return _log_ends(broker, topic)
        except KafkaException:
            continue
    return _log_ends(broker, topic)


def _log_ends(broker: str, topic: str) -> dict[int, int]:
    consumer = _consumer(broker, isolation="read_uncommitted")
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1]
            for number in range(PARTITIONS)
        }
    finally:
        consumer.close()


def committed(broker: str, group: str, topic: str) -> dict[int, int]:
    """Return the committed offset of each partition, 0 where there is none."""
    consumer = _consumer(broker, group)
    try:
        wanted = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        found = committed_offsets(consumer, wanted)
        return {part.partition: max(part.offset, 0) for part in found}
    finally:
        consumer.close()


def stored_offsets(url: str, topology: str) -> dict[int, int]:
    """Return up to which offset each partition's stored rows are folded."""
    with connect_blocking(url) as redis:
        return {
            number: int(redis.hget(f"si:{{{topology}:{number}}}:meta", "next_offset") or 0)
            for number in range(PARTITIONS)
        }


def stored_rows(url: str, topology: str) -> dict[str, Any]:
    """Return all that is stored of a topology, by what follows its name in the key."""
    found: dict[str, Any] = {}
    with connect_blocking(url) as redis, redis.pipeline(transaction=False) as pipeline:
        keys = list(redis.scan_iter(f"si:{{{topology}:*", count=1_000))
        texts = [key for key in keys if not key.endswith(b"}:meta")]
        for key in texts:
            pipeline.get(key)
        values = pipeline.execute()
        for key, value in zip(texts, values, strict=True):
            found[key.decode().removeprefix(f"si:{{{topology}:")] = value
        for key in set(keys) - set(texts):
            fields = redis.hgetall(key)
            fields.pop(b"epoch", None)
            found[key.decode().removeprefix(f"si:{{{topology}:")] = fields
    return found
