"""Exactly once on a real Kafka: what readers of committed records see, whatever went wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import Producer

from stream_infer.core.errors import SettingsError
from stream_infer.stream.broker import EmbeddedBroker
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.parcels import Packer
from stream_infer.stream.processing import TP, OutgoingRecord, PartitionsFenced
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.transactional import TransactionalProducer, check_transactions
from stream_infer.stream.transactions import Transactions
from tests.faults.reading import read_topic
from tests.servers.kafka import Kafka
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import (
    PARTITIONS,
    committed,
    echo_app,
    ends,
    eventually,
    limit_topic,
    produce,
    running,
    stream_settings,
)

pytestmark = pytest.mark.kafka


@pytest.fixture
def topics(kafka_server: Kafka, unique: str) -> tuple[str, str]:
    """A source topic and one for its results."""
    kafka_server.create_topics({f"{unique}.in": PARTITIONS, f"{unique}.out": PARTITIONS})
    return f"{unique}.in", f"{unique}.out"


def exactly_once(broker: str, **changes: Any) -> StreamSettings:
    return stream_settings(broker, delivery="exactly_once", **changes)


def results(broker: str, topic: str) -> dict[TP, list[int]]:
    """Source offsets of all committed results, by source partition, in the order of the log."""
    found: dict[TP, list[int]] = {}
    for message in read_topic(broker, topic):
        source, partition, offset, _ = json.loads(message.value())
        found.setdefault(TP(source, partition), []).append(offset)
    return found


def each_once(source_ends: Mapping[TP, int]) -> dict[TP, list[int]]:
    return {tp: list(range(end)) for tp, end in source_ends.items() if end}


async def test_every_result_is_committed_once_with_its_offset(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    sent = produce(broker, source, (str(n) for n in range(20_000)))
    app = echo_app(
        exactly_once(broker, batch_records_max=700), source, output, Echo(output), unique
    )
    async with running(app):
        await eventually(lambda: app.counters.produced == sent)
    assert committed(broker, unique, source) == ends(broker, source)
    assert results(broker, output) == each_once(ends(broker, source))


async def test_a_failing_processor_and_a_restart_repeat_nothing(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    settings = exactly_once(broker, batch_records_max=100)
    for _ in range(3):
        produce(broker, source, (str(n) for n in range(1_000)))
        app = echo_app(settings, source, output, Echo(output, failures=2), unique)
        async with running(app):
            await eventually(lambda app=app: app.counters.produced > 300)
    app = echo_app(settings, source, output, Echo(output), unique)
    left = sum(ends(broker, source).values()) - sum(committed(broker, unique, source).values())
    async with running(app):
        await eventually(lambda: app.counters.produced == left)
    assert committed(broker, unique, source) == ends(broker, source)
    assert results(broker, output) == each_once(ends(broker, source))


async def test_records_of_an_aborted_transaction_are_no_events(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    producer = Producer({"bootstrap.servers": broker, "transactional.id": unique})
    producer.init_transactions(10)
    for commit in (True, False, True):
        producer.begin_transaction()
        producer.produce(source, key=b"k", value=b"good" if commit else b"aborted")
        producer.commit_transaction(10) if commit else producer.abort_transaction(10)
    echo = Echo(output)
    app = echo_app(exactly_once(broker), source, output, echo, unique)
    async with running(app):
        await eventually(lambda: len(echo.processed) >= 2)
        produce(broker, source, ["last"], keys=1)
        await eventually(lambda: app.counters.produced == 3)
    values = [json.loads(message.value())[3] for message in read_topic(broker, output)]
    assert sorted(values) == ["good", "good", "last"]


async def test_what_is_too_large_for_its_topic_is_replaced_in_the_same_transaction(
    kafka_server: Kafka, unique: str
) -> None:
    source, output = f"{unique}.in", f"{unique}.out"
    broker = kafka_server.bootstrap
    kafka_server.create_topics({source: PARTITIONS})
    kafka_server.create_topics({output: PARTITIONS}, **{"max.message.bytes": "5000"})
    produce(broker, source, ["x" * (20_000 if n % 10 == 0 else 100) for n in range(200)])
    echo = Echo(output)
    app = echo_app(exactly_once(broker), source, output, echo, unique)
    async with running(app):
        await eventually(lambda: app.counters.produced == 200)
    assert committed(broker, unique, source) == ends(broker, source)
    found = [json.loads(message.value()) for message in read_topic(broker, output)]
    assert (len(found), found.count("too large"), len(echo.refusals)) == (200, 20, 20)


async def test_a_broker_that_does_not_fence_is_refused() -> None:
    with (
        EmbeddedBroker() as broker,
        pytest.raises(SettingsError, match=r"does not fence.*embedded.*real Kafka"),
    ):
        await check_transactions(exactly_once(broker.bootstrap), "any")


async def test_a_timeout_above_the_brokers_is_refused(kafka_server: Kafka, unique: str) -> None:
    settings = exactly_once(kafka_server.bootstrap, transaction_timeout_s=80_000.0)
    with pytest.raises(SettingsError, match=r"transaction_timeout_s.*transaction\.max\.timeout"):
        await check_transactions(settings, unique)


class Committed:
    """Reads a group's committed offsets."""

    def __init__(self, broker: str, group: str, source: str) -> None:
        self._arguments = broker, group, source
        self.failures = 0

    async def committed(self, partitions: Sequence[TP]) -> dict[TP, int | None]:
        if self.failures:
            self.failures -= 1
            raise KafkaConnectionError("cut off")
        found = await asyncio.to_thread(committed, *self._arguments)
        return {tp: found.get(tp) for tp in partitions}


@asynccontextmanager
async def transactions(
    broker: str, topics: tuple[str, str], unique: str, group: Committed | None = None
) -> AsyncIterator[Transactions]:
    """The transactions of partition 0, opened; closed at the end."""
    source, output = topics
    failures: list[Exception] = []
    made = Transactions(
        [TP(source, 0)],
        f"{unique}-0",
        topics=[output],
        packer=Packer(1 << 20),
        replace=lambda record, error: [],
        group=group or Committed(broker, unique, source),  # type: ignore[arg-type]
        group_id=unique,
        settings=exactly_once(broker),
        counters=StreamCounters(),
        failed=failures.append,
    )
    await made.open()
    try:
        yield made
    finally:
        await made.close()
    assert failures == []  # Its producers were closed in order, however often they were replaced.


def share(topics: tuple[str, str], first: int, last: int) -> dict[str, Any]:
    """What `Transactions.add` takes for the events of these offsets."""
    source, output = topics
    records = [
        OutgoingRecord(output, b"key", json.dumps([source, 0, offset, ""]).encode())
        for offset in range(first, last)
    ]
    return {"records": records, "positions": {TP(source, 0): last}}


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_commit_of_unknown_outcome_is_looked_up_and_not_guessed(
    kafka_server: Kafka,
    topics: tuple[str, str],
    unique: str,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    broker, tp = kafka_server.bootstrap, TP(topics[0], 0)
    commit = TransactionalProducer.commit_transaction
    losses = [2, 4]  # the second transaction, and the one after its repetition
    visits = 0

    async def unsure(producer: TransactionalProducer) -> None:
        nonlocal visits
        visits += 1
        if visits in losses:
            if lost == "answer":
                await commit(producer)
            raise KafkaConnectionError("cut off")
        await commit(producer)

    monkeypatch.setattr(TransactionalProducer, "commit_transaction", unsure)
    group = Committed(broker, unique, topics[0])
    async with transactions(broker, topics, unique, group) as made:
        group.failures = 1  # looking it up fails at first
        for first in range(0, 50, 10):
            await made.add(**share(topics, first, first + 10))
    assert results(broker, topics[1]) == {tp: list(range(50))}
    assert committed(broker, unique, topics[0]) == {tp: 50}


async def test_what_comes_while_a_transaction_is_under_way_goes_together_into_the_next(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    async with transactions(kafka_server.bootstrap, topics, unique) as made:
        added = [made.add(**share(topics, n, n + 1)) for n in range(40)]
        await asyncio.gather(*added)
        assert made._counters.commits <= 2
    assert results(kafka_server.bootstrap, topics[1]) == {TP(topics[0], 0): list(range(40))}


async def test_a_new_owner_fences_the_old_one_and_nothing_is_seen_twice(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    broker, tp = kafka_server.bootstrap, TP(topics[0], 0)
    async with transactions(broker, topics, unique) as old:
        await old.add(**share(topics, 0, 10))
        async with transactions(broker, topics, unique) as new:
            assert new.committed(tp) == 10
            with pytest.raises(PartitionsFenced):
                await old.add(**share(topics, 10, 20))
            with pytest.raises(PartitionsFenced):
                await old.add(**share(topics, 20, 30))
            await new.add(**share(topics, 10, 25))
    assert results(broker, topics[1]) == {tp: list(range(25))}


@pytest.mark.parametrize("further", [15, 20, 30])
async def test_who_took_the_id_back_from_another_owner_finds_its_commits_and_gives_up(
    kafka_server: Kafka,
    topics: tuple[str, str],
    unique: str,
    monkeypatch: pytest.MonkeyPatch,
    further: int,
) -> None:
    broker, tp = kafka_server.bootstrap, TP(topics[0], 0)
    send = TransactionalProducer.send_batch
    cut_off = False

    async def unreachable(producer: TransactionalProducer, *arguments: Any, **named: Any) -> Any:
        nonlocal cut_off
        if cut_off:
            cut_off = False
            raise KafkaConnectionError("cut off")
        return await send(producer, *arguments, **named)

    monkeypatch.setattr(TransactionalProducer, "send_batch", unreachable)
    async with transactions(broker, topics, unique) as old:
        await old.add(**share(topics, 0, 10))
        async with transactions(broker, topics, unique) as new:
            await new.add(**share(topics, 10, further))
            cut_off = True
            late = old.add(**share(topics, 10, 20))
            await asyncio.wait([late])
            assert (late.exception() is None) == (further == 20)
    assert results(broker, topics[1]) == {tp: list(range(further))}


async def test_offsets_never_go_back(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    broker, tp = kafka_server.bootstrap, TP(topics[0], 0)
    async with transactions(broker, topics, unique) as made:
        await made.add(**share(topics, 0, 30))
        await made.add((), {tp: 20})  # folded again, published before
        assert made.committed(tp) == 30
    assert committed(broker, unique, topics[0]) == {tp: 30}


async def test_a_limit_lowered_meanwhile_cuts_batches_and_loses_nothing(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    broker = kafka_server.bootstrap
    limit_topic(broker, topics[1], 1_000)
    async with transactions(broker, topics, unique) as made:
        await made.add(**share(topics, 0, 300))
        await made.add(**share(topics, 300, 400))
    assert results(broker, topics[1]) == {TP(topics[0], 0): list(range(400))}


async def test_what_is_stored_but_not_committed_is_committed_without_a_further_event(
    kafka_server: Kafka, topics: tuple[str, str], unique: str
) -> None:
    source, output = topics
    broker = kafka_server.bootstrap
    produce(broker, source, (str(n) for n in range(400)))
    log_ends = ends(broker, source)
    echo = Echo(output, start=log_ends)
    app = echo_app(exactly_once(broker), source, output, echo, unique)
    async with running(app):
        await eventually(lambda: app.counters.commits == PARTITIONS)
    assert committed(broker, unique, source) == log_ends
    assert results(broker, output) == {}
