"""The result producer on a real Kafka: order and completeness over refusals and failures."""

import asyncio
import json
import time
from typing import Any

import pytest

from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.processing import OutgoingRecord
from stream_infer.stream.producer import ResultProducer
from tests.servers.kafka import Kafka
from tests.stream.kafka_tools import (
    PARTITIONS,
    Reader,
    eventually,
    limit_topic,
    stream_settings,
)

pytestmark = pytest.mark.kafka


def outgoing(topic: str, first: int, count: int, size: int = 10) -> list[OutgoingRecord]:
    return [
        OutgoingRecord(topic, b"key", json.dumps([number, "x" * size]).encode())
        for number in range(first, first + count)
    ]


async def test_a_limit_lowered_meanwhile_cuts_batches_and_refuses_only_what_is_too_large(
    kafka_server: Kafka, unique: str
) -> None:
    kafka_server.create_topics({unique: PARTITIONS})
    counters = StreamCounters()
    producer = ResultProducer(stream_settings(kafka_server.bootstrap), counters)
    await producer.start()
    await producer.settle(await producer.submit(outgoing(unique, 0, 10)))
    limit_topic(kafka_server.bootstrap, unique, 3_000)
    large = [OutgoingRecord(unique, b"key", b'["large", "' + b"x" * 5_000 + b'"]')]
    first = await producer.submit([*outgoing(unique, 10, 300), *large])
    second = await producer.submit(outgoing(unique, 310, 300))
    refused = await producer.settle(first)
    assert [error.record for error in refused] == large
    assert await producer.settle(second) == []
    reader = Reader(kafka_server.bootstrap, unique)
    reader.read()
    found = [number for part in reader.by_partition.values() for number, _ in part]
    assert found == list(range(610))
    assert (counters.produced, counters.refused) == (610, 1)
    reader.close()
    await producer.stop()


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_batches_larger_than_one_are_cut_in_order_and_headers_and_nulls_arrive(
    kafka_server: Kafka, unique: str, compression: str | None
) -> None:
    kafka_server.create_topics({unique: PARTITIONS})
    settings = stream_settings(
        kafka_server.bootstrap, result_batch_bytes_max=2_000, compression=compression
    )
    producer = ResultProducer(settings, StreamCounters())
    await producer.start()
    records = outgoing(unique, 0, 200, size=100)
    records.insert(50, OutgoingRecord(unique, b"key", json.dumps([-1, "x" * 9_000]).encode()))
    await producer.settle(await producer.submit(records))
    headers = (("si-reason", b"no body"),)
    last = [OutgoingRecord(unique, None, b"[]", headers), OutgoingRecord(unique, b"key", None)]
    await producer.settle(await producer.submit(last))
    await producer.stop()
    reader = Reader(kafka_server.bootstrap, unique)
    reader.read()
    key_part = [m for m in reader.messages if m.key() == b"key"]
    assert [m.value() for m in key_part] == [record.value for record in [*records, last[1]]]
    assert [m.headers() for m in reader.messages if m.key() is None] == [list(headers)]
    reader.close()


async def test_results_are_on_their_way_before_the_next_work_begins(
    kafka_server: Kafka, unique: str
) -> None:
    """Work that leaves the event loop no turn, as long as it takes to read them all."""
    kafka_server.create_topics({unique: PARTITIONS})
    producer = ResultProducer(stream_settings(kafka_server.bootstrap), StreamCounters())
    await producer.start()
    await producer.settle(await producer.submit(outgoing(unique, 0, 1)))
    reader = Reader(kafka_server.bootstrap, unique)
    delivery = await producer.submit(outgoing(unique, 1, 4))
    deadline_s = time.monotonic() + 10
    while reader.read() < 5:
        assert time.monotonic() < deadline_s, "results wait in this process"
    await producer.settle(delivery)
    reader.close()
    await producer.stop()


class Unanswered:
    """Stands for the producer of a broker that takes its time."""

    def __init__(self) -> None:
        self.queued: list[asyncio.Future[Any]] = []

    async def partitions_for(self, topic: str) -> set[int]:
        return {0}

    def queue(self, *queued: object) -> asyncio.Future[Any]:
        self.queued.append(asyncio.get_running_loop().create_future())
        return self.queued[-1]

    def send_queued(self) -> None: ...


async def test_who_waits_for_long_is_told_for_what(caplog: pytest.LogCaptureFixture) -> None:
    soon = {"heartbeat_interval_s": 0.5, "session_timeout_s": 1.0, "request_timeout_s": 1.0}
    counters = StreamCounters()
    producer = ResultProducer(stream_settings("nowhere:1", **soon), counters)
    producer._producer = unanswered = Unanswered()
    settling = asyncio.create_task(producer.settle(await producer.submit(outgoing("t", 0, 3))))
    await eventually(lambda: "has not accepted results for t partition 0" in caplog.text)
    assert not settling.done()
    unanswered.queued[0].set_result(None)
    assert await settling == []
    assert counters.produced == 3
