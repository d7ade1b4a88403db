"""Whether a peer computes what we do: its first scores beside ours, of the same events."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from benchmarks.batch_features import values_of
from benchmarks.models import graphs
from benchmarks.place import PARTITIONS, Place, vector_names

WEIGHTS = {"trees": 0.6, "mlp": 0.3, "linear": 0.1}
"""As in the standard job's topology."""

Scores = Mapping[tuple[str, datetime], float]


class _Result(msgspec.Struct):
    """The part of a result that is compared; ours names the key `key`, peers `account`."""

    event_time: datetime
    score: float
    key: str = ""
    account: str = ""


def first_scores(place: Place, topic: str, each: int, wait_max_s: float) -> Scores:
    """The scores of the first `each` results of every partition, by account and event time.

    After `wait_max_s` what there is.
    """
    consumer = Consumer(
        {"bootstrap.servers": place.kafka.bootstrap, "group.id": "unused", "log_level": 0}
    )
    decode = msgspec.json.Decoder(_Result).decode
    found: dict[tuple[str, datetime], float] = {}
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        seen = [0] * PARTITIONS
        deadline_s = time.monotonic() + wait_max_s
        while min(seen) < each and time.monotonic() < deadline_s:
            for message in consumer.consume(500, 0.1):
                number, value = message.partition(), message.value()
                if value is None or number is None or seen[number] >= each:
                    continue
                seen[number] += 1
                result = decode(value)
                found.setdefault((result.key or result.account, result.event_time), result.score)
    finally:
        consumer.close()
    return found


def difference(ours: Scores, theirs: Scores) -> tuple[int, float]:
    """How many events both have scored, and the greatest difference."""
    both = ours.keys() & theirs.keys()
    return len(both), max((abs(ours[key] - theirs[key]) for key in both), default=float("nan"))


def without_history(place: Place, account: int, payment: Mapping[str, Any]) -> float:
    """The score of a payment with batch features only: streaming features are 0."""
    import onnxruntime  # Late: it takes a third of a second, and only this needs it.

    row = [payment["amount"], payment["items"], 0, 0, 0, 0, *values_of(account, account + 1)[0]]
    inputs = {"features": np.array([row], np.float32)}
    scores = {
        name: onnxruntime.InferenceSession(content).run(None, inputs)[0][0, 0]
        for name, content in graphs(vector_names(place.plan(0))).items()
    }
    return float(sum(weight * scores[name] for name, weight in WEIGHTS.items()))
