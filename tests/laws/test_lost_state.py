"""A store that lost its last writes: nothing is folded onto rows older than those in memory."""

from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from stream_infer.core.errors import StateLostError
from stream_infer.core.state import Snapshot, StoredRows
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import Settings
from stream_infer.store.state import StateStore
from stream_infer.stream.processing import TP, PartitionsFenced, one_by_one
from stream_infer.stream.processor import TopologyProcessor
from tests.laws.shop import LogMaker, Record, as_records, shop_runtime, shop_topology

pytestmark = pytest.mark.redis


def snapshot(next_offset: int, text: bytes = b"row") -> Snapshot:
    return Snapshot((next_offset,), (0,), [StoredRows("view", 60_000, [("key", text)])])


async def test_rows_are_only_stored_onto_what_was_stored_before(redis: Redis, unique: str) -> None:
    store = StateStore(redis, unique, "schema", 1)
    meta = f"si:{{{unique}:0}}:meta"
    owned = await store.write(await store.acquire(0), snapshot(10))
    later = await store.write(owned, snapshot(20))
    await redis.hset(meta, "next_offset", 10)
    with pytest.raises(StateLostError, match="up to offset 20"):
        await store.write(later, snapshot(30, b"newer"))
    assert await redis.get(f"si:{{{unique}:0}}:view:key") == b"row"
    assert await redis.hget(meta, "next_offset") == b"10"


async def test_nothing_is_stored_where_the_header_is_gone(redis: Redis, unique: str) -> None:
    store = StateStore(redis, unique, "schema", 1)
    owned = await store.write(await store.acquire(0), snapshot(10))
    await redis.delete(f"si:{{{unique}:0}}:meta")
    with pytest.raises(StateLostError):
        await store.write(owned, snapshot(20))
    assert not await redis.exists(f"si:{{{unique}:0}}:meta")


async def test_a_write_whose_answer_was_lost_may_be_repeated(redis: Redis, unique: str) -> None:
    store = StateStore(redis, unique, "schema", 1)
    owned = await store.acquire(0)
    assert await store.write(owned, snapshot(10)) == await store.write(owned, snapshot(10))


async def test_rows_are_only_read_as_new_as_they_were_stored(redis: Redis, unique: str) -> None:
    store = StateStore(redis, unique, "schema", 1)
    owned = await store.write(await store.acquire(0), snapshot(10))
    header = await redis.execute_command(*store.header_command(0))
    store.check_header(owned, header)
    with pytest.raises(StateLostError):
        store.check_header(replace(owned, position=(11,)), header)
    with pytest.raises(StateLostError):
        store.check_header(owned, [None, None])


@pytest.mark.parametrize("rows_max", [2, 1_000])
async def test_predictions_do_not_change_when_the_store_is_set_back(
    redis: Redis, unique: str, rows_max: int
) -> None:
    values = LogMaker(Random(7)).values(300)
    found = []
    for name, faulty in ((f"{unique}_calm", False), (f"{unique}_faulty", True)):
        topology = shop_topology(name)
        runtime = shop_runtime(topology)
        records = as_records(topology.stream.name, 0, values)
        tp = TP(topology.stream.name, 0)
        store = StateStore(redis, name, runtime.engine.schema, 4)
        settings = Settings(flush_interval_s=0.001, state_rows_max=rows_max)
        processor = TopologyProcessor(runtime, redis, store, settings, TopologyCounters())
        scores: dict[str, Any] = {}

        async def consume(
            batch: list[Record], processor: Any = processor, tp: TP = tp, scores: Any = scores
        ) -> None:
            outcome = await processor.process({tp: batch})
            processor.acknowledged(outcome.positions)
            await processor.store()
            await processor.store()
            for record in one_by_one(outcome.outgoing):
                said = msgspec.json.decode(record.value)
                if "scores" in said:
                    scores[said["prediction_id"].rpartition(":")[2]] = said["scores"]

        await processor.assign([tp], {tp: None})
        await consume(records[:100])
        old = {key: await redis.dump(key) async for key in redis.scan_iter(f"si:{{{name}:*")}
        await consume(records[100:200])
        start = 200
        if faulty:
            async for key in redis.scan_iter(f"si:{{{name}:*"):
                await redis.delete(key)
            for key, dumped in old.items():
                await redis.restore(key, 0, dumped)
            with pytest.raises(PartitionsFenced, match="Redis has lost rows") as caught:
                await consume(records[200:])
            assert not caught.value.reassigned
            start = (await processor.assign([tp], {tp: 200}))[tp]
            assert start == 100
        await consume(records[start:])
        await processor.revoke([tp])
        found.append(scores)
    assert found[0] == found[1]
    assert len(found[0]) > 100
