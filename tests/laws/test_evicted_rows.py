"""A Redis that evicts rows is noticed: nothing is predicted or folded as if they had never been."""

from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest
from redis.asyncio import Redis

from stream_infer.core.errors import EvictingError
from stream_infer.store.embedded import EmbeddedRedis
from stream_infer.stream.processing import PartitionsFenced
from tests.laws.shop import LogMaker, as_records, shop_runtime, shop_topology
from tests.laws.test_processing import Worker, stored

pytestmark = pytest.mark.redis
PLENTY = 1 << 30


@pytest.fixture(scope="module")
def evicting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    options = {"maxmemory-policy": "allkeys-random", "maxmemory": str(PLENTY)}
    with EmbeddedRedis(tmp_path_factory.mktemp("evicting"), options=options) as server:
        yield server


@pytest.fixture
async def redis(evicting: EmbeddedRedis) -> AsyncIterator[Redis]:
    client = Redis.from_url(evicting.url)
    await client.flushall()
    await client.config_set("maxmemory-policy", "allkeys-random")
    await client.config_resetstat()
    yield client
    await client.aclose()


async def evict(redis: Redis) -> None:
    """Let Redis evict some keys, but not the headers."""
    async for key in redis.scan_iter("si:*:meta"):
        await redis.persist(key)
    await redis.config_set("maxmemory-policy", "volatile-random")
    before = (await redis.info("stats"))["evicted_keys"]
    limit = (await redis.info("memory"))["used_memory"]
    while (await redis.info("stats"))["evicted_keys"] == before:
        limit -= 8_000
        await redis.config_set("maxmemory", limit)
        await redis.get("a command lets it work")
    await redis.config_set("maxmemory", PLENTY)


async def calm(redis: Redis, unique: str, count: int) -> tuple[list[dict], dict[bytes, bytes]]:  # type: ignore[type-arg]
    topology = shop_topology(f"{unique}_calm")
    worker = Worker(shop_runtime(topology), redis)
    await worker.start()
    values = LogMaker(Random(3)).values(count)
    await worker.consume(as_records(topology.stream.name, 0, values))
    await worker.processor.revoke([worker.tp])
    rows = await stored(redis, topology.name)
    async for key in redis.scan_iter(f"si:{{{topology.name}:*"):
        await redis.delete(key)
    return worker.of(topology.output), rows


def scores(predictions: list[dict]) -> dict[str, object]:  # type: ignore[type-arg]
    return {p["prediction_id"].rpartition(":")[2]: p["scores"] for p in predictions}


def columns(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Rows of state, less the latest results, whose ids name the topology."""
    return {key: row for key, row in rows.items() if b"@results" not in key}


async def test_a_partition_whose_rows_were_evicted_is_folded_anew(
    redis: Redis, unique: str
) -> None:
    expected, rows = await calm(redis, unique, 400)
    topology = shop_topology(unique)
    records = as_records(topology.stream.name, 0, LogMaker(Random(3)).values(400))
    worker = Worker(shop_runtime(topology), redis, rows_max=2)
    assert await worker.start() == 0
    await worker.consume(records[:200])
    await worker.processor.store()
    await evict(redis)
    with pytest.raises(PartitionsFenced, match=r"may have evicted rows.*noeviction") as fenced:
        await worker.consume(records[200:])
    assert not fenced.value.reassigned
    assert await worker.start(committed=200) == 0
    assert await redis.keys(f"si:{{{unique}:0}}:by_shop*") == []
    for first in range(0, 400, 50):
        await worker.consume(records[first : first + 50])
    await worker.processor.revoke([worker.tp])
    assert scores(worker.of(topology.output)) == scores(expected)
    assert len(worker.of(topology.output)) == len(expected)
    assert columns(await stored(redis, unique)) == columns(rows)
    assert worker.counters.state_discards == 1
    assert worker.counters.ends.conserved


async def test_the_next_owner_notices_what_was_evicted_while_nobody_worked(
    redis: Redis, unique: str
) -> None:
    topology = shop_topology(unique)
    records = as_records(topology.stream.name, 0, LogMaker(Random(3)).values(200))
    first, second = (Worker(shop_runtime(topology), redis) for _ in range(2))
    await first.start()
    await first.consume(records)
    await first.processor.revoke([first.tp])
    third = Worker(shop_runtime(topology), redis)
    assert await third.start(committed=200) == 200  # nothing was evicted yet
    await evict(redis)
    assert await second.start(committed=200) == 0
    assert await redis.keys(f"si:{{{unique}:0}}:[by@]*") == []


async def test_discarding_goes_on_where_a_crash_interrupted_it(redis: Redis, unique: str) -> None:
    topology = shop_topology(unique)
    records = as_records(topology.stream.name, 0, LogMaker(Random(3)).values(200))
    first, second = (Worker(shop_runtime(topology), redis) for _ in range(2))
    await first.start()
    await first.consume(records)
    await first.processor.revoke([first.tp])
    await redis.hset(f"si:{{{unique}:0}}:meta", "discarding", "1")
    await redis.config_set("maxmemory-policy", "noeviction")
    assert await second.start(committed=200) == 0
    assert await redis.keys(f"si:{{{unique}:0}}:[by@]*") == []
    assert b"discarding" not in await redis.hgetall(f"si:{{{unique}:0}}:meta")


async def test_rows_whose_header_was_evicted_are_not_folded_onto(redis: Redis, unique: str) -> None:
    topology = shop_topology(unique)
    records = as_records(topology.stream.name, 0, LogMaker(Random(3)).values(200))
    first, second = (Worker(shop_runtime(topology), redis) for _ in range(2))
    await first.start()
    await first.consume(records)
    await first.processor.revoke([first.tp])
    await evict(redis)
    await redis.delete(f"si:{{{unique}:0}}:meta")
    await redis.config_set("maxmemory-policy", "noeviction")
    assert await second.start(committed=200) == 0
    assert await redis.keys(f"si:{{{unique}:0}}:[by@]*") == []


async def test_a_partition_pauses_while_redis_keeps_evicting(redis: Redis, unique: str) -> None:
    topology = shop_topology(unique)
    records = as_records(topology.stream.name, 0, LogMaker(Random(3)).values(400))
    worker = Worker(shop_runtime(topology), redis, rows_max=2)
    await worker.start()
    await worker.consume(records[:100])
    for part in (records[100:200], records[200:]):
        await worker.processor.store()
        await evict(redis)
        with pytest.raises(PartitionsFenced):
            await worker.consume(part)
        if part[0].offset == 100:
            assert await worker.start() == 0
            await worker.consume(records[:200])
    with pytest.raises(EvictingError, match=r"keeps evicting rows.*volatile-random.*noeviction"):
        await worker.start()
    await redis.config_set("maxmemory-policy", "noeviction")
    assert await worker.start() == 0
    await worker.consume(records)
    assert worker.counters.ends.conserved


async def test_a_redis_that_never_evicts_is_not_asked_at_each_read(
    redis: Redis, unique: str
) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    topology = shop_topology(unique)
    records = as_records(topology.stream.name, 0, LogMaker(Random(3)).values(400))
    worker = Worker(shop_runtime(topology), redis, rows_max=2)
    await worker.start()
    before = (await redis.info("commandstats"))["cmdstat_eval"]["calls"]
    for first in range(0, 400, 100):
        await worker.consume(records[first : first + 100])
    assert (await redis.info("commandstats"))["cmdstat_eval"]["calls"] == before
    assert await redis.hget(f"si:{{{unique}:0}}:meta", "evictions") is None
