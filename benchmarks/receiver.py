"""Reads results as they come, a process of its own: `python -m benchmarks.receiver`.

Prints "ready" once it reads from the end of the topic, ends with SIGTERM, and leaves a file of
int64[n, 2]: when each result's event was due, and when the result was readable, in µs.
"""

import argparse
import gc
import signal
import sys
import time
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

TOGETHER_MAX = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def main() -> int:
    """Receive until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--field", default="event_time", help="which says when it was due")
    options = parser.parse_args()
    stopping = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    consumer = Consumer(
        {
            "bootstrap.servers": options.broker,
            "group.id": "unused",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    partitions = consumer.list_topics(options.topic, timeout=30).topics[options.topic].partitions
    ends = [TopicPartition(options.topic, number) for number in partitions]
    for partition in ends:
        partition.offset = consumer.get_watermark_offsets(partition, timeout=30)[1]
        assert partition.offset != OFFSET_END
    consumer.assign(ends)
    timed = msgspec.defstruct("Timed", [("due", datetime)], rename={"due": options.field})
    decode: Any = msgspec.json.Decoder(timed).decode
    seen: list[tuple[int, int]] = []
    gc.disable()
    print("ready", flush=True)
    while not stopping:
        first = consumer.poll(0.1)
        if first is None or first.error():
            continue
        # Those that are here already: asking for more would wait for them.
        messages = [first, *consumer.consume(TOGETHER_MAX, 0)]
        now_us = time.time_ns() // 1000
        for message in messages:
            value = message.value()
            if value is not None:
                since = decode(value).due - _EPOCH
                due_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
                seen.append((due_us, now_us))
    np.save(options.output, np.array(seen, np.int64).reshape(-1, 2))
    consumer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
