"""Scoring over HTTP: what is right, and each thing that can be wrong."""

import asyncio
from random import Random
from typing import Any

import httpx
import msgspec
import pytest

from stream_infer.core.results import Prediction
from stream_infer.serving.asyncapi import schemas
from stream_infer.serving.bodies import Body
from tests.laws.shop import LogMaker, shop_topology
from tests.serving.support import client_of, consume, event, shop_services

pytestmark = pytest.mark.redis

PATH = "/v1/topologies/{}/predict"


async def test_a_score_equals_what_the_stream_predicts_for_the_same_event_and_state(
    redis_url: str, unique: str
) -> None:
    topology = shop_topology(unique)
    log = LogMaker(Random(7)).values(60)
    await consume(redis_url, topology, log)
    services, _, _ = shop_services(unique, redis_url)
    at = "2013-10-01T12:10:00Z"
    events = [
        event(sale_id=f"new-{i}", shop=shop, item=item, at=at)
        for i, (shop, item) in enumerate([("a", "x"), ("b", None), ("c", "y"), ("d", "z")])
    ]
    async with client_of(services) as client:
        answer = await client.post(PATH.format(unique), json=events)
    assert answer.status_code == 200, answer.text
    live = await consume(redis_url, topology, log + [msgspec.json.encode(one) for one in events])
    streamed = {
        prediction.key: prediction
        for record in live
        if record.topic == topology.output and record.value is not None
        for prediction in [msgspec.json.decode(record.value, type=Prediction)]
    }
    for one in answer.json()["predictions"]:
        same = streamed[one["key"]]
        assert one["score"] == same.score
        assert one["scores"] == same.scores
        assert tuple(one["degraded"]) == same.degraded
        assert one["models"] == same.models
        assert one["prediction_id"].startswith(f"{unique}:http:")


async def test_scores_do_not_depend_on_who_shares_the_batch(redis_url: str, unique: str) -> None:
    topology = shop_topology(unique)
    await consume(redis_url, topology, LogMaker(Random(3)).values(40))
    services, _, _ = shop_services(unique, redis_url)
    random = Random(5)
    events = [
        event(
            sale_id=f"q{i}",
            shop=random.choice("abc"),
            item=random.choice(["x", None]),
            amount=random.uniform(0, 99),
        )
        for i in range(40)
    ]
    async with client_of(services) as client:
        path = PATH.format(unique)
        alone = [(await client.post(path, json=one)).json()["score"] for one in events]
        batches = services.metrics.score_batches
        answers = await asyncio.gather(*(client.post(path, json=one) for one in events))
        together = [answer.json()["score"] for answer in answers]
        many = (await client.post(path, json=events)).json()["predictions"]
    assert alone == together == [one["score"] for one in many]
    assert services.metrics.score_batches - batches < len(events)


async def test_scoring_writes_nothing(redis_url: str, unique: str) -> None:
    await consume(redis_url, shop_topology(unique), LogMaker(Random(1)).values(20))
    services, _, _ = shop_services(unique, redis_url)

    async def stored() -> dict[bytes, Any]:
        return {key: await services.redis.dump(key) async for key in services.redis.scan_iter("*")}

    async with client_of(services) as client:
        before = await stored()
        answer = await client.post(PATH.format(unique), json=event(sale_id="new"))
        assert answer.status_code == 200
        assert await stored() == before


async def test_predictions_match_their_published_schema(redis_url: str, unique: str) -> None:
    from jsonschema import Draft202012Validator, FormatChecker

    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        answer = await client.post(PATH.format(unique), json=[event(), event(item=None)])
    root = {"components": {"schemas": schemas(shop_topology(unique))}}
    schema = {**root, "$ref": "#/components/schemas/Prediction"}
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    for prediction in answer.json()["predictions"]:
        validator.validate(prediction)
        assert not validator.is_valid({**prediction, "score": "high"})


BAD_EVENTS = [
    (b"{", 400, "body", "truncated"),
    (b"", 400, "body", "empty"),
    (b"\xff\xfe", 400, "body", ""),
    (b'{"type": "sale", "amount": NaN}', 400, "body", "malformed"),
    (b"[" * 100_000, 400, "body", ""),
    (b"null", 422, "$", "Expected `object`"),
    (b"[]", 422, "body", "empty"),
    (msgspec.json.encode(event(amount="12")), 422, "$.amount", "Expected `float`, got `str`"),
    (msgspec.json.encode(event(kind="gift")), 422, "$.type", "gift"),
    (msgspec.json.encode(event(shop=...)), 422, "$", "shop"),
    (msgspec.json.encode(event(kind="refund")), 422, "$.type", "'sale' event is scored"),
    (msgspec.json.encode(event(at="1900-01-01T00:00:00Z")), 422, "$", "before 2000"),
    (msgspec.json.encode(event(at="2999-01-01T00:00:00Z")), 422, "$", "clock"),
    (msgspec.json.encode(event(at="2013-10-01T00:00:00")), 422, "$", "time zone"),
    (msgspec.json.encode(event(amount=1e300)), 422, "$", "amount"),
    (msgspec.json.encode(event(shop="")), 422, "$", "empty"),
    (msgspec.json.encode(event(shop="s" * 600)), 422, "$", "600"),
]


@pytest.mark.parametrize(
    ("body", "status", "where", "what"), BAD_EVENTS, ids=range(len(BAD_EVENTS))
)
async def test_an_unacceptable_event_is_refused_saying_what_and_where(
    redis_url: str, unique: str, body: bytes, status: int, where: str, what: str
) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        answer = await client.post(PATH.format(unique), content=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["where"] == where
    assert what in error["what"]
    assert error["remedy"]
    assert "Traceback" not in answer.text


async def test_every_unacceptable_event_of_an_array_is_named(redis_url: str, unique: str) -> None:
    services, _, _ = shop_services(unique, redis_url)
    events = [event(), event(amount="x"), event(), event(kind="refund"), event(at="noon")]
    async with client_of(services) as client:
        answer = await client.post(PATH.format(unique), json=events)
    assert answer.status_code == 422
    problems = answer.json()["error"]["events"]
    assert [(one["index"], one["where"]) for one in problems] == [
        (1, "$[1].amount"),
        (3, "$[3].type"),
        (4, "$[4].at"),
    ]


async def test_bodies_are_bounded_in_bytes_and_events(redis_url: str, unique: str) -> None:
    services, _, _ = shop_services(unique, redis_url, http_body_bytes_max=2_048, http_events_max=3)

    async def in_parts() -> Any:
        for _ in range(10):
            yield b" " * 1_000

    async with client_of(services) as client:
        path = PATH.format(unique)
        assert (await client.post(path, content=b" " * 3_000)).status_code == 413
        assert (await client.post(path, content=in_parts())).status_code == 413
        answer = await client.post(path, content=b"[1,2,3,4]")
        assert answer.status_code == 413
        assert "STREAM_INFER_HTTP_EVENTS_MAX" in answer.json()["error"]["remedy"]


async def test_an_unknown_topology_is_answered_with_the_nearest(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        answer = await client.post(PATH.format(unique[:-1]), json=event())
    assert answer.status_code == 404
    assert f"did you mean {unique!r}?" in answer.json()["error"]["remedy"]


async def test_without_redis_the_answer_is_503_in_time(unique: str) -> None:
    services, _, _ = shop_services(unique, "redis://127.0.0.1:1/0", request_timeout_s=0.5)
    async with client_of(services) as client:
        answer = await client.post(PATH.format(unique), json=event(), timeout=5)
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["where"] == "Redis"
    assert ready.status_code == 503
    assert ready.json()["checks"]["redis"]
    assert live.status_code == 200


async def test_more_than_may_wait_is_shed_and_the_rest_answered(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, _, _ = shop_services(unique, redis_url)
    scorer, batcher = services.served[unique].scorer, services.served[unique].batcher
    read, started, go = scorer.read, asyncio.Semaphore(0), asyncio.Event()

    async def held_up(*args: Any, **options: Any) -> Any:
        started.release()
        await go.wait()
        return await read(*args, **options)

    monkeypatch.setattr(scorer, "read", held_up)
    value, path = msgspec.json.encode(event()), PATH.format(unique)
    async with client_of(services) as client:
        answer = asyncio.create_task(client.post(path, content=value))
        await started.acquire()
        waiting = [
            asyncio.create_task(batcher.submit(Body([value] * 1_000, True))) for _ in range(4)
        ]
        await asyncio.sleep(0)
        shed = await client.post(path, content=value)
        go.set()
        assert (await answer).status_code == 200
        assert [len(predictions) for predictions in await asyncio.gather(*waiting)] == [1_000] * 4
    assert shed.status_code == 503
    assert shed.headers["retry-after"] == "1"
    assert services.metrics.shed == 1


async def test_rows_of_another_declaration_are_refused(redis_url: str, unique: str) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        for partition in range(4):
            await services.redis.set(f"si:{{{unique}:{partition}}}:by_shop:a", b"short")
        answer = await client.post(PATH.format(unique), json=event())
    assert answer.status_code == 503
    assert "another declaration" in answer.json()["error"]["what"]


async def test_rows_of_the_same_size_but_another_declaration_are_refused(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        await services.redis.hset(f"si:{{{unique}:0}}:meta", "schema", "another")
        await services.refresh_partitions()
        answer = await client.post(PATH.format(unique), json=event())
    assert answer.status_code == 503
    assert "another declaration" in answer.json()["error"]["what"]


async def test_an_internal_error_shows_no_trace(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, _, _ = shop_services(unique, redis_url)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(services.served[unique].scorer, "decode", broken)
    async with client_of(services) as client:
        answer: httpx.Response = await client.post(PATH.format(unique), json=event())
    assert answer.status_code == 500
    assert answer.json()["error"]["what"] == "internal error"
    assert "secret" not in answer.text


async def test_an_explanation_accounts_for_every_input(redis_url: str, unique: str) -> None:
    topology = shop_topology(unique)
    first = event(sale_id="s0", at="2013-10-01T00:00:00Z", amount=10.0)
    await consume(redis_url, topology, [msgspec.json.encode(first)])
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        path = f"/v1/topologies/{unique}/explain"
        asked = event(sale_id="s1", at="2013-10-01T00:02:00Z", amount=4.0, item=None)
        answer = await client.post(path, json=asked)
        several = await client.post(path, json=[asked, asked])
    assert several.status_code == 422
    found = answer.json()
    features = {one["name"]: one for one in found["features"]}
    assert list(features) == list(services.served[unique].runtime.engine.vector_names)
    assert features["amount"]["value"] == 4.0
    seen = features["by_shop__sales_5m"]
    assert (seen["value"], seen["kind"], seen["window_s"], seen["age_s"]) == (1, "count", 300, 120)
    assert features["by_shop__amount_1h"]["value"] == 10.0
    assert features["by_item__last"]["value"] is None
    assert "no shop + item" in features["by_item__last"]["reason"]
    assert found["state_as_of"] == "2013-10-01T00:00:00Z"
    assert {one["model"]: one["weight"] for one in found["models"]} == {"sum": 0.75, "first": 0.25}
    combined = sum(one["score"] * one["share"] for one in found["models"])
    assert combined == pytest.approx(found["prediction"]["score"])
