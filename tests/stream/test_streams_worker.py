"""Workers on a real Kafka and a real Redis that read two topics as one log."""

import asyncio
from random import Random
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from stream_infer.core.errors import DeclarationError
from stream_infer.core.topology import Topology
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import Settings, load
from stream_infer.stream.app import StreamApp
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.log_reader import LogReader
from stream_infer.stream.service import faust_app
from tests.laws.shop import LogMaker, shop_runtime
from tests.laws.test_streams import Worker, stored
from tests.laws.weather_shop import WeatherMaker, merged, weather_topology
from tests.servers.kafka import Kafka
from tests.stream.kafka_tools import eventually, ordered_producer, running

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
PARTITIONS = 3


class Place:
    """A topology of two topics, its servers, and its workers in this process."""

    def __init__(self, name: str, kafka: Kafka, redis_url: str) -> None:
        self.topology = weather_topology(name)
        self.broker, self.redis_url = kafka.bootstrap, redis_url
        written = self.topology
        names = [written.output, written.dead_letters, written.outcomes]
        kafka.create_topics(dict.fromkeys([*self.topics, *names], PARTITIONS))

    @property
    def topics(self) -> list[str]:
        return [stream.name for stream in self.topology.streams]

    def fill(self, sales: int, reports: int) -> None:
        """Write both topics, keyed by shop; what is no event goes by another key."""
        rates = {"poison": 0.02, "duplicates": 0.04, "late": 0.02}
        values = (
            LogMaker(Random(1), **rates).values(sales),
            WeatherMaker(Random(2), **rates, pace_s=12).values(reports),
        )
        producer = ordered_producer(self.broker)
        for topic, log in zip(self.topics, values, strict=True):
            for value in log:
                try:
                    key = str(msgspec.json.decode(value)["shop"])
                except (msgspec.DecodeError, KeyError, TypeError):
                    key = "lost"
                producer.produce(topic, value, key.encode())
        assert producer.flush(30) == 0

    def app(self, **settings: Any) -> tuple[StreamApp, StreamCounters, TopologyCounters]:
        counters, ends = StreamCounters(), TopologyCounters()
        app = faust_app(
            self.topology,
            self.settings(**settings),
            runtime=shop_runtime(self.topology),
            counters=counters,
            ends=ends,
        )
        return app, counters, ends

    def settings(self, **changes: Any) -> Settings:
        quick = {"flush_interval_s": 0.02, "heartbeat_interval_s": 0.3, "session_timeout_s": 6.0}
        servers = {"broker": self.broker, "redis": self.redis_url, "merge_wait_ms": 60_000}
        return load({}, **(quick | servers | changes))

    async def held(self, topic: str) -> list[Any]:
        async with LogReader(self.broker) as log:
            return [record async for record in log.records(topic, await log.spans(topic))]

    async def predictions(self) -> dict[str, Any]:
        """Scores by prediction id; a repeat must say the same."""
        found: dict[str, Any] = {}
        for record in await self.held(self.topology.output):
            said = msgspec.json.decode(record.value)
            assert found.setdefault(said["prediction_id"], said["scores"]) == said["scores"]
        return found

    async def expected(self, redis: Redis) -> tuple[dict[str, Any], dict[bytes, Any]]:
        """What a processor makes of each partition's whole logs, merged at once, and its rows."""
        by_hand = weather_topology(f"{self.topology.name}_by_hand")
        found: dict[str, Any] = {}
        logs = [await self.held(topic) for topic in self.topics]
        for number in range(PARTITIONS):
            worker = Worker(by_hand, redis, partition=number)
            await worker.start()
            records = merged(
                self.topology,
                tuple([record for record in log if record.partition == number] for log in logs),
            )
            if records:
                await worker.consume(records)
            await worker.processor.revoke(worker.tps)
            for said in worker.of(by_hand.output):
                identity = said["prediction_id"].replace(by_hand.name, self.topology.name)
                found[identity] = said["scores"]
        return found, await stored(redis, by_hand.name)


async def test_a_backlog_of_two_topics_is_folded_in_the_order_of_event_times(
    kafka_server: Kafka, redis: Redis, redis_url: str, unique: str
) -> None:
    place = Place(unique, kafka_server, redis_url)
    place.fill(1_500, 900)
    app, counters, ends = place.app(batch_records_max=100)
    async with running(app):
        await eventually(lambda: ends.ends.consumed == 2_400)
    predictions, rows = await place.expected(redis)
    assert await place.predictions() == predictions
    assert await stored(redis, unique) == rows
    assert len(predictions) > 800
    assert ends.ends.conserved
    assert counters.merge_waits == {}


async def test_partitions_of_one_number_move_together_and_lose_nothing(
    kafka_server: Kafka, redis: Redis, redis_url: str, unique: str
) -> None:
    """One worker, then two, then the other one alone, over a backlog of both topics."""
    place = Place(unique, kafka_server, redis_url)
    place.fill(2_000, 1_200)
    first, first_counters, first_ends = place.app(batch_records_max=20)
    second, second_counters, second_ends = place.app(batch_records_max=20)

    def consumed() -> int:
        return first_ends.ends.consumed + second_ends.ends.consumed

    async with running(first):
        await eventually(lambda: first_ends.ends.consumed > 300)
        async with running(second):
            await eventually(lambda: bool(second_counters.lag_records), 60)
            for counters in (first_counters, second_counters):
                await eventually(lambda counters=counters: counters.ready, 60)  # type: ignore[misc]
            owned = [assigned(app) for app in (first, second)]
            for partitions in owned:
                numbers = {
                    topic: {n for t, n in partitions if t == topic} for topic in place.topics
                }
                assert numbers[place.topics[0]] == numbers[place.topics[1]]
            assert sorted(owned[0] | owned[1]) == sorted(
                (topic, number) for topic in place.topics for number in range(PARTITIONS)
            )
            await first.stop()
            await eventually(lambda: lag(second_counters) == 0, 60)
            await eventually(lambda: consumed() >= 3_200, 60)
    predictions, rows = await place.expected(redis)
    assert await place.predictions() == predictions
    assert await stored(redis, unique) == rows
    assert first_counters.merge_waits == second_counters.merge_waits == {}


def assigned(app: StreamApp) -> set[tuple[str, int]]:
    return {(tp.topic, tp.partition) for tp in app.consumer.assignment()}


def lag(counters: StreamCounters) -> int:
    known = counters.lag_records
    return sum(known.values()) if len(known) == 2 * PARTITIONS else -1


async def test_topics_with_different_numbers_of_partitions_end_the_start(
    kafka_server: Kafka, redis_url: str, unique: str
) -> None:
    topology: Topology = weather_topology(unique)
    kafka_server.create_topics({topology.streams[0].name: 2, topology.streams[1].name: 3})
    settings = load({}, broker=kafka_server.bootstrap, redis=redis_url)
    app = faust_app(topology, settings, runtime=shop_runtime(topology))
    try:
        with pytest.raises(DeclarationError, match=r"has 2 partitions, but .* has 3"):
            async with asyncio.timeout(30):
                await app.start()
    finally:
        await app.stop()
