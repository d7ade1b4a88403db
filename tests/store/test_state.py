"""What is stored is read back, and results are found by key in whichever partition they are."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from stream_infer.core.results import Prediction, encode
from stream_infer.core.state import RESULTS, Snapshot, StoredRows
from stream_infer.store.state import StateStore

pytestmark = pytest.mark.redis


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


def result(hour: int) -> bytes:
    at = datetime(2013, 10, 1, hour, tzinfo=UTC)
    prediction = Prediction(
        prediction_id=f"t:s:0:{hour}",
        topology="t",
        key="k",
        score=1.0,
        scores={},
        models={},
        event_time=at,
        predicted_at=at,
    )
    return encode(prediction)


@pytest.mark.parametrize("newest", range(3))
async def test_the_latest_result_of_a_key_is_found_in_whichever_partition_it_is(
    redis: Redis, unique: str, newest: int
) -> None:
    store = StateStore(redis, unique, "", 3)
    assert await store.latest_result("k") is None
    for partition in range(3):
        hour = 20 if partition == newest else partition
        await redis.set(store.row_keys(partition, RESULTS, ["k"])[0], result(hour))
    assert await store.latest_result("k") == result(20)
    await redis.aclose()


KEYS = [
    "plain",
    "a\x1fb",
    'quo"te\\',
    "line\nbreak",
    "nul\0",
    "ümlaut 東京 🛩",
    "{brace}",
    "",
    "1e3",
]


async def test_rows_of_any_key_length_and_content_are_read_back(redis: Redis, unique: str) -> None:
    store = StateStore(redis, unique, "", 1)
    fixed = [(key, bytes([number]) * 300) for number, key in enumerate(KEYS)]
    varied = [(key, bytes(range(256)) * number + b"end") for number, key in enumerate(KEYS)]
    groups = [StoredRows("fixed", 60_000, fixed), StoredRows("varied", 3_196_800_000, varied)]
    await store.write(await store.acquire(0), Snapshot((7,), (11,), groups))
    assert await redis.mget(store.row_keys(0, "fixed", KEYS)) == [row for _, row in fixed]
    assert await redis.mget(store.row_keys(0, "varied", KEYS)) == [row for _, row in varied]
    assert 59_000 < await redis.pttl(store.row_keys(0, "fixed", KEYS)[1]) <= 60_000
    assert await redis.pttl(store.row_keys(0, "varied", KEYS)[1]) > 3_196_000_000
    assert (await store.acquire(0)).position == (7,)
