"""Committed offsets of a consumer's group, also from a broker that has just started."""

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

COORDINATOR_MAX_S = 30.0
"""How long a broker that has just started may not know who coordinates a group."""
PAUSE_S = 0.05
_NOT_YET = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._WAIT_COORD,
)


def committed_offsets(
    consumer: Consumer, partitions: Sequence[TopicPartition]
) -> list[TopicPartition]:
    """Return the partitions with the offsets that are committed, below 0 where there is none."""
    deadline_s = time.monotonic() + COORDINATOR_MAX_S
    while True:
        try:
            found: list[TopicPartition] = consumer.committed(list(partitions), timeout=30)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline_s:
                raise
            time.sleep(PAUSE_S)
        else:
            return found
