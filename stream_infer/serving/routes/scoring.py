"""Scoring and explaining events, and publishing them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from stream_infer.serving.bodies import predictions_json, refusal
from stream_infer.serving.errors import NotAcceptableError, overloaded
from stream_infer.serving.explain import explain
from stream_infer.serving.limits import EXPLAIN_EVENTS_MAX
from stream_infer.serving.routes.common import events_of, json_response, services_of


class DirectRoute(APIRoute):
    """A route whose endpoint takes the path's `name` and the request: nothing is to be resolved."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(request.path_params["name"], request)
            return response

        return handle


router = APIRouter(tags=["events"], route_class=DirectRoute)


@router.post("/v1/topologies/{name}/predict", operation_id="predict", summary="Score events now")
async def predict(name: str, request: Request) -> Response:
    """Score an event, or an array of events, on the state as of now; nothing is stored.

    One event is answered by its prediction, an array by `{"predictions": […]}` in its order. Events
    of an array do not see one another. A request with an event that is not acceptable is refused as
    a whole; `error.events` then names each of them.
    """
    services = services_of(request)
    served = services.topology(name)
    if served.batcher.is_full():
        raise overloaded()  # Before anything is spent on the body.
    body = await events_of(request, services)
    predictions = await served.batcher.submit(body)
    return Response(predictions_json(body, predictions), media_type="application/json")


@router.post("/v1/topologies/{name}/explain", operation_id="explain", summary="Explain a score")
async def explain_event(name: str, request: Request) -> Response:
    """Score one event; show every input with its value, age and source, and each model's part."""
    services = services_of(request)
    scorer = services.topology(name).scorer
    body = await events_of(request, services)
    if len(body.events) > EXPLAIN_EVENTS_MAX:
        raise NotAcceptableError("one event at a time is explained", "body", "send a single event")
    batch = scorer.decode(body.events)
    problems = scorer.problems(batch)
    if problems:
        raise refusal(body, 0, problems)
    async with asyncio.timeout(services.settings.request_timeout_s):
        explanation = await explain(scorer, batch)
    return json_response(explanation)


@router.post("/v1/streams/{name}/events", operation_id="publish", summary="Publish events")
async def publish(name: str, request: Request) -> Response:
    """Publish an event, or an array of events, to the stream's topic, keyed as the stream declares.

    Answered when Kafka has acknowledged all of them, by where each lies: `{"topic", "partition",
    "offset"}`, or `{"published": […]}` for an array. A request with an event that the stream would
    refuse is refused as a whole, and nothing is published.
    """
    services = services_of(request)
    served = services.stream(name)
    body = await events_of(request, services)
    batch = served.scorer.decode(body.events, name)
    if batch.rejects:
        raise refusal(body, 0, batch.rejects)
    sources = served.topology.sources
    stream = sources.streams[sources.index(name)]
    published = await services.publisher.publish(stream, batch.labels(stream.key), body.events)
    services.metrics.published += len(published)
    return json_response({"published": published} if body.many else published[0])
