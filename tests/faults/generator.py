"""The producer of a scenario, a process of its own: `python -m tests.faults.generator`.

Paced by the clock, idempotent, patient with a broker that is away; SIGTERM lets it send no more.
Its last line says how many records were acknowledged. The header `sent-ms` has the wall
clock of each record.
"""

import argparse
import json
import signal
import sys
import time
from threading import Event

from confluent_kafka import Producer

from tests.faults.events import Rates, events


def main() -> int:
    """Produce; 0 once all records are acknowledged."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="records a second")
    for name, default in Rates()._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=default)
    options = parser.parse_args()
    rates = Rates(**{name: getattr(options, name) for name in Rates._fields})
    acknowledged = sent = 0
    stopping = Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    def delivered(error: object, _: object) -> None:
        nonlocal acknowledged
        assert error is None, error
        acknowledged += 1

    producer = Producer(
        {
            "bootstrap.servers": options.broker,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "message.timeout.ms": 600_000,
            "linger.ms": 2,
            "reconnect.backoff.max.ms": 200,
            "log_level": 0,
        }
    )
    start_s = time.monotonic()
    for number, made in enumerate(events(options.seed, options.count, rates)):
        if stopping.is_set():
            break
        while (ahead_s := number / options.rate - (time.monotonic() - start_s)) > 0:
            producer.poll(min(ahead_s, 0.05))
        producer.produce(
            options.topic,
            key=made.key,
            value=made.value,
            timestamp=made.timestamp_ms,
            headers=[("sent-ms", str(time.time_ns() // 1_000_000).encode())],
            on_delivery=delivered,
        )
        sent += 1
        producer.poll(0)
    while producer.flush(1.0):
        pass
    print(json.dumps({"sent": acknowledged}), flush=True)
    return 0 if acknowledged == sent else 1


if __name__ == "__main__":
    sys.exit(main())
