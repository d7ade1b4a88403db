"""Apps on a real Kafka: each record once and in order, also over failures and rebalances."""

import asyncio
import contextlib
import threading
from collections import Counter

import pytest

from stream_infer.processes import free_port
from stream_infer.stream.processing import TP
from tests.servers.kafka import Kafka
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import (
    PARTITIONS,
    Reader,
    committed,
    echo_app,
    ends,
    eventually,
    produce,
    running,
    stream_settings,
)

pytestmark = pytest.mark.kafka


@pytest.fixture
def topics(kafka_server: Kafka, unique: str) -> tuple[str, str]:
    """A source topic and a name for its results."""
    kafka_server.create_topics({f"{unique}.in": PARTITIONS, f"{unique}.out": PARTITIONS})
    return f"{unique}.in", f"{unique}.out"


def assert_each_once_in_order(reader: Reader, source_ends: dict[TP, int]) -> None:
    offsets: dict[tuple[str, int], list[int]] = {}
    for topic, partition, offset, _ in reader.results():
        offsets.setdefault((topic, partition), []).append(offset)
    expected = {tuple(tp): list(range(end)) for tp, end in source_ends.items() if end}
    assert offsets == expected


async def test_every_record_is_processed_exactly_once_and_in_order(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    sent = produce(broker, source, (str(n) for n in range(20_000)))
    echo = Echo(output)
    app = echo_app(stream_settings(broker, batch_records_max=700), source, output, echo, unique)
    async with running(app):
        await eventually(lambda: app.counters.produced == sent)
        await eventually(lambda: committed(broker, unique, source) == ends(broker, source))
        assert echo.positions == ends(broker, source)
        await eventually(lambda: app.counters.lag_records == dict.fromkeys(echo.positions, 0))
        assert app.counters.ready
    reader = Reader(broker, output)
    reader.read()
    assert_each_once_in_order(reader, ends(broker, source))
    reader.close()
    assert app.counters.consumed == sent
    assert sorted(echo.revoked) == [TP(source, n) for n in range(PARTITIONS)]
    assert echo.calls[-1] == "revoke"


async def test_stopping_drains_what_is_in_flight_and_commits_it(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    settings = stream_settings(broker, commit_interval_s=60.0, batch_records_max=200)
    echo = Echo(output)
    app = echo_app(settings, source, output, echo, unique)
    async with running(app):
        produce(broker, source, (str(n) for n in range(20_000)))
        await eventually(lambda: app.counters.consumed > 0)
    done = committed(broker, unique, source)
    reader = Reader(broker, output)
    reader.read()
    assert_each_once_in_order(reader, done)
    assert sum(done.values()) == len(echo.processed) > 0
    reader.close()


@pytest.mark.parametrize("position", [3, 12])
async def test_reading_starts_where_the_processor_says(
    kafka_server: Kafka, topics: tuple[str, str], unique: str, position: int
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    produce(broker, source, (str(n) for n in range(400)))
    first = Echo(output)
    async with running(echo_app(stream_settings(broker), source, output, first, unique)):
        await eventually(lambda: len(first.processed) == 400)
    tp = TP(source, 0)
    assert committed(broker, unique, source)[tp] == ends(broker, source)[tp] > 12
    second = Echo(output, start={tp: position})
    app = echo_app(stream_settings(broker), source, output, second, unique)
    async with running(app):
        await eventually(lambda: second.positions.get(tp) == ends(broker, source)[tp])
    assert second.committed_seen == ends(broker, source)
    assert second.processed == [
        (tp, offset) for offset in range(position, ends(broker, source)[tp])
    ]


async def test_a_failing_processor_is_tried_again_and_nothing_is_lost(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    produce(broker, source, (str(n) for n in range(3_000)))
    echo = Echo(output, failures=5)
    settings = stream_settings(broker, waiting_records_max=500, batch_records_max=300)
    app = echo_app(settings, source, output, echo, unique)
    async with running(app):
        await eventually(lambda: app.counters.produced == 3_000)
        assert app.counters.retries >= 5
        assert not app.is_retrying()
    reader = Reader(broker, output)
    reader.read()
    assert_each_once_in_order(reader, ends(broker, source))
    reader.close()


async def test_a_worker_whose_processor_keeps_failing_stops_in_time_and_commits_nothing(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    produce(broker, source, (str(n) for n in range(100)))
    echo = Echo(output, failures=1_000_000)
    app = echo_app(stream_settings(broker), source, output, echo, unique)
    async with running(app):
        await eventually(lambda: app.counters.retries > 2)
        assert app.is_retrying()
        async with asyncio.timeout(8):
            await app.stop()
    assert committed(broker, unique, source) == {}
    assert echo.processed == []


BACKLOG_MAX = 3_000


async def test_rebalances_under_load_lose_nothing_and_keep_the_order_of_each_partition(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    settings = stream_settings(broker, batch_records_max=250)
    echoes = [Echo(output), Echo(output)]
    first, second = (echo_app(settings, source, output, echo, unique) for echo in echoes)
    enough = threading.Event()
    sent = [0]

    def send() -> None:
        while not enough.wait(0.01):
            done = sum(app.counters.consumed for app in (first, second))
            if sent[0] - done < BACKLOG_MAX:  # A slow machine must be able to catch up.
                sent[0] += produce(broker, source, (str(n) for n in range(300)))

    load = threading.Thread(target=send)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(enough.set)
        await stack.enter_async_context(running(first))
        load.start()
        await eventually(lambda: first.counters.consumed > 500)
        async with running(second):
            await eventually(lambda: len(echoes[0].owned) == len(echoes[1].owned) == 2, 60)
            await eventually(lambda: second.counters.consumed > 500, 60)
        await eventually(lambda: len(echoes[0].owned) == PARTITIONS, 60)
        enough.set()
        await asyncio.to_thread(load.join)
        await eventually(lambda: committed(broker, unique, source) == ends(broker, source), 60)
    assert all(echo.not_owned == [] for echo in echoes)
    reader = Reader(broker, output)
    assert reader.read() == sent[0]
    assert_each_once_in_order(reader, ends(broker, source))
    reader.close()


async def test_a_record_too_large_for_its_topic_is_replaced_and_the_others_arrive(
    kafka_server: Kafka, unique: str
) -> None:
    source, output = f"{unique}.in", f"{unique}.out"
    broker = kafka_server.bootstrap
    kafka_server.create_topics({source: PARTITIONS})
    kafka_server.create_topics({output: PARTITIONS}, **{"max.message.bytes": "5000"})
    values = ["x" * (20_000 if n % 10 == 0 else 100) for n in range(200)]
    produce(broker, source, values)
    echo = Echo(output)
    app = echo_app(stream_settings(broker), source, output, echo, unique)
    async with running(app):
        await eventually(lambda: committed(broker, unique, source) == ends(broker, source))
    reader = Reader(broker, output)
    assert reader.read() == 200
    found = Counter(
        result == "too large" for part in reader.by_partition.values() for result in part
    )
    assert found == {False: 180, True: 20}
    assert len(echo.refusals) == 20
    assert "max.message.bytes" in str(echo.refusals[0])
    assert "5000 bytes" in str(echo.refusals[0])
    reader.close()


async def test_a_broker_that_is_absent_at_the_start_is_waited_for(
    tmp_path, caplog: pytest.LogCaptureFixture, unique: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    app = echo_app(stream_settings(address), "in", "out", Echo("out"), unique)
    starting = asyncio.create_task(app.start())
    await eventually(lambda: "not reachable" in caplog.text)
    assert app.is_retrying()
    assert not any(record.exc_info for record in caplog.records)
    await app.stop()
    await asyncio.gather(starting, return_exceptions=True)
