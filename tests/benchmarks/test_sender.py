"""The open-loop producer: what it sends is made before it is due."""

import socket
import threading
from collections.abc import Sequence
from io import BytesIO

import msgspec
import numpy as np
import pytest
from aiokafka.protocol.api import RequestHeader_v1
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from aiokafka.record.memory_records import MemoryRecords

from benchmarks.generator import CHUNK
from benchmarks.sender import READY_US, Connection, Request, now_us, scheduled
from benchmarks.standard import Payment
from stream_infer.stream.partitioning import Partitioner

LEADERS = {0: ("one", 1), 1: ("two", 2), 2: ("one", 1)}


def records(request: Request) -> dict[int, list[tuple[int, bytes, bytes]]]:
    """Time in ms, key and value of each record that a request brings, by partition."""
    size, data = int.from_bytes(request.data[:4], "big"), BytesIO(request.data[4:])
    assert size == len(request.data) - 4
    RequestHeader_v1.SCHEMA.decode(data)
    ((topic, parts),) = ProduceRequest_v7.decode(data).topics
    assert topic == "t"
    found: dict[int, list[tuple[int, bytes, bytes]]] = {}
    for partition, batches in parts:
        batch = MemoryRecords(batches).next_batch()
        assert batch.validate_crc()
        found[partition] = [(r.timestamp, r.key, r.value) for r in batch]
    return found


def events(requests: Sequence[Request]) -> list[tuple[int, int, bytes, bytes]]:
    """Partition, time in ms, key and value of all records, in the order of their requests."""
    return [
        (partition, *record)
        for request in requests
        for partition, own in records(request).items()
        for record in own
    ]


@pytest.mark.parametrize("count", [0, 1, CHUNK + 500])
def test_all_requests_are_made_before_the_first_is_due(count: int) -> None:
    start_us, requests = scheduled(np.zeros(count, np.int64), 1_000.0, 1, "t", LEADERS)
    assert now_us() < start_us < now_us() + 60 * READY_US
    assert [request.due_us for request in requests] == [start_us + n * 1_000 for n in range(count)]


@pytest.mark.parametrize("rate", [2_000.0, 30_000.0])
def test_each_event_is_sent_once_to_its_partitions_leader_with_the_moment_when_it_is_due(
    rate: float,
) -> None:
    start_us, requests = scheduled(np.arange(200), rate, 1, "t", LEADERS)
    sent = events(requests)
    times = [msgspec.json.decode(value, type=Payment).at for _, _, _, value in sent]
    due_us = start_us + (np.arange(200) * (1e6 / rate)).astype(int)
    assert sorted(round(time.timestamp() * 1e6) for time in times) == due_us.tolist()
    choose = Partitioner().partition
    assert all(partition == choose(key, [0, 1, 2]) for partition, _, key, _ in sent)
    assert all(LEADERS[p] == request.leader for request in requests for p in records(request))
    # Above 5,000 events/s, what is due within a millisecond goes together, at its end.
    latest_us = 1_000 if rate > 5_000 else 0
    for request in requests:
        for own in records(request).values():
            for time_ms, _, value in own:
                due = round(msgspec.json.decode(value, type=Payment).at.timestamp() * 1e6)
                assert time_ms == due // 1000
                assert 0 <= request.due_us - due <= latest_us


@pytest.mark.parametrize("error", [0, 6])
def test_a_refused_event_ends_the_producer(error: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            broker, _ = listening.accept()
            with broker:
                for code in (0, error):
                    body = ProduceResponse_v7([("t", [(0, code, 5, -1, 0)])], 0).encode()
                    data = bytes(4) + body
                    broker.sendall(len(data).to_bytes(4, "big") + data)
                while broker.recv(1 << 16):
                    pass

        answering = threading.Thread(target=answer)
        answering.start()
        connection = Connection(("127.0.0.1", listening.getsockname()[1]))
        try:
            for _ in range(2):
                connection.send(b"request")
            if error:
                with pytest.raises(RuntimeError, match=r"errors \[6\]"):
                    connection.hear_all()
            else:
                connection.hear_all()
        finally:
            connection.close()
        answering.join()


def test_the_next_request_does_not_wait_for_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection(("127.0.0.1", silent.getsockname()[1]))
        connection.send(b"request")
        connection.hear()
        connection.send(b"request")
        connection.close()
