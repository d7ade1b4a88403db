"""Batch features over HTTP: the same as in the stream, and explained."""

import struct

import msgspec
import pytest
from redis.asyncio import Redis

from stream_infer import Topology, feast_service
from stream_infer.core.engine import Engine
from stream_infer.core.results import Prediction
from stream_infer.models.ensemble import ModelSet
from stream_infer.store.feast_plan import JoinKey, PlanFeature, PlanView, ReadPlan
from stream_infer.store.feast_wire import entity_keys, feature_field, timestamp_field
from stream_infer.stream.runtime import Runtime
from tests.laws.shop import T0_US, First, Sale, Sum, shop_topology
from tests.serving.support import client_of, consume, event, shop_services

pytestmark = pytest.mark.redis

KEY = JoinKey("shop", "shop", "STRING")
HOUR_S = 3_600
VIEW = PlanView("stats", "stats", (KEY,), (PlanFeature("rating", "DOUBLE"),), HOUR_S * 1_000_000)


def runtime_with_batch_features(name: str) -> Runtime:
    base = shop_topology(name)
    topology = Topology(
        name=name,
        on=Sale,
        inputs=[*base.inputs, feast_service("shops")],
        graph=base.graph,
        output=base.output,
        label=base.label,
    )
    plan = ReadPlan(name, "shops", (VIEW,))
    models = ModelSet({"sum": Sum(), "first": First()})
    engine = Engine(topology, plan.layout())
    return Runtime(topology, engine, plan, models, topology.graph, {"sum": "1", "first": "1"})


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


async def store_rating(redis_url: str, project: str, shop: str, rating: float, at_s: int) -> None:
    """Store a row as Feast does."""
    key = entity_keys(project, (KEY,))(shop)
    assert key is not None
    async with Redis.from_url(redis_url) as redis:
        row = {
            feature_field("stats", "rating"): b"\x29" + struct.pack("<d", rating),
            timestamp_field("stats"): b"\x08" + varint(at_s),
        }
        await redis.hset(key, mapping=row)  # type: ignore[misc,arg-type]


async def test_batch_features_are_those_of_the_stream_and_explained(
    redis_url: str, unique: str
) -> None:
    now_s = T0_US // 1_000_000
    await store_rating(redis_url, unique, "a", 4.5, now_s - 60)
    await store_rating(redis_url, unique, "b", 3.5, now_s - 2 * HOUR_S)
    runtime = runtime_with_batch_features(unique)
    services, _, _ = shop_services(unique, redis_url, runtime=runtime)
    events = [event(sale_id=f"s-{shop}", shop=shop) for shop in "abc"]
    async with client_of(services) as client:
        answer = await client.post(f"/v1/topologies/{unique}/predict", json=events)
        explained = [
            (await client.post(f"/v1/topologies/{unique}/explain", json=one)).json()
            for one in events
        ]
    assert answer.status_code == 200, answer.text
    values = [msgspec.json.encode(one) for one in events]
    published = await consume(redis_url, runtime.topology, values, runtime)
    streamed = {
        one.key: one
        for record in published
        if record.topic == runtime.topology.output and record.value is not None
        for one in [msgspec.json.decode(record.value, type=Prediction)]
    }
    for one in answer.json()["predictions"]:
        assert one["score"] == streamed[one["key"]].score
        assert one["degraded"] == list(streamed[one["key"]].degraded)
        assert one["feature_age_s"] == streamed[one["key"]].feature_age_s
    ratings = [
        next(one for one in found["features"] if one["name"] == "stats__rating")
        for found in explained
    ]
    assert [(one["value"], one["age_s"], one["source"]) for one in ratings] == [
        (4.5, 60, "batch"),
        (None, 2 * HOUR_S, "batch"),
        (None, None, "batch"),
    ]
    assert [one["reason"] for one in ratings] == [
        None,
        "older than its time to live",
        "not in the feature store",
    ]
    assert explained[0]["prediction"]["feature_age_s"] == 60
