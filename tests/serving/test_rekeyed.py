"""Rekeyed views over HTTP: the rows, values and ages that the stream would read."""

import msgspec
import pytest
from redis.asyncio import Redis

from stream_infer.core.results import Prediction
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.processing import TP
from tests.laws.rekeyed_shop import SOURCES, Broker, TwoStages, logs, rekeyed_topology
from tests.laws.shop import T0_US, Record, shop_runtime
from tests.serving.support import client_of, event, shop_services

pytestmark = pytest.mark.redis

NEW = [("a", "x"), ("b", "y"), ("c", None), ("d", "z")]


async def test_a_score_reads_rekeyed_views_as_the_stream_does(redis_url: str, unique: str) -> None:
    topology = rekeyed_topology(unique)
    redis = Redis.from_url(redis_url)
    worker = TwoStages(topology, redis, Broker(topology.rekeyed_events))
    await worker.start()
    await worker.consume(log := logs(topology, 4, 200))
    await worker.follow()
    await worker.processor.store()
    ends = {tp: len(records) for tp, records in log.items()}
    services, _, _ = shop_services(unique, redis_url, runtime=shop_runtime(topology))
    at = "2013-10-01T12:14:00Z"
    events = [
        event(sale_id=f"new-{i}", shop=shop, item=item, at=at) for i, (shop, item) in enumerate(NEW)
    ]
    async with client_of(services) as client:
        await services.refresh_partitions()
        url = f"/v1/topologies/{unique}"
        answer = await client.post(f"{url}/predict", json=events)
        explained = (await client.post(f"{url}/explain", json=events[0])).json()
        unknown = (await client.post(f"{url}/explain", json=events[3])).json()
        declared = (await client.get(url)).json()
    assert answer.status_code == 200, answer.text
    said = len(worker.sent)
    for one in events:
        key = str(one["shop"]).encode()
        tp = TP(topology.stream.name, Partitioner().partition(key, range(SOURCES)))
        offset = ends.get(tp, 0)
        ends[tp] = offset + 1
        record = Record(*tp, offset, T0_US // 1000 + 86_400_000, key, msgspec.json.encode(one))
        await worker.consume({tp: [record]})
    streamed = [
        msgspec.json.decode(record.value, type=Prediction)
        for record in worker.sent[said:]
        if record.topic == topology.output and record.value is not None
    ]
    predictions = answer.json()["predictions"]
    assert [one["score"] for one in predictions] == [one.score for one in streamed]
    assert [tuple(one["degraded"]) for one in predictions] == [one.degraded for one in streamed]
    assert "missing:by_item" not in predictions[0]["degraded"]
    assert all("missing:by_item" in one["degraded"] for one in predictions[2:])
    features = {one["name"]: one for one in explained["features"]}
    assert features["by_item__sales_5m"]["value"] is not None
    assert 0 <= features["by_item__sales_5m"]["age_s"] < 840
    assert features["by_sale__last"]["reason"].startswith("no row")
    missing = {one["name"]: one for one in unknown["features"]}["by_item__sales_5m"]
    assert (missing["value"], missing["age_s"]) == (None, None)
    assert missing["reason"].startswith("no row")
    assert declared["topics"]["rekeyed"] == f"{unique}.rekeyed"
    assert [one["rekey"] for one in declared["inputs"] if one["source"] == "view"].count(True) == 3
    await worker.stop()
    await redis.aclose()
