"""Results by key, where the key is not the partition's."""

from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from stream_infer.core.results import Prediction, encode
from stream_infer.core.state import RESULTS
from stream_infer.store.state import StateStore

pytestmark = pytest.mark.redis


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
    redis_url: str, unique: str, newest: int
) -> None:
    redis = Redis.from_url(redis_url)
    store = StateStore(redis, unique, "", 3)
    assert await store.latest_result("k") is None
    for partition in range(3):
        hour = 20 if partition == newest else partition
        await redis.set(store.row_keys(partition, RESULTS, ["k"])[0], result(hour))
    assert await store.latest_result("k") == result(20)
    await redis.aclose()
