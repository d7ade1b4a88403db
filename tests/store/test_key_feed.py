"""Batch features stay in the cache while Redis tells which of them change."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from stream_infer.store.batch_features import CHANGES_KEPT_MAX, BatchFeatureReader
from stream_infer.store.commands import Commands
from stream_infer.store.feast_plan import JoinKey, PlanFeature, PlanView, ReadPlan
from stream_infer.store.feast_wire import entity_keys, feature_field, key_entities
from stream_infer.store.key_feed import KeyFeed, _Heard
from tests.store.test_batch_features import PLAN, YES, Clock, absorbed
from tests.stream.kafka_tools import eventually

NO = b"\x38\x00"
JOIN_KEYS = PLAN.views[0].join_keys
FIELD = feature_field("v", "x")


def key_of(name: str) -> bytes:
    key = entity_keys(PLAN.project, JOIN_KEYS)(name)
    assert key is not None
    return key


def told_reader(clock: Clock) -> BatchFeatureReader:
    """Return a reader that has just read "a" and "b", and is told of changes."""
    reader = BatchFeatureReader(PLAN, cache_max_age_s=10.0, clock=clock)
    reader.follow()
    absorbed(reader, ["a", "b"])
    return reader


@pytest.mark.parametrize("entity", ["", "shop", "grüße", "x" * 300])
def test_the_entity_of_a_key_is_found(entity: str) -> None:
    assert key_entities(PLAN.project, JOIN_KEYS)(key_of(entity)) == entity


@pytest.mark.parametrize("entity", [(7, "a"), (-1, ""), ((1 << 63) - 1, "ü")])
def test_the_entity_of_a_key_of_several_parts_is_found(entity: tuple[int, str]) -> None:
    parts = (JoinKey("n", "n", "INT64"), JoinKey("s", "s", "STRING"))
    key = entity_keys("demo", parts)(entity)
    assert key is not None
    assert key_entities("demo", parts)(key) == entity


@pytest.mark.parametrize(
    "change", [lambda k: k[1:], lambda k: k[:-1], lambda k: k + b"o", lambda k: k[:20]]
)
def test_a_key_of_something_else_has_no_entity(change: Any) -> None:
    assert key_entities(PLAN.project, JOIN_KEYS)(change(key_of("some entity"))) is None


def test_what_is_told_not_to_have_changed_is_used_beyond_its_age() -> None:
    clock = Clock()
    reader = told_reader(clock)
    clock.now = 500.0
    reader.told(495.0)
    assert absorbed(reader, ["a", "b"])[0] == 0
    clock.now = 505.5
    assert absorbed(reader, ["a", "b"])[0] == 2  # Nothing was heard for longer than the age.


def test_a_row_that_changed_is_read_at_once() -> None:
    clock = Clock()
    reader = told_reader(clock)
    clock.now = 1.0
    reader.changed([key_of("a"), b"another key", key_of("c")])
    assert absorbed(reader, ["a", "b"])[0] == 1


def test_a_row_that_changed_while_it_was_asked_for_is_read_again() -> None:
    clock = Clock()
    reader = told_reader(clock)
    request = reader.request({"name": ["c", "d"]})
    reader.changed([key_of("c")])
    reader.absorb(request, [YES, YES])
    assert absorbed(reader, ["c", "d"])[0] == 1
    assert absorbed(reader, ["c", "d"])[0] == 1  # At the same moment of the clock: it may be older.
    clock.now = 1.0
    assert absorbed(reader, ["c"])[0] == 1
    assert absorbed(reader, ["c"])[0] == 0


def test_rows_read_before_anybody_told_of_changes_go_by_their_age() -> None:
    clock = Clock()
    reader = BatchFeatureReader(PLAN, cache_max_age_s=10.0, clock=clock)
    absorbed(reader, ["a"])
    clock.now = 1.0
    reader.follow()
    clock.now = 11.0
    reader.told(11.0)
    assert absorbed(reader, ["a"])[0] == 1


@pytest.mark.parametrize("event", ["flushed", "too many", "unfollowed"])
def test_without_knowing_what_changed_rows_go_by_their_age(event: str) -> None:
    clock = Clock()
    reader = told_reader(clock)
    clock.now = 1.0
    if event == "unfollowed":
        reader.unfollow()
    elif event == "flushed":
        reader.changed(None)
    else:
        reader.changed([key_of(f"k{n}") for n in range(CHANGES_KEPT_MAX + 1)])
        reader.changed([key_of("k")])
    clock.now = 11.0
    if event != "unfollowed":
        reader.told(11.0)
    assert absorbed(reader, ["a", "b"])[0] == 2


class _Wire:
    """A transport that counts questions."""

    asked = 0

    def get_protocol(self) -> None: ...
    def set_protocol(self, protocol: object) -> None: ...
    def write(self, data: bytes) -> None:
        self.asked += b"PING" in data


@pytest.mark.parametrize(("took_s", "asked"), [(0.1, 1), (0.3, 2)])
def test_a_server_that_answers_late_is_asked_again_at_once(took_s: float, asked: int) -> None:
    clock, wire = Clock(), _Wire()
    reader: Any = BatchFeatureReader(PLAN, clock=clock)
    heard = _Heard(cast(Any, wire), reader, clock, 0.2)
    heard._ask(clock())
    clock.now += took_s
    heard.data_received(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
    assert wire.asked == asked


# On a real Redis.


@asynccontextmanager
async def following(url: str, age_s: float = 60.0) -> AsyncIterator[tuple[Redis, Any, Any]]:
    """Yield a client, a function that reads one entity's value, and the feed's reader."""
    reader = BatchFeatureReader(PLAN, cache_max_age_s=age_s)
    async with Redis.from_url(url) as redis:
        feed = KeyFeed(redis, reader, interval_s=0.02, timeout_s=5.0)
        feed.start()
        commands = Commands(redis, timeout_s=5.0)
        await eventually(lambda: reader._told_up_to > 0)

        async def value(name: str) -> float:
            return float((await reader.read(commands, {"name": [name]})).values[0, 0])

        try:
            yield redis, value, reader
        finally:
            await feed.close()
            commands.close()


def asks(reader: BatchFeatureReader, name: str) -> bool:
    return bool(reader.request({"name": [name]}).commands)


@pytest.mark.redis
async def test_a_change_in_redis_is_seen_though_the_row_is_young(redis_url: str) -> None:
    async with following(redis_url) as (redis, value, reader):
        await redis.hset(key_of("a"), mapping={FIELD: YES[0], b"_ts:v": YES[1]})
        assert await value("a") == 1.0
        assert not asks(reader, "a")
        await redis.hset(key_of("a"), mapping={FIELD: NO})
        await eventually(lambda: asks(reader, "a"))
        assert await value("a") == 0.0
        await redis.delete(key_of("a"))
        await eventually(lambda: asks(reader, "a"))


@pytest.mark.redis
async def test_a_row_is_kept_for_as_long_as_redis_tells(redis_url: str) -> None:
    async with following(redis_url, age_s=0.5) as (redis, value, reader):
        await redis.hset(key_of("a"), mapping={FIELD: YES[0], b"_ts:v": YES[1]})
        assert await value("a") == 1.0
        read_at = reader._clock()
        await eventually(lambda: reader._told_up_to > read_at + 0.6)
        assert not asks(reader, "a")


@pytest.mark.redis
async def test_a_feed_that_ends_is_begun_anew(redis_url: str) -> None:
    async with following(redis_url) as (redis, value, reader):
        assert await value("b") != await value("b")  # NaN: nothing is stored
        await redis.client_kill_filter(_type="pubsub")
        await eventually(lambda: reader._told_up_to < 0)
        await eventually(lambda: reader._told_up_to > 0)
        await redis.hset(key_of("b"), mapping={FIELD: YES[0], b"_ts:v": YES[1]})
        await eventually(lambda: asks(reader, "b"))
        assert await value("b") == 1.0


@pytest.mark.redis
async def test_a_server_that_may_not_tell_is_left_alone(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as admin:
        await admin.acl_setuser(
            "reader",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            categories=["+@all"],
            commands=["-client"],
        )
    reader = BatchFeatureReader(PLAN, cache_max_age_s=60.0)
    async with Redis.from_url(redis_url, username="reader", password="secret") as redis:
        feed = KeyFeed(redis, reader, interval_s=0.02, timeout_s=5.0)
        feed.start()
        assert feed._task is not None
        async with asyncio.timeout(10):
            await feed._task
        await feed.close()
    assert reader._told_since == float("inf")


def test_a_plan_of_several_entities_names_all_their_keys() -> None:
    views = tuple(
        PlanView(name, name, (JoinKey(name, name, "STRING"),), (PlanFeature("x", "BOOL"),), 0)
        for name in ("a", "b")
    )
    prefixes = BatchFeatureReader(ReadPlan("demo", "service", views)).key_prefixes
    assert len(set(prefixes)) == 2
