"""The laws, over the processor of a worker and a real Redis."""

import asyncio
from random import Random
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from stream_infer.core.errors import FencedError, StateError
from stream_infer.core.topology import Topology
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import Settings
from stream_infer.store.commands import Commands
from stream_infer.store.state import StateStore
from stream_infer.stream.processing import TP, OutgoingRecord, RecordTooLarge, one_by_one
from stream_infer.stream.processor import TopologyProcessor
from stream_infer.stream.runtime import Runtime
from tests.laws.shop import LogMaker, Record, as_records, shop_runtime, shop_topology

pytestmark = pytest.mark.redis


class Worker:
    """A worker's processor driven by hand, with a clock that stands still."""

    def __init__(self, runtime: Runtime, redis: Redis, *, rows_max: int = 1_000) -> None:
        topology = runtime.topology
        self.tp = TP(topology.stream.name, 0)
        self.store = StateStore(redis, topology.name, runtime.engine.schema, 4)
        self.counters = TopologyCounters()
        self.sent: list[OutgoingRecord] = []
        self.processor = TopologyProcessor(
            runtime,
            redis,
            self.store,
            Settings(flush_interval_s=0.001, state_rows_max=rows_max),
            self.counters,
            wall_us=lambda: 1_400_000_000_000_000,
            broken=lambda error: None,
        )

    async def start(self, committed: int | None = None) -> int:
        positions = await self.processor.assign([self.tp], {self.tp: committed})
        return positions[self.tp]

    async def consume(self, records: list[Record], *, acknowledge: bool = True) -> None:
        outcome = await self.processor.process({self.tp: records})
        self.sent.extend(one_by_one(outcome.outgoing))
        if acknowledge:
            self.processor.acknowledged(outcome.positions)
            await self.processor.store()

    def of(self, topic: str) -> list[dict[str, Any]]:
        return [
            msgspec.json.decode(record.value)
            for record in self.sent
            if record.topic == topic and record.value is not None
        ]


@pytest.fixture
def topology(unique: str) -> Topology:
    return shop_topology(unique)


async def stored(redis: Redis, name: str) -> dict[bytes, bytes]:
    """All rows of a topology, less what may differ: epochs."""
    found: dict[bytes, bytes] = {}
    async for key in redis.scan_iter(f"si:{{{name}:*"):
        short = key.split(b"}", 1)[1]
        if short != b":meta":
            found[short] = await redis.get(key)
        else:
            found[short] = await redis.hget(key, "next_offset")
    return found


def cuts(random: Random, records: list[Record]) -> list[list[Record]]:
    batches, start = [], 0
    while start < len(records):
        size = random.choice([1, 2, 7, 50, 400])
        batches.append(records[start : start + size])
        start += size
    return batches


async def test_predictions_and_state_do_not_depend_on_batch_cuts(redis: Redis, unique: str) -> None:
    values = LogMaker(Random(1), poison=0.02, duplicates=0.05, late=0.02).values(600)
    results = []
    for run, batches_of in enumerate(("whole", "cut", "single")):
        topology = shop_topology(f"{unique}_{run}")
        worker = Worker(shop_runtime(topology), redis, rows_max=1_000 if run else 2)
        await worker.start()
        records = as_records(topology.stream.name, 0, values)
        batches = {
            "whole": [records],
            "cut": cuts(Random(run), records),
            "single": [[record] for record in records],
        }[batches_of]
        for batch in batches:
            await worker.consume(batch)
        await worker.processor.revoke([worker.tp])
        predictions = worker.of(topology.output)
        outcomes = worker.of(topology.outcomes)
        text = msgspec.json.encode([predictions, outcomes]).decode()
        rows = {
            key: value.replace(topology.name.encode(), b"T")
            for key, value in (await stored(redis, topology.name)).items()
        }
        results.append((text.replace(topology.name, "T"), rows, worker.counters.ends))
        assert len(predictions) > 300
        assert len(outcomes) > 50
    assert results[0] == results[1] == results[2]


async def test_every_event_has_exactly_one_end_with_poison(
    redis: Redis, topology: Topology
) -> None:
    maker = LogMaker(Random(2), poison=0.01, duplicates=0.03, late=0.03)
    values = maker.values(3_000)
    worker = Worker(shop_runtime(topology), redis)
    await worker.start()
    for batch in cuts(Random(3), as_records(topology.stream.name, 0, values)):
        await worker.consume(batch)
    ends = worker.counters.ends
    letters = [r for r in worker.sent if r.topic == topology.dead_letters]
    assert ends.conserved
    assert ends.consumed == 3_000
    assert ends.predictions == len(worker.of(topology.output))
    assert ends.dead_letters == len(letters) >= maker.made["poison"] > 10
    assert ends.late > 10
    assert ends.duplicates > 10
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["si-reason"]
        assert values[int(headers["si-offset"])] == letter.value


@pytest.mark.parametrize("seed", range(5))
async def test_a_crash_counts_nothing_twice_and_loses_nothing(
    redis: Redis, unique: str, seed: int
) -> None:
    random = Random(seed)
    values = LogMaker(Random(seed), duplicates=0.05).values(400)
    calm = shop_topology(f"{unique}_calm")
    worker = Worker(shop_runtime(calm), redis)
    await worker.start()
    await worker.consume(as_records(calm.stream.name, 0, values))
    await worker.processor.revoke([worker.tp])
    expected = {p["prediction_id"].replace(calm.name, "T"): p for p in worker.of(calm.output)}

    faulty = shop_topology(f"{unique}_faulty")
    records = as_records(faulty.stream.name, 0, values)
    committed: int | None = None
    seen: dict[str, dict[str, Any]] = {}
    position = 0
    while position < len(records):
        worker = Worker(shop_runtime(faulty), redis)
        position = await worker.start(committed)
        for batch in cuts(random, records[position:]):
            acknowledged = random.random() < 0.8
            await worker.consume(batch, acknowledge=acknowledged)
            if not acknowledged:
                break  # The worker died with results on their way.
            if random.random() < 0.7:
                committed = batch[-1].offset + 1
            if random.random() < 0.3:
                break  # It died between acknowledgement and commit, or after it.
        for prediction in worker.of(faulty.output):
            name = prediction["prediction_id"].replace(faulty.name, "T")
            if name in seen:
                assert seen[name]["scores"] == prediction["scores"]
            seen[name] = prediction
    await worker.processor.revoke([worker.tp])
    assert {k: p["scores"] for k, p in seen.items()} == {
        k: p["scores"] for k, p in expected.items()
    }
    mine, theirs = await stored(redis, faulty.name), await stored(redis, calm.name)
    results = b":@results:"
    assert {k: v for k, v in mine.items() if results not in k} == {
        k: v for k, v in theirs.items() if results not in k
    }


async def test_a_worker_that_lost_its_partition_changes_no_row(
    redis: Redis, topology: Topology
) -> None:
    values = LogMaker(Random(4)).values(100)
    records = as_records(topology.stream.name, 0, values)
    zombie, heir = Worker(shop_runtime(topology), redis), Worker(shop_runtime(topology), redis)
    await zombie.start()
    await zombie.consume(records[:50])
    await heir.start(50)
    await heir.consume(records[50:])
    await heir.processor.store()
    before = await stored(redis, topology.name)
    with pytest.raises(FencedError):
        await zombie.consume(records[50:60])
    assert await stored(redis, topology.name) == before


async def test_state_made_with_other_partitions_or_features_is_refused(
    redis: Redis, topology: Topology
) -> None:
    await StateStore(redis, topology.name, "schema", 4).acquire(0)
    with pytest.raises(StateError, match="4 partitions, the topic has 8"):
        await StateStore(redis, topology.name, "schema", 8).acquire(0)
    with pytest.raises(StateError, match="other feature declarations"):
        await StateStore(redis, topology.name, "changed", 4).acquire(0)
    with pytest.raises(StateError, match="4 partitions, the topic has 8"):
        await StateStore(redis, topology.name, "schema", 8).check()
    await StateStore(redis, topology.name, "schema", 4).check()


async def test_a_result_too_large_to_publish_ends_as_a_dead_letter_that_names_its_event(
    redis: Redis, topology: Topology
) -> None:
    worker = Worker(shop_runtime(topology), redis)
    await worker.start()
    await worker.consume(as_records(topology.stream.name, 0, LogMaker(Random(8)).values(50)))
    result = next(record for record in worker.sent if record.topic == topology.output)
    before = worker.counters.ends.predictions
    (letter,) = worker.processor.refused(result, RecordTooLarge(result, 10, 5))
    assert letter.topic == topology.dead_letters
    headers = {name: value.decode() for name, value in letter.headers}
    assert headers["si-topic"] == topology.stream.name
    assert headers["si-partition"] == "0"
    assert headers["si-offset"] == worker.of(topology.output)[0]["prediction_id"].split(":")[-1]
    assert "10 bytes" in headers["si-reason"]
    assert worker.counters.ends.predictions == before - 1
    assert worker.counters.ends.conserved


async def test_a_clock_before_the_events_own_gives_no_negative_latency(
    redis: Redis, topology: Topology
) -> None:
    worker = Worker(shop_runtime(topology), redis)
    await worker.start()
    stamp_ms = 1_400_000_000_000 + 3_600_000
    events = as_records(topology.stream.name, 0, LogMaker(Random(3)).values(5))
    await worker.consume([record._replace(timestamp=stamp_ms) for record in events])
    predictions = worker.of(topology.output)
    assert predictions
    assert {said["latency_ms"] for said in predictions} == {0.0}


async def test_a_failed_read_leaves_no_trace(redis: Redis, topology: Topology) -> None:
    records = as_records(topology.stream.name, 0, LogMaker(Random(5)).values(200))
    worker = Worker(shop_runtime(topology), redis)
    await worker.start()
    broken = Redis.from_url("redis://127.0.0.1:1")
    whole, worker.processor._commands = worker.processor._commands, Commands(broken, 5.0)
    with pytest.raises(RedisError, match=r"127\.0\.0\.1"):
        await worker.consume(records)
    assert worker.counters.ends.consumed == 0
    worker.processor._commands = whole
    await worker.consume(records)
    assert worker.counters.ends.consumed == 200
    assert worker.counters.ends.conserved
    await broken.aclose()


async def test_rows_are_written_while_work_goes_on_at_a_position_that_is_acknowledged(
    redis: Redis, topology: Topology
) -> None:
    records = as_records(topology.stream.name, 0, LogMaker(Random(6)).values(100))
    worker = Worker(shop_runtime(topology), redis)
    await worker.start()
    await worker.consume(records[:40], acknowledge=False)
    await asyncio.gather(
        worker.processor.store(), worker.consume(records[40:60], acknowledge=False)
    )
    assert await redis.hget(f"si:{{{topology.name}:0}}:meta", "next_offset") is None
    worker.processor.acknowledged({worker.tp: 40})
    await worker.processor.store()
    assert await redis.hget(f"si:{{{topology.name}:0}}:meta", "next_offset") == b"40"


async def test_a_partition_is_given_back_even_where_its_rest_cannot_be_stored(
    redis: Redis, topology: Topology
) -> None:
    records = as_records(topology.stream.name, 0, LogMaker(Random(7)).values(100))
    leaving, heir = Worker(shop_runtime(topology), redis), Worker(shop_runtime(topology), redis)
    await leaving.start()
    await leaving.consume(records, acknowledge=False)
    broken = StateStore(Redis.from_url("redis://127.0.0.1:1"), topology.name, "", 4)
    whole, leaving.processor._holdings._store = leaving.store, broken
    leaving.processor.acknowledged({leaving.tp: 100})
    with pytest.raises(RedisError):
        await leaving.processor.store()
    with pytest.raises(RedisError):
        await leaving.processor.revoke([leaving.tp])
    leaving.processor._holdings._store = whole
    assert await heir.start(100) == 0
    await leaving.processor.store()
    await heir.consume(records)
    assert await redis.hget(f"si:{{{topology.name}:0}}:meta", "next_offset") == b"100"


async def test_rows_leave_memory_while_each_batch_is_stored_during_the_next(
    redis: Redis, topology: Topology
) -> None:
    """Without a moment at which nothing waits to be stored and a batch begins."""
    records = as_records(topology.stream.name, 0, LogMaker(Random(8)).values(2_000))
    worker = Worker(shop_runtime(topology), redis, rows_max=5)
    await worker.start()
    holdings, held = worker.processor._holdings, []
    read = worker.processor._read

    async def slow_read(work: Any) -> None:
        await read(work)
        worker.processor.acknowledged({worker.tp: work.records[0].offset})
        await worker.processor.store()

    worker.processor._read = slow_read  # type: ignore[method-assign]
    for start in range(0, 2_000, 50):
        await worker.consume(records[start : start + 50], acknowledge=False)
        await asyncio.sleep(0.002)
        held.append(len(holdings[worker.tp].state.shards["@ids"]))
    assert max(held) <= 200
