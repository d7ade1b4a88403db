"""The floor of a latency: the same producer and the same kind of reader, with no worker between."""

import time
import uuid

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.open_loop import finished, percentiles, receive, send, settle
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, Place
from benchmarks.processes import BenchmarkError

WARM_UP_MAX_S = 0.5
"""There is no worker to warm, and the broker is warm."""
STATED = ("p50", "p99")
VALUE = b"x" * 160
WARM_MAX_S = 60.0


def one_run(place: Place, rate: int, options: Options) -> dict[str, tuple[float, str]]:
    """From when an event is due to when the event itself is readable, at one rate."""
    topic = f"alone_{uuid.uuid4().hex[:8]}"
    warm_up_s = min(options.warm_up_s, WARM_UP_MAX_S)
    place.create({topic: PARTITIONS})
    output = place.folder / f"{topic}.npy"
    receiver = sender = None
    try:
        receiver = receive(place, topic, output, field="at")
        sender = send(place, topic, rate, warm_up_s + options.seconds)
        said = finished(sender)
        settle(place, topic, said["sent"])
        receiver.stop()
    finally:
        for helper in (receiver, sender):
            if helper is not None:
                helper.kill()
        place.kafka.delete_topics([topic])
    times = np.load(output)
    if len(times) < said["sent"]:
        raise BenchmarkError(f"{said['sent'] - len(times)} of {said['sent']} events never came")
    measured = times[times[:, 0] >= said["start_us"] + warm_up_s * 1e6]
    found = percentiles(measured[:, 1] - measured[:, 0])
    return {f"{name}, Kafka alone": found[name] for name in STATED}


def warm(place: Place, records: int) -> None:
    """Let a broker that has just started take and give records, until its code is compiled."""
    topic = f"warm_{uuid.uuid4().hex[:8]}"
    place.create({topic: PARTITIONS})
    common = {"bootstrap.servers": place.kafka.bootstrap, "log_level": 0}
    producer = Producer(
        {
            **common,
            "enable.idempotence": True,
            "linger.ms": 0,
            "queue.buffering.max.messages": max(records, 1),
        }
    )
    consumer = Consumer(
        {**common, "group.id": "unused", "enable.auto.commit": False, "fetch.wait.max.ms": 100}
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    seen = 0
    try:
        for number in range(records):
            producer.produce(topic, VALUE, partition=number % PARTITIONS)
            # Few at a time: what makes the broker warm is requests.
            if number % 50 == 0:
                producer.poll(0)
                seen += len(consumer.consume(1_000, 0))
        while producer.flush(1.0):
            pass
        deadline_s = time.monotonic() + WARM_MAX_S
        while seen < records and time.monotonic() < deadline_s:
            seen += len(consumer.consume(1_000, 0.1))
    finally:
        consumer.close()
        place.kafka.delete_topics([topic])
    if seen < records:
        raise BenchmarkError(f"Kafka gave {seen:,} of {records:,} records back")
