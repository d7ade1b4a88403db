"""Predicting while Redis is away: flagged, counted, folded later, and nothing published twice."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from stream_infer.core.vectors import STATE_UNAVAILABLE
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import Settings
from stream_infer.store.connection import connect
from stream_infer.store.embedded import EmbeddedRedis
from stream_infer.store.state import StateStore
from stream_infer.stream.processing import TP, one_by_one
from stream_infer.stream.processor import TopologyProcessor
from tests.laws.shop import LogMaker, as_records, shop_runtime, shop_topology
from tests.laws.test_processing import Worker, stored
from tests.stream.kafka_tools import eventually

pytestmark = pytest.mark.redis
COUNT = 400


class Degrading(Worker):
    """A worker that goes on without state."""

    def __init__(self, runtime: Any, redis: Redis, **settings: Any) -> None:
        super().__init__(runtime, redis)
        chosen = {"while_state_away": "degrade", "state_away_after_s": 0.1, **settings}
        self.processor = TopologyProcessor(
            runtime,
            redis,
            self.store,
            Settings(flush_interval_s=0.001, retry_max_s=0.1, **chosen),
            self.counters,
            wall_us=lambda: 1_400_000_000_000_000,
            broken=lambda error: None,
        )


@pytest.fixture
def server(tmp_path: Path) -> EmbeddedRedis:
    return EmbeddedRedis(tmp_path / "redis")


@pytest.fixture
async def redis(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    with server:
        client = connect(server.url, timeout_s=5)
        yield client
        await client.aclose()


def log_of(name: str) -> list[Any]:
    return as_records(f"{name}.sales", 0, LogMaker(Random(5)).values(COUNT))


async def calm(redis: Redis, name: str) -> tuple[Worker, dict[bytes, bytes]]:
    worker = Worker(shop_runtime(shop_topology(name)), redis)
    await worker.start()
    await worker.consume(log_of(name))
    await worker.processor.revoke([worker.tp])
    return worker, await stored(redis, name)


def plain(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {key: row for key, row in rows.items() if b"@results" not in key}


def offset(said: dict[str, Any], name: str = "prediction_id") -> int:
    return int(said[name].rpartition(":")[2])


async def back(worker: Worker) -> None:
    await eventually(lambda: worker.processor.readable_again() == {worker.tp})


async def test_events_predicted_without_state_are_flagged_counted_and_folded_later(
    server: EmbeddedRedis, redis: Redis, unique: str
) -> None:
    expected, rows = await calm(redis, f"{unique}_calm")
    topology = shop_topology(unique)
    worker = Degrading(shop_runtime(topology), redis)
    await worker.start()
    records = log_of(unique)
    await worker.consume(records[:100])
    server.stop()
    await worker.consume(records[100:150])
    await worker.consume(records[150:250])
    assert worker.counters.state_away
    flagged = {offset(p) for p in worker.of(topology.output) if STATE_UNAVAILABLE in p["degraded"]}
    assert min(flagged) >= 100
    assert worker.counters.without_state == len(flagged) > 30
    assert worker.counters.degraded[STATE_UNAVAILABLE] == len(flagged)
    assert worker.counters.ends.conserved
    assert not worker.processor.readable_again()
    server.start()
    await back(worker)
    start = await worker.start(committed=200)  # what this process knows counts, not the commit
    assert start <= 100
    for first in range(start, COUNT, 60):
        await worker.consume(records[first : min(first + 60, COUNT)])
    assert not worker.counters.state_away
    assert worker.counters.without_state == len(flagged)
    assert worker.counters.ends.conserved
    await worker.processor.revoke([worker.tp])
    mine, calms = worker.of(topology.output), expected.of(f"{unique}_calm.predictions")
    assert len({offset(p) for p in mine}) == len(mine)
    whole = {offset(p): p["scores"] for p in mine if offset(p) not in flagged}
    assert whole == {offset(p): p["scores"] for p in calms if offset(p) not in flagged}
    assert plain(await stored(redis, unique)) == plain(rows)
    pairs = [
        {(offset(o, "outcome_id"), offset(o), o["score"]) for o in one.of(topic)}
        for one, topic in (
            (worker, topology.outcomes),
            (expected, f"{unique}_calm.outcomes"),
        )
    ]
    assert pairs[0] == pairs[1]
    assert len(worker.of(topology.outcomes)) == len(pairs[0]) > 20


async def test_an_absence_while_folding_again_publishes_nothing_twice(
    server: EmbeddedRedis, redis: Redis, unique: str
) -> None:
    expected, rows = await calm(redis, f"{unique}_calm")
    topology = shop_topology(unique)
    worker = Degrading(shop_runtime(topology), redis)
    await worker.start()
    records = log_of(unique)
    await worker.consume(records[:100])
    server.stop()
    await worker.consume(records[100:250])
    server.start()
    await back(worker)
    start = await worker.start()
    await worker.consume(records[start:180])
    server.stop()
    await worker.consume(records[180:300])
    server.start()
    await back(worker)
    start = await worker.start(committed=100)
    await worker.consume(records[start:])
    await worker.processor.revoke([worker.tp])
    mine = [offset(p) for p in worker.of(topology.output)]
    assert len(set(mine)) == len(mine)
    outcomes = {offset(o, "outcome_id") for o in worker.of(topology.outcomes)}
    calms = {offset(o, "outcome_id") for o in expected.of(f"{unique}_calm.outcomes")}
    assert outcomes == calms
    assert plain(await stored(redis, unique)) == plain(rows)
    assert worker.counters.ends.conserved


async def test_a_write_that_fails_lets_the_worker_go_on_too(
    server: EmbeddedRedis, redis: Redis, unique: str
) -> None:
    topology = shop_topology(unique)
    worker = Degrading(shop_runtime(topology), redis)
    await worker.start()
    records = log_of(unique)
    outcome = await worker.processor.process({worker.tp: records[:100]})
    server.kill()
    worker.processor.acknowledged(outcome.positions)
    await worker.processor.store()
    assert worker.counters.state_away
    server.start()
    await back(worker)
    assert await worker.start() == 0
    worker.sent.clear()
    await worker.consume(records[:100])
    assert worker.of(topology.output) == []
    assert worker.counters.ends.replayed == 100


async def test_partitions_assigned_while_redis_is_away_go_on_at_the_committed_offset(
    server: EmbeddedRedis, redis: Redis, unique: str
) -> None:
    topology = shop_topology(unique)
    worker = Degrading(shop_runtime(topology), redis)
    server.stop()
    assert await worker.start(committed=100) == 100
    records = log_of(unique)
    await worker.consume(records[100:150])
    found = worker.of(topology.output)
    assert found
    assert all(STATE_UNAVAILABLE in p["degraded"] for p in found)
    server.start()
    await back(worker)
    assert await worker.start(committed=120) == 0
    worker.sent.clear()
    await worker.consume(records)
    assert min(offset(p) for p in worker.of(topology.output)) >= 150


async def test_a_worker_that_is_to_pause_says_what_is_wrong_and_predicts_nothing(
    server: EmbeddedRedis, redis: Redis, unique: str
) -> None:
    worker = Degrading(shop_runtime(shop_topology(unique)), redis, while_state_away="pause")
    await worker.start()
    server.stop()
    with pytest.raises(RedisConnectionError):
        await worker.consume(log_of(unique))
    assert worker.sent == []
    assert not worker.processor.readable_again()
    server.start()


async def test_batch_of_several_partitions_may_be_whole_in_part(
    server: EmbeddedRedis, redis: Redis, unique: str
) -> None:
    topology = shop_topology(unique)
    runtime = shop_runtime(topology)
    store = StateStore(redis, unique, runtime.engine.schema, 4)
    settings = Settings(while_state_away="degrade", state_away_after_s=0.1, retry_max_s=0.1)
    processor = TopologyProcessor(runtime, redis, store, settings, TopologyCounters())
    tps = [TP(topology.stream.name, number) for number in range(2)]
    await processor.assign(tps, dict.fromkeys(tps))
    logs = {tp: as_records(tp.topic, tp.partition, LogMaker(Random(5)).values(100)) for tp in tps}
    server.stop()
    first = await processor.process({tp: log[:50] for tp, log in logs.items()})
    processor.acknowledged(first.positions)
    await processor.store()
    server.start()
    await eventually(lambda: len(processor.readable_again()) == 2)
    await processor.assign(tps[:1], {tps[0]: 50})
    both = await processor.process({tps[0]: logs[tps[0]], tps[1]: logs[tps[1]][50:]})
    flagged = [STATE_UNAVAILABLE in (r.value or b"").decode() for r in one_by_one(both.outgoing)]
    assert any(flagged)
    assert not all(flagged)
    assert processor.readable_again() == {tps[1]}
    await processor.revoke(tps)
    assert not processor.readable_again()
