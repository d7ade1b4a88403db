"""What is stored is read back, and results are found by key in whichever partition they are."""

from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream_infer.core.errors import FencedError
from stream_infer.core.results import Prediction, encode
from stream_infer.core.state import RESULTS, Snapshot, StoredRows
from stream_infer.store import row_writer
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
    assert 60_000 < await redis.pttl(store.row_keys(0, "fixed", KEYS)[1]) <= 120_000
    assert await redis.pttl(store.row_keys(0, "varied", KEYS)[1]) > 3_196_000_000
    assert (await store.acquire(0)).position == (7,)


def rows(text: bytes, *keys: str) -> Snapshot:
    return Snapshot((7,), (11,), [StoredRows("view", 60_000, [(key, text) for key in keys])])


async def test_a_row_written_again_and_again_never_expires_before_its_idle_time(
    redis: Redis, unique: str
) -> None:
    store = StateStore(redis, unique, "", 1)
    named = store.row_keys(0, "view", ["a"])[0]
    owned = await store.write(await store.acquire(0), rows(b"1", "a"))
    await redis.pexpire(named, 100_000)  # as after 20 s
    owned = await store.write(owned, rows(b"2", "a"))
    assert await redis.get(named) == b"2"
    assert 60_000 < await redis.pttl(named) <= 100_000
    lately = next(iter(store._writer._lately.values()))
    lately.until_s -= 61  # as after a minute
    owned = await store.write(owned, rows(b"3", "a"))
    assert 100_000 < await redis.pttl(named) <= 120_000


async def test_rows_of_a_server_that_went_back_have_their_expiry_set_anew(
    redis: Redis, unique: str
) -> None:
    """Even where the epoch went back, too, so that the next owner has the same one."""
    store = StateStore(redis, unique, "", 1)
    named = store.row_keys(0, "view", ["a"])[0]
    before = await store.acquire(0)
    await store.write(before, rows(b"1", "a"))
    await redis.hset(f"si:{{{unique}:0}}:meta", "epoch", before.epoch - 1)
    await redis.pexpire(named, 1_000)
    after = await store.acquire(0)
    assert after.epoch == before.epoch
    await store.write(after, rows(b"2", "a"))
    assert 60_000 < await redis.pttl(named) <= 120_000


async def test_every_row_has_an_expiry_also_where_it_was_gone_when_it_was_written(
    redis: Redis, unique: str
) -> None:
    store = StateStore(redis, unique, "", 1)
    names = store.row_keys(0, "view", ["a", "b"])
    owned = await store.write(await store.acquire(0), rows(b"1", "a"))
    await redis.delete(names[0])
    owned = await store.write(owned, rows(b"2", "b", "a"))
    assert await redis.mget(names) == [b"2", b"2"]
    assert [60_000 < await redis.pttl(name) <= 120_000 for name in names] == [True, True]


@pytest.mark.parametrize("rows_together_max", [row_writer.ROWS_TOGETHER_MAX, 0])
async def test_partitions_are_written_together_or_not_and_each_for_itself(
    redis: Redis, unique: str, rows_together_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_writer, "ROWS_TOGETHER_MAX", rows_together_max)
    store = StateStore(redis, unique, "", 3)
    owned = [await store.acquire(partition) for partition in range(3)]
    await store.acquire(1)
    await redis.script_flush()
    first, second, third = await store.write_all([(one, rows(b"1", "a")) for one in owned])
    assert isinstance(second, FencedError)
    assert [getattr(one, "position", None) for one in (first, third)] == [(7,), (7,)]
    for partition, expected in enumerate([b"1", None, b"1"]):
        assert await redis.get(store.row_keys(partition, "view", ["a"])[0]) == expected


async def test_a_server_that_does_not_answer_is_waited_for_once(
    redis: Redis, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_writer, "ROWS_TOGETHER_MAX", 0)
    store = StateStore(redis, unique, "", 3)
    owned = [await store.acquire(partition) for partition in range(3)]
    asked: list[object] = []

    async def attempt(calls: object) -> list[object]:
        asked.append(calls)
        raise RedisTimeoutError("no answer")

    monkeypatch.setattr(store._writer._commands, "attempt", attempt)
    answers = await store.write_all([(one, rows(b"1", "a")) for one in owned])
    assert [type(answer) for answer in answers] == [RedisTimeoutError] * 3
    assert len(asked) == 1
