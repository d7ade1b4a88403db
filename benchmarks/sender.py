"""An open-loop producer, a process of its own: `python -m benchmarks.sender`.

Event n is due at start + n / rate, and carries that moment as its time, so that whoever sees its
effect knows how long it took since it was due: a producer that falls behind hides nothing. All
events are made before the first is due. It prints "ready" half a second before that, and at last
one JSON object: how many were sent, and how far behind its schedule it was.
"""

import argparse
import gc
import json
import sys
import time
from typing import get_args

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from benchmarks.generator import CHUNK, SECOND_US, Draw, Keys, payments

SLEEP_MIN_S = 0.0001
TURN_S = 0.0005
"""A producer that gathers sends, each turn, what was due since the last one: one that looked at the
clock for each event would have a core to itself."""
READY_US = SECOND_US // 2
"""How long before the first event is due the sender says that it is ready."""
GATHERS_ABOVE_PER_S = 5_000
"""Above this rate the producer gathers for 1 ms; below, it sends each event at once."""


def main() -> int:
    """Send; 0 once all is acknowledged."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--draw", choices=get_args(Draw), default="uniform")
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count = int(options.rate * options.seconds)
    random = np.random.default_rng(options.seed)
    numbers = Keys(options.keys, options.draw).sample(random, count)
    gathers = options.rate > GATHERS_ABOVE_PER_S
    lost = 0

    def delivered(error: object, _: object) -> None:
        nonlocal lost
        lost += error is not None

    producer = Producer(
        {
            "bootstrap.servers": options.broker,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 1 if gathers else 0,
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 0,
        }
    )
    producer.list_topics(options.topic, timeout=30)
    gc.disable()
    start_us, due_us, events = scheduled(numbers, options.rate, options.seed)
    behind_us = np.zeros(count, np.int64)
    time.sleep(max(0, start_us - READY_US - now_us()) / SECOND_US)
    print("ready", flush=True)
    for number, (key, value) in enumerate(events):
        due = int(due_us[number])
        while (ahead_s := (due - now_us()) / SECOND_US) > 0:
            if gathers:
                time.sleep(TURN_S)
            elif ahead_s > SLEEP_MIN_S:
                time.sleep(ahead_s)
        behind_us[number] = now_us() - due
        producer.produce(options.topic, value, key, on_delivery=delivered)
        if number % 16 == 0:
            producer.poll(0)
    while producer.flush(1.0):
        pass
    behind_ms = float(np.percentile(behind_us, 99)) / 1e3
    print(json.dumps({"sent": count - lost, "start_us": start_us, "behind_p99_ms": behind_ms}))
    return 1 if lost else 0


def scheduled(
    numbers: npt.NDArray[np.int64], rate: float, seed: int
) -> tuple[int, npt.NDArray[np.int64], list[tuple[bytes, bytes]]]:
    """Make all events, each with the moment when it is due, before the first one is due.

    Returns the first moment, int64[n] moments in µs, and keys with values.
    """
    after_us = (np.arange(len(numbers)) * (SECOND_US / rate)).astype(np.int64)
    begun_us = now_us()
    some = sum(1 for _ in payments(numbers[:CHUNK], begun_us + after_us[:CHUNK], seed))
    each_us = (now_us() - begun_us) / max(some, 1)
    while True:
        start_us = now_us() + 2 * READY_US + int(1.5 * each_us * len(numbers))
        events = list(payments(numbers, start_us + after_us, seed))
        if now_us() <= start_us - READY_US:
            return start_us, start_us + after_us, events
        each_us *= 2


def now_us() -> int:
    """The wall clock in µs."""
    return time.time_ns() // 1000


if __name__ == "__main__":
    sys.exit(main())
