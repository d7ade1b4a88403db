"""The OpenAPI document: FastAPI's, with schemas and examples of what msgspec reads and writes."""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from stream_infer.core.events import Event
from stream_infer.core.results import Outcome, Prediction
from stream_infer.core.topology import Topology
from stream_infer.serving.errors import ErrorBody, ErrorDetail
from stream_infer.serving.examples import example_event, example_prediction
from stream_infer.serving.explain import Explanation, FeatureValue, ModelScore
from stream_infer.serving.publishing import Published
from stream_infer.serving.services import Services
from stream_infer.serving.summary import Summary

REF = "#/components/schemas/{name}"
JSON, TEXT, EVENTS = "application/json", "text/plain", "text/event-stream"
_TAKES_EVENTS = {"predict", "explain", "publish"}
_ERRORS = {
    "400": "the body is not JSON",
    "401": "the bearer token is missing or wrong",
    "403": "the request comes from a page or for a host that is not ours",
    "404": "there is nothing by this name",
    "408": "the body did not arrive in time",
    "413": "the body, or the number of events in it, is too large",
    "422": "an event or parameter is not acceptable",
    "503": "overloaded, or a dependency does not answer; see Retry-After",
}
_OPEN = {"live", "ready"}


def build_openapi(app: FastAPI, services: Services) -> dict[str, Any]:
    """Return the document, with examples made from the topologies that are served."""
    document = get_openapi(
        title="stream-infer",
        version=app.version,
        description="Score events, publish them, look results up and follow them live.",
        routes=app.routes,
    )
    topologies = [one.topology for one in services.served.values()]
    types = {event for topology in topologies for event in topology.event_types}
    structs: list[Any] = [Prediction, Outcome, Explanation, Published, Summary, ErrorBody]
    ordered = sorted(types, key=lambda event: event.__qualname__)
    _, schemas = msgspec.json.schema_components([*structs, *ordered], ref_template=REF)
    document["components"] = {
        "schemas": schemas,
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    for path in document["paths"].values():
        for operation in path.values():
            _complete(operation, services, topologies)
    return document


def _complete(operation: dict[str, Any], services: Services, topologies: list[Topology]) -> None:
    name = operation["operationId"]
    if name not in _OPEN:
        operation["security"] = [{"token": []}, {}]
    takes_name = any(p["name"] == "name" for p in operation.get("parameters", ()))
    if takes_name:
        known = [topology.name for topology in topologies]
        if name == "publish":
            streams = [stream.name for topology in topologies for stream in topology.streams]
            known = list(dict.fromkeys(streams))
        for parameter in operation["parameters"]:
            if parameter["name"] == "name":
                parameter["example"] = known[0] if known else "flight_delay"
            if parameter["name"] == "key" and topologies:
                parameter["example"] = example_prediction(topologies[0]).key
    if name in _TAKES_EVENTS:
        operation["requestBody"] = _request_body(name, topologies)
    statuses = {"401", "403"} if name not in _OPEN else set()
    if takes_name:
        statuses |= {"404"}
    if name in _TAKES_EVENTS:
        statuses |= {"400", "408", "413", "422", "503"}
    if name in ("follow", "latest"):
        statuses |= {"503", "422"} if name == "follow" else {"503"}
    content = _success(name, services, topologies)
    operation["responses"] = {
        "200": {"description": "success", "content": content},
        **{status: _error(status) for status in sorted(statuses)},
    }
    if name == "ready":
        operation["responses"]["503"] = {"description": "not ready", "content": content}


def _request_body(name: str, topologies: list[Topology]) -> dict[str, Any]:
    accepted: dict[type[Event], None] = {}
    examples: dict[str, Any] = {}
    for topology in topologies:
        types = topology.event_types if name == "publish" else (topology.on,)
        for event_type in types:
            accepted[event_type] = None
            example = example_event(event_type)
            title = f"{topology.name}: {event_type.__name__}"
            examples[title] = {"value": example}
            if name != "explain":
                examples[f"{title}, several"] = {"value": [example, example]}
    one = {"anyOf": [{"$ref": REF.format(name=kind.__name__)} for kind in accepted]}
    many = {"type": "array", "items": one, "minItems": 1}
    schema = one if name == "explain" else {"anyOf": [one, many]}
    return {"required": True, "content": {JSON: {"schema": schema, "examples": examples}}}


def _success(name: str, services: Services, topologies: list[Topology]) -> dict[str, Any]:
    if not topologies:
        return {JSON: {}}
    topology = topologies[0]
    versions = services.topology(topology.name).runtime.versions
    prediction = msgspec.to_builtins(example_prediction(topology, versions))
    place = {"topic": topology.stream.name, "partition": 0, "offset": 17}
    objects = {"type": "object"}
    found: dict[str, tuple[Any, Any]] = {
        "predict": (_one_or_many("Prediction", "predictions"), prediction),
        "publish": (_one_or_many("Published", "published"), place),
        "explain": ({"$ref": REF.format(name="Explanation")}, _explanation(prediction)),
        "latest": ({"$ref": REF.format(name="Prediction")}, prediction),
        "topologies": (objects, {"topologies": [{"name": topology.name}]}),
        "topology": (objects, {"name": topology.name, "stream": topology.stream.name}),
        "asyncapi": (objects, {"asyncapi": "3.0.0", "info": {"title": topology.name}}),
        "schemas": (objects, {"components": {"schemas": {}}}),
        "live": (objects, {"status": "ok"}),
        "ready": (objects, {"status": "ok", "checks": {"redis": None, "models": None}}),
    }
    if name == "metrics":
        return {TEXT: {"example": 'stream_infer_http_requests_total{route="/health/live"} 3.0\n'}}
    if name == "follow":
        data = msgspec.json.encode(example_prediction(topology, versions)).decode()
        return {EVENTS: {"example": f"event: prediction\ndata: {data}\n\n"}}
    schema, example = found[name]
    return {JSON: {"schema": schema, "example": example}}


def _explanation(prediction: dict[str, Any]) -> Any:
    feature = FeatureValue(name="view__feature", value=3.0, source="view", view="view")
    models = [
        ModelScore(model=name, version=version, weight=1.0, share=1.0, score=12.5)
        for name, version in prediction["models"].items()
    ]
    return {
        "prediction": prediction,
        "partition": 0,
        "state_as_of": prediction["event_time"],
        "features": [msgspec.to_builtins(feature)],
        "models": [msgspec.to_builtins(model) for model in models],
    }


def _one_or_many(schema: str, plural: str) -> dict[str, Any]:
    one = {"$ref": REF.format(name=schema)}
    properties = {plural: {"type": "array", "items": one}}
    return {"anyOf": [one, {"type": "object", "properties": properties, "required": [plural]}]}


def _error(status: str) -> dict[str, Any]:
    example = ErrorBody(ErrorDetail(_ERRORS[status], "where it is wrong", "what to do"))
    content = {
        "schema": {"$ref": REF.format(name="ErrorBody")},
        "example": msgspec.to_builtins(example),
    }
    return {"description": _ERRORS[status], "content": {JSON: content}}
