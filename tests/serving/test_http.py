"""Everything of the HTTP server but scoring: publishing, results, guard, documents, health."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from jsonschema import Draft202012Validator

from stream_infer.core.errors import SettingsError
from stream_infer.core.results import Outcome, Prediction, encode
from stream_infer.serving.examples import example_outcome, example_prediction
from stream_infer.serving.guarding import check_binding
from stream_infer.serving.publishing import Publisher
from stream_infer.settings import Settings
from tests.laws.shop import shop_topology
from tests.serving.support import client_of, consume, event, shop_services

pytestmark = pytest.mark.redis


async def test_an_event_is_published_as_it_came_keyed_as_its_stream_declares(
    redis_url: str, unique: str
) -> None:
    services, publisher, _ = shop_services(unique, redis_url)
    stream = f"{unique}.sales"
    sale, refund = msgspec.json.encode(event(shop="b", more=1)), event("refund", shop="c")
    async with client_of(services) as client:
        one = await client.post(f"/v1/streams/{stream}/events", content=sale)
        many = await client.post(f"/v1/streams/{stream}/events", json=[refund, event()])
    assert one.json() == {"topic": stream, "partition": 0, "offset": 0}
    assert [place["offset"] for place in many.json()["published"]] == [1, 2]
    assert publisher.published[0] == (stream, "b", sale)
    assert [key for _, key, _ in publisher.published] == ["b", "c", "a"]


async def test_one_bad_event_keeps_the_whole_request_from_being_published(
    redis_url: str, unique: str
) -> None:
    services, publisher, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        path = f"/v1/streams/{unique}.sales/events"
        answer = await client.post(path, json=[event(), event(at="1900-01-01T00:00:00Z")])
        unknown = await client.post("/v1/streams/sale/events", json=event())
    assert answer.status_code == 422
    assert answer.json()["error"]["events"][0]["index"] == 1
    assert unknown.status_code == 404
    assert publisher.published == []


async def test_without_kafka_publishing_is_answered_503_in_time(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url)
    services.publisher = Publisher(Settings(broker="127.0.0.1:1", request_timeout_s=2.0))
    async with client_of(services) as client:
        path = f"/v1/streams/{unique}.sales/events"
        async with asyncio.timeout(8):
            answer = await client.post(path, json=event(), timeout=10)
    assert answer.status_code == 503
    assert "nothing was published" in answer.json()["error"]["what"]
    assert answer.headers["retry-after"]


async def test_the_latest_prediction_of_a_key_is_what_the_stream_published(
    redis_url: str, unique: str
) -> None:
    topology = shop_topology(unique)
    values = [msgspec.json.encode(event(sale_id="s/1 ä"))]
    published = await consume(redis_url, topology, values)
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        base = f"/v1/topologies/{unique}/predictions"
        found = await client.get(f"{base}/s%2F1%20%C3%A4")
        missing = await client.get(f"{base}/nobody")
        too_long = await client.get(f"{base}/{'k' * 2000}")
    assert found.content == published[0].value
    assert missing.status_code == too_long.status_code == 404
    assert "nobody" not in missing.text


async def test_the_number_of_partitions_is_the_stored_states(redis_url: str, unique: str) -> None:
    await consume(redis_url, shop_topology(unique), [msgspec.json.encode(event())])
    services, _, _ = shop_services(unique, redis_url, partitions=7)
    async with client_of(services):
        await services.refresh_partitions()
        assert services.served[unique].scorer.partitions == 4


TOKEN = {"Authorization": "Bearer secret"}


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"},
     {"Authorization": "Bearer sécret"}, {"Authorization": "Bearer"}],
    ids=["none", "wrong", "basic", "not ascii", "empty"],
)  # fmt: skip
async def test_a_token_guards_everything_that_holds_data(
    redis_url: str, unique: str, headers: dict[str, str]
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_token="secret")
    raw = {name: value.encode() for name, value in headers.items()}
    guarded = ["/metrics", "/openapi.json", "/v1/topologies", f"/v1/topologies/{unique}",
               f"/v1/topologies/{unique}/predictions", "/nothing"]  # fmt: skip
    async with client_of(services) as client:
        for path in guarded:
            answer = await client.get(path, headers=raw)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/docs", "/static/app.js", "/health/live", "/health/ready"):
            assert (await client.get(path, headers=raw)).status_code == 200, path
        assert (await client.get("/v1/topologies", headers=TOKEN)).status_code == 200
        assert services.hub.clients == 0


async def test_pages_of_other_origins_and_names_are_refused(redis_url: str, unique: str) -> None:
    services, publisher, _ = shop_services(unique, redis_url)
    path = f"/v1/streams/{unique}.sales/events"
    own, foreign = "http://localhost:8080", "https://evil.example"
    async with client_of(services) as client:
        for origin, status in ((own, 200), (foreign, 403), ("null", 403)):
            answer = await client.post(path, json=event(), headers={"Origin": origin})
            assert answer.status_code == status, origin
        live = f"/v1/topologies/{unique}/predictions"
        assert (await client.get(live, headers={"Origin": foreign})).status_code == 403
        for headers in ({"Host": "["}, {"Origin": "http://["}):
            answer = await client.get("/v1/topologies", headers=headers)
            assert answer.status_code == 403, headers
        answer = await client.get("/v1/topologies", headers={"Host": "rebound.example"})
        assert answer.status_code == 403
    assert len(publisher.published) == 1


async def test_every_answer_carries_a_strict_policy(redis_url: str, unique: str) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        for path in ("/", "/docs", "/v1/topologies", "/nothing", "/metrics"):
            headers = (await client.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers


def test_other_machines_are_not_served_without_a_token_unless_told_so() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(SettingsError, match="HTTP_TOKEN"):
            check_binding(Settings(http_host=host))
        check_binding(Settings(http_host=host, http_token="t"))
        check_binding(Settings(http_host=host, http_insecure=True))
    for host in ("127.0.0.1", "::1", "localhost"):
        check_binding(Settings(http_host=host))


async def test_unknown_pages_and_methods_are_answered_in_our_form(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        answers = [
            (404, await client.get("/nothing")),
            (404, await client.get("/static/..%2Fapp.py")),
            (405, await client.get(f"/v1/topologies/{unique}/predict")),
            (422, await client.get(f"/v1/topologies/{unique}/predictions?per_second=many")),
        ]
    for status, answer in answers:
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"what", "where", "remedy"}


async def test_readiness_names_what_is_missing(redis_url: str, unique: str) -> None:
    services, _, reader = shop_services(unique, redis_url)
    async with client_of(services) as client:
        assert (await client.get("/health/ready")).json() == {
            "status": "ok",
            "checks": {"redis": None, "models": None, "follower": None},
        }
        reader.problem = "Kafka does not answer"
        answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["follower"] == "Kafka does not answer"


async def test_metrics_name_routes_and_never_keys(redis_url: str, unique: str) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        await client.get(f"/v1/topologies/{unique}/predictions/secret-key")
        await client.get("/other-secret")
        await client.post(f"/v1/topologies/{unique}/predict", json=event())
        text = (await client.get("/metrics")).text
    assert "secret" not in text
    assert 'route="/v1/topologies/{name}/predictions/{key:path}",status="404"' in text
    assert "stream_infer_http_scored_events_total 1.0" in text
    assert 'stream_infer_http_request_seconds_bucket{le="+Inf",route="other"} 1.0' in text


async def test_openapi_examples_are_accepted_and_fit_their_schemas(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        document = (await client.get("/openapi.json")).json()
        used = 0
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert operation["responses"]["200"]["content"], path
                assert operation["summary"], path
                if method != "post":
                    continue
                content = operation["requestBody"]["content"]["application/json"]
                name = operation["parameters"][0]["example"]
                for example in content["examples"].values():
                    answer = await client.post(path.format(name=name), json=example["value"])
                    assert answer.status_code == 200, answer.text
                    answered = operation["responses"]["200"]["content"]["application/json"]
                    for found in (answer.json(), answered["example"]):
                        _validate(document, answered["schema"], found)
                    _validate(document, content["schema"], example["value"])
                    used += 1
    assert used >= 7


def _validate(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


async def test_asyncapi_describes_every_topic_with_messages_that_fit(
    redis_url: str, unique: str
) -> None:
    topology = shop_topology(unique)
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        document = (await client.get(f"/v1/topologies/{unique}/asyncapi.json")).json()
        schemas = (await client.get(f"/v1/topologies/{unique}/schemas.json")).json()
    assert document["asyncapi"] == "3.0.0"
    assert {channel["address"] for channel in document["channels"].values()} == {
        topology.stream.name, topology.output, topology.outcomes, topology.dead_letters
    }  # fmt: skip
    references = _references(document)
    assert references
    for reference in references:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for message in document["components"]["messages"].values():
        for example in message.get("examples", ()):
            _validate(document, message["payload"], example["payload"])
    assert schemas["components"]["schemas"] == document["components"]["schemas"]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in _references(value)]
    return [ref for value in node for ref in _references(value)] if isinstance(node, list) else []


def test_encoded_results_fit_their_schemas() -> None:
    from stream_infer.serving.asyncapi import schemas

    topology = shop_topology("shop")
    document = {"components": {"schemas": schemas(topology)}}
    for result in (example_prediction(topology), example_outcome(topology)):
        schema = {"$ref": f"#/components/schemas/{type(result).__name__}"}
        _validate(document, schema, msgspec.json.decode(encode(result)))
    nothing: Prediction | Outcome = msgspec.structs.replace(
        example_prediction(topology), score=float("nan"), scores={"sum": float("nan")}
    )
    _validate(document, {"$ref": "#/components/schemas/Prediction"},
              msgspec.json.decode(encode(nothing)))  # fmt: skip


async def test_the_declaration_tells_what_is_served(redis_url: str, unique: str) -> None:
    services, _, _ = shop_services(unique, redis_url)
    async with client_of(services) as client:
        answer: httpx.Response = await client.get("/v1/topologies")
        one = (await client.get(f"/v1/topologies/{unique}")).json()
    assert answer.json() == {"topologies": [one]}
    assert one["vector"] == list(services.served[unique].runtime.engine.vector_names)
    assert one["models"][0] == {"name": "sum", "version": "1", "weight": 0.75}
    assert one["inputs"][1]["by"] == ["shop"]
    assert one["topics"]["outcomes"] == f"{unique}.outcomes"
