"""A model that hangs does not make the server hang."""

import dataclasses

import pytest

from stream_infer.models.calling import TimedCaller
from stream_infer.models.ensemble import ModelSet
from tests.laws.shop import Blocks, shop_runtime, shop_topology
from tests.serving.support import client_of, event, shop_services

pytestmark = pytest.mark.redis


async def test_a_model_that_hangs_holds_the_server_up_no_longer_than_its_limit(
    redis_url: str, unique: str
) -> None:
    runtime, hanging = shop_runtime(shop_topology(unique)), Blocks()
    models = ModelSet({**runtime.models.models, "first": hanging}, TimedCaller(0.5))
    try:
        services, _, _ = shop_services(
            unique, redis_url, runtime=dataclasses.replace(runtime, models=models)
        )
        async with client_of(services) as client:
            for _ in range(20):
                answer = await client.post(f"/v1/topologies/{unique}/predict", json=event())
                assert answer.status_code == 200, answer.text
                assert answer.json()["scores"]["first"] is None
                assert answer.json()["score"] == answer.json()["scores"]["sum"]
                assert "model:first" in answer.json()["degraded"]
            page = (await client.get("/metrics")).text
    finally:
        hanging.released.set()
    assert hanging.calls == 1
    labels = f'model="first",reason="timeout",topology="{unique}"'
    assert f"stream_infer_model_failures_total{{{labels}}} 20.0" in page
