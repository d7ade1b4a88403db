"""An open-loop producer, a process of its own: `python -m benchmarks.sender`.

Event n is due at start + n / rate, and carries that moment as its time, so that whoever sees its
effect knows how long it took since it was due: a producer that falls behind hides nothing. It
prints "ready" half a second before the first is due, and at last one JSON object: how many were
sent, and how far behind its schedule it was.

What loads a service must not be what is measured on the cores they share: all requests are made
before the first event is due, whole, one for all partitions of a broker, and only written then. A
client library in its place took a third of a core at 30,000 events/s.
"""

import argparse
import gc
import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from confluent_kafka.admin import AdminClient

from benchmarks.generator import CHUNK, SECOND_US, Draw, Keys, payments
from stream_infer.stream.partitioning import Partitioner

READY_US = SECOND_US // 2
"""How long before the first event is due the sender says that it is ready."""
GATHERS_ABOVE_PER_S = 5_000
"""Above this rate the producer gathers for 1 ms; below, it sends each event at once."""
GATHERED_US = 1_000
ANSWER_MAX_S = 30.0
_ACKS, _TIMEOUT_MS, _SIZE_BYTES, _BATCH_BYTES_MAX = -1, 30_000, 4, 1 << 20

Events = Sequence[tuple[bytes, bytes]]
Leaders = Mapping[int, tuple[str, int]]
"""By partition, where its leader listens."""


@dataclass(frozen=True)
class Request:
    """What is written at one moment to one broker."""

    due_us: int
    leader: tuple[str, int]
    data: bytes


class Connection:
    """To one broker; answers are looked at as they come."""

    def __init__(self, leader: tuple[str, int]) -> None:
        self._socket = socket.create_connection(leader, timeout=ANSWER_MAX_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(None)  # With one, even what must not wait would.
        self._unread = b""
        self._waiting = 0

    def send(self, data: bytes) -> None:
        """Write a request."""
        self._socket.sendall(data)
        self._waiting += 1

    def hear(self) -> None:
        """Read what has arrived, if anything. Raises RuntimeError where an event was refused."""
        try:
            self._read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return

    def hear_all(self) -> None:
        """Wait for the last answer. Raises RuntimeError for a refused event, or TimeoutError."""
        self._socket.settimeout(ANSWER_MAX_S)
        while self._waiting:
            self._read()

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def _read(self, flags: int = 0) -> None:
        found = self._socket.recv(1 << 16, flags)
        if not found:
            raise RuntimeError("the broker closed the connection")
        data = self._unread + found
        while len(data) >= (end := _SIZE_BYTES + int.from_bytes(data[:_SIZE_BYTES], "big")):
            answer = ProduceResponse_v7.decode(data[2 * _SIZE_BYTES : end])
            errors = {part[1] for _, parts in answer.topics for part in parts} - {0}
            if errors:
                raise RuntimeError(f"events were refused with Kafka's errors {sorted(errors)}")
            self._waiting -= 1
            data = data[end:]
        self._unread = data


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
    leaders = leaders_of(options.broker, options.topic)
    gc.disable()
    start_us, requests = scheduled(numbers, options.rate, options.seed, options.topic, leaders)
    connections = {leader: Connection(leader) for leader in set(leaders.values())}
    behind_us = np.zeros(len(requests), np.int64)
    time.sleep(max(0, start_us - READY_US - now_us()) / SECOND_US)
    print("ready", flush=True)
    for number, request in enumerate(requests):
        while (ahead_us := request.due_us - now_us()) > 0:
            time.sleep(ahead_us / SECOND_US)
        behind_us[number] = -ahead_us
        connection = connections[request.leader]
        connection.send(request.data)
        connection.hear()
    for connection in connections.values():
        connection.hear_all()
        connection.close()
    behind_ms = float(np.percentile(behind_us, 99)) / 1e3
    print(json.dumps({"sent": count, "start_us": start_us, "behind_p99_ms": behind_ms}))
    return 0


def leaders_of(broker: str, topic: str) -> Leaders:
    """Ask where the leaders of a topic's partitions listen."""
    known = AdminClient({"bootstrap.servers": broker}).list_topics(topic, timeout=30)
    nodes = {number: (node.host, node.port) for number, node in known.brokers.items()}
    return {n: nodes[found.leader] for n, found in sorted(known.topics[topic].partitions.items())}


def scheduled(
    numbers: npt.NDArray[np.int64], rate: float, seed: int, topic: str, leaders: Leaders
) -> tuple[int, list[Request]]:
    """Make all requests, in the order in which they are due, before the first event is due.

    Returns when that one is due, in µs, and the requests.
    """
    after_us = (np.arange(len(numbers)) * (SECOND_US / rate)).astype(np.int64)
    gathered_us = GATHERED_US if rate > GATHERS_ABOVE_PER_S else 0

    def made(some: npt.NDArray[np.int64], due_us: npt.NDArray[np.int64]) -> list[Request]:
        return list(
            requests_for(list(payments(some, due_us, seed)), due_us, gathered_us, topic, leaders)
        )

    begun_us = now_us()
    made(numbers[:CHUNK], begun_us + after_us[:CHUNK])
    each_us = (now_us() - begun_us) / max(len(numbers[:CHUNK]), 1)
    while True:
        start_us = now_us() + 2 * READY_US + int(1.5 * each_us * len(numbers))
        requests = made(numbers, start_us + after_us)
        if now_us() <= start_us - READY_US:
            return start_us, requests
        each_us *= 2


def requests_for(
    events: Events,
    due_us: npt.NDArray[np.int64],
    gathered_us: int,
    topic: str,
    leaders: Leaders,
) -> Iterator[Request]:
    """Yield requests for events that are due at these moments, in µs since the epoch.

    Those due within `gathered_us` after one that was the first to wait go together, at its end.
    """
    places = (Partitioner().hashes([key for key, _ in events]) % len(leaders)).tolist()
    nodes = sorted(set(leaders.values()))
    times_ms = (due_us // 1_000).tolist()
    at = 0
    while at < len(events):
        sent_us = int(due_us[at]) + gathered_us
        end = max(at + 1, int(np.searchsorted(due_us, sent_us)))
        own: dict[int, list[int]] = {}
        for number in range(at, end):
            own.setdefault(places[number], []).append(number)
        for leader in nodes:
            parts = [
                (place, record_batch([(times_ms[n], *events[n]) for n in together]))
                for place, together in own.items()
                if leaders[place] == leader
            ]
            if parts:
                yield Request(sent_us, leader, produce_request(topic, parts))
        at = end


def record_batch(records: Sequence[tuple[int, bytes, bytes]]) -> bytes:
    """Return the bytes of a record batch of these times in ms, keys and values."""
    batch = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, _BATCH_BYTES_MAX)
    for offset, (time_ms, key, value) in enumerate(records):
        batch.append(offset, time_ms, key, value, [])
    return bytes(batch.build())


def produce_request(topic: str, parts: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the bytes of a request for record batches, by partition."""
    request = ProduceRequest_v7(None, _ACKS, _TIMEOUT_MS, [(topic, list(parts))])
    data: bytes = request.build_request_header(0, "benchmark").encode() + request.encode()
    return len(data).to_bytes(_SIZE_BYTES, "big") + data


def now_us() -> int:
    """The wall clock in µs."""
    return time.time_ns() // 1000


if __name__ == "__main__":
    sys.exit(main())
