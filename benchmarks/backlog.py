"""Events that lie in Kafka before anybody reads them, and how far a worker is through them."""

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.generator import SECOND_US, Keys, payments
from benchmarks.place import PARTITIONS, Place
from tests.servers.offsets import committed_offsets

RATE_PER_S = 10_000
"""How fast the backlog's events happened: by their own times they end when it was made."""


def numbers_of(keys: Keys, warm_up: int, events: int, seed: int) -> npt.NDArray[np.int64]:
    """Accounts of a backlog: each account once, then `warm_up + events` drawn ones."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(keys.count), keys.sample(random, warm_up + events)])


def produce(place: Place, topic: str, numbers: npt.NDArray[np.int64], seed: int) -> None:
    """Put a payment for each number into a topic; return once all are there."""
    producer = Producer(
        {
            "bootstrap.servers": place.kafka.bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 500_000,
            "queue.buffering.max.messages": 200_000,
            "log_level": 0,
        }
    )
    n = len(numbers)
    times_us = time.time_ns() // 1000 - (n - np.arange(n)) * (SECOND_US // RATE_PER_S)
    for number, (key, value) in enumerate(payments(numbers, times_us, seed)):
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.01)
        if number % 1_000 == 0:
            producer.poll(0)
    while producer.flush(1.0):
        pass


class Progress:
    """Reads how far the group of a topology has committed."""

    def __init__(self, place: Place, name: str, topic: str) -> None:
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._consumer = Consumer(
            {
                "bootstrap.servers": place.kafka.bootstrap,
                "group.id": f"stream-infer.{name}",
                "enable.auto.commit": False,
            }
        )

    def committed(self) -> int:
        """Events below the committed offsets, over all partitions."""
        found = committed_offsets(self._consumer, self._partitions)
        return sum(max(0, partition.offset) for partition in found)

    def watch(self, until: int, interval_s: float = 0.04) -> Iterator[int]:
        """Yield each new position until it reaches `until`; the caller limits the time."""
        last = -1
        while last < until:
            position = self.committed()
            if position != last:
                last = position
                yield position
            else:
                yield -1
            time.sleep(interval_s)

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()
