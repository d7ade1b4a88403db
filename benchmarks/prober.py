"""Sends one payment at a time and asks over HTTP until its effect shows: `benchmarks.prober`.

The effect is another score for the same question: the payment is in the account's windows. A
process of its own; prints one JSON object with the milliseconds that each took.
"""

import argparse
import gc
import json
import sys
import time

import msgspec
import numpy as np
from confluent_kafka import Producer

from benchmarks.generator import SECOND_US, payments
from benchmarks.wire import ask, connect, predict_requests

PAUSE_S = 0.001
VISIBLE_MAX_S = 20.0


class Scored(msgspec.Struct):
    """The part of an answer that is of interest."""

    score: float


def main() -> int:
    """Probe until the time is over; each probe takes an account of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--topology", required=True)
    parser.add_argument("--first", type=int, required=True, help="number of the first account")
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    producer = Producer(
        {
            "bootstrap.servers": options.broker,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 0,
            "log_level": 0,
        }
    )
    producer.list_topics(options.topic, timeout=30)
    decode = msgspec.json.Decoder(Scored).decode
    took_ms: list[float] = []
    gc.disable()
    end_s = time.monotonic() + options.seconds
    with connect(options.port) as connection:
        for account in range(options.first, options.first + options.accounts):
            if time.monotonic() > end_s:
                break
            now_us = time.time_ns() // 1000
            # Asked as of a second later, so that the payment is before it.
            (question,) = predict_requests(options.topology, [account], now_us + SECOND_US)
            ((key, value),) = payments(np.array([account]), np.array([now_us]), seed=account)
            before = decode(ask(connection, question)[1]).score
            sent_s = time.perf_counter()
            producer.produce(options.topic, value, key)
            producer.poll(0)
            while decode(ask(connection, question)[1]).score == before:
                if time.perf_counter() - sent_s > VISIBLE_MAX_S:
                    print(f"account {account}: no effect in {VISIBLE_MAX_S:g} s", file=sys.stderr)
                    return 1
                time.sleep(PAUSE_S)
            took_ms.append((time.perf_counter() - sent_s) * 1e3)
    producer.flush(10)
    print(json.dumps({"took_ms": took_ms}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
