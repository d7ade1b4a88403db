"""Replays on a real Kafka: each letter once, and what cannot go back is told."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError

from stream_infer.core.errors import DeclarationError
from stream_infer.core.topology import Topology
from stream_infer.stream.dead_letters import dead_letter, unpublished
from stream_infer.stream.letters import Selection, is_mark
from stream_infer.stream.log_reader import LogReader
from stream_infer.stream.processing import TP, OutgoingRecord
from stream_infer.stream.redelivery import BATCH_RECORDS, Replay, Report
from tests.laws.shop import Record, shop_topology
from tests.servers.kafka import Kafka
from tests.stream.kafka_tools import ordered_producer

pytestmark = pytest.mark.kafka
ALL = Selection()


class Place:
    """A topology's topics on a broker."""

    def __init__(self, kafka: Kafka, name: str) -> None:
        self.broker, self.topology = kafka.bootstrap, shop_topology(name)
        self.source, self.dead = self.topology.stream.name, self.topology.dead_letters
        kafka.create_topics({self.source: 2, self.dead: 2})
        self.producer = ordered_producer(self.broker)

    def set_aside(self, offset: int, *, key: str = "a", topic: str | None = None) -> None:
        """Write the letter of a record of the source, as a worker would."""
        record = Record(topic or self.source, 0, offset, 1_000, key.encode(), b"body-%d" % offset)
        self.put(
            dead_letter(
                record,
                TP(record.topic, record.partition),
                topology=self.topology.name,
                topic=self.dead,
                stage="decode",
                reason="bad",
            )
        )

    def put(self, record: OutgoingRecord) -> None:
        self.producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
        self.producer.flush()

    async def replay(self, selection: Selection = ALL, **options: Any) -> Report:
        return await Replay(self.broker, self.topology, selection).run(**options)

    async def values(self) -> list[bytes | None]:
        """What is in the source, sorted."""
        return sorted(record.value or b"" for record in await self.held(self.source))

    async def held(self, topic: str) -> list[Any]:
        async with LogReader(self.broker) as log:
            return [r async for r in log.records(topic, await log.spans(topic))]


@pytest.fixture
def place(kafka_server: Kafka, unique: str) -> Place:
    return Place(kafka_server, unique)


async def test_a_letter_that_is_there_twice_goes_back_once(place: Place) -> None:
    for offset in (5, 6, 5):
        place.set_aside(offset)
    report = await place.replay()
    assert (report.replayed, report.before) == (2, 1)
    report = await place.replay()
    assert (report.replayed, report.before) == (0, 3)
    assert await place.values() == [b"body-5", b"body-6"]


async def test_a_limit_takes_the_oldest_that_are_left(place: Place) -> None:
    for offset in range(5):
        place.set_aside(offset, key=f"key-{offset}")
    assert (await place.replay(limit=2, dry=True)).replayed == 2
    assert await place.values() == []
    for left in (2, 2, 1, 0):
        assert (await place.replay(limit=2)).replayed == left
    assert await place.values() == [b"body-%d" % n for n in range(5)]


async def test_a_letter_without_body_goes_back_as_its_record_while_that_is_kept(
    place: Place,
) -> None:
    name = place.topology.name
    place.producer.produce(place.source, b"event", b"a", partition=1, headers=[("trace", b"1")])
    place.producer.flush()
    for offset in (0, 77):
        result = OutgoingRecord(place.topology.output, b"result's key", b"{}")
        prediction_id = f"{name}:{place.source}:1:{offset}"
        place.put(unpublished(result, prediction_id, topology=name, reason="too large"))
    report = await place.replay()
    assert (report.replayed, report.folded) == (1, 1)
    assert report.skipped == {"it has no body, and its record is no longer in the stream": 1}
    first, second = await place.held(place.source)
    assert (first.key, first.value, first.headers) == (second.key, second.value, second.headers)


async def test_a_record_with_neither_key_nor_body_goes_back(place: Place) -> None:
    record = Record(place.source, 1, 0, 1_000, None, None, (("trace", b"1"),))
    fields = {"topology": place.topology.name, "topic": place.dead}
    place.put(
        dead_letter(
            record, TP(record.topic, record.partition), **fields, stage="decode", reason="null body"
        )
    )
    for replayed in (1, 0):
        assert (await place.replay()).replayed == replayed
    (back,) = await place.held(place.source)
    assert (back.partition, back.key, back.value) == (1, None, None)
    assert back.headers == record.headers


async def test_letters_of_another_topic_stay(place: Place) -> None:
    place.set_aside(1, topic="elsewhere")
    place.put(OutgoingRecord(place.dead, b"k", b"nobody's", headers=()))
    report = await place.replay()
    assert report.replayed == 0
    assert len(report.skipped) == len(report.named) == 2
    assert await place.values() == []


async def test_a_crash_between_sending_and_marking_repeats_one_batch_at_most(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = BATCH_RECORDS + 20
    for offset in range(total):
        place.set_aside(offset)
    crashing = Replay(place.broker, place.topology, ALL)
    send, sent = crashing._send, 0

    async def until_the_second_marks(records: Sequence[OutgoingRecord]) -> Any:
        nonlocal sent
        sent += 1
        if sent == 4:
            raise KafkaTimeoutError
        return await send(records)

    monkeypatch.setattr(crashing, "_send", until_the_second_marks)
    with pytest.raises(KafkaTimeoutError):
        await crashing.run()
    assert len(set(await place.values())) == total
    assert (await place.replay()).replayed == 20
    assert len(await place.values()) == total + 20
    assert (await place.replay()).replayed == 0
    marks = [record for record in await place.held(place.dead) if is_mark(record.headers)]
    assert len(marks) == total


async def test_what_the_topic_refuses_is_told_and_tried_again_next_time(
    kafka_server: Kafka, unique: str
) -> None:
    name, topology = unique, shop_topology(unique)
    kafka_server.create_topics({topology.stream.name: 2}, **{"max.message.bytes": "1000"})
    kafka_server.create_topics({topology.dead_letters: 2})
    record = Record(topology.stream.name, 0, 0, 1_000, b"a", b"x" * 5_000)
    producer = ordered_producer(kafka_server.bootstrap)
    for letter in (record, record._replace(offset=1, value=b"small")):
        made = dead_letter(
            letter,
            TP(letter.topic, letter.partition),
            topology=name,
            topic=topology.dead_letters,
            stage="s",
            reason="",
        )
        producer.produce(made.topic, made.value, made.key, headers=list(made.headers))
    producer.flush()
    for replayed in (1, 0):
        report = await Replay(kafka_server.bootstrap, topology, ALL).run()
        assert (report.replayed, report.failed.total()) == (replayed, 1)


async def test_topics_that_do_not_exist_are_named(kafka_server: Kafka, unique: str) -> None:
    topology: Topology = shop_topology(unique)
    with pytest.raises(DeclarationError, match=topology.stream.name):
        await Replay(kafka_server.bootstrap, topology, ALL).run()


async def test_a_place_beyond_what_is_kept_holds_nothing(place: Place) -> None:
    place.set_aside(1)
    async with LogReader(place.broker) as log:
        found = [await log.at(place.dead, number, 0) for number in (0, 1, 2)]
        assert sum(record is not None for record in found) == 1
        assert await log.at(place.dead, 0, 1 << 70) is None
