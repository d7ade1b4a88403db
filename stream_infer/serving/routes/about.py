"""What is served, how it is doing, and the pages for people."""

from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from stream_infer.monitoring.exposition import CONTENT_TYPE, render
from stream_infer.monitoring.pages import health
from stream_infer.serving.asyncapi import document, schemas
from stream_infer.serving.declaration import declaration
from stream_infer.serving.errors import NotFoundError
from stream_infer.serving.routes.common import json_response, services_of

router = APIRouter(tags=["about"])
pages = APIRouter(include_in_schema=False)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOLDER = files("stream_infer.serving.dashboard")
STATIC = {
    item.name: (_TYPES[suffix], item.read_bytes())
    for item in _FOLDER.iterdir()
    if (suffix := "." + item.name.rpartition(".")[2]) in _TYPES
}
"""Files of the pages by name, with their type; read once."""


@router.get("/v1/topologies", operation_id="topologies", summary="Topologies served here")
async def topologies(request: Request) -> Response:
    """Return the declarations of all topologies."""
    served = services_of(request).served.values()
    return json_response({"topologies": [declaration(one.runtime) for one in served]})


@router.get("/v1/topologies/{name}", operation_id="topology", summary="One topology")
async def topology(name: str, request: Request) -> Response:
    """Return a topology's declaration: inputs, vector, models with versions and weights."""
    return json_response(declaration(services_of(request).topology(name).runtime))


@router.get("/v1/topologies/{name}/asyncapi.json", operation_id="asyncapi", summary="Its topics")
async def asyncapi(name: str, request: Request) -> Response:
    """Return the AsyncAPI 3.0 document of the topics that a topology reads and writes."""
    return json_response(document(services_of(request).topology(name).topology))


@router.get("/v1/topologies/{name}/schemas.json", operation_id="schemas", summary="Its schemas")
async def json_schemas(name: str, request: Request) -> Response:
    """Return the JSON Schemas of a topology's events, results and dead-letter headers."""
    found = schemas(services_of(request).topology(name).topology)
    return json_response({"components": {"schemas": found}})


@router.get("/health/live", operation_id="live", summary="Is the process alive?")
async def live() -> Response:
    """Answer at all."""
    return json_response({"status": "ok"})


@router.get("/health/ready", operation_id="ready", summary="Can it answer?")
async def ready(request: Request) -> Response:
    """Return what is wrong with each dependency, null where nothing; 503 when anything is."""
    status, page = health(await services_of(request).ready())
    return json_response(page, status)


@router.get("/metrics", operation_id="metrics", summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """Return this server's metrics in Prometheus' text format."""
    return Response(render(services_of(request).registry), media_type=CONTENT_TYPE)


@pages.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    return json_response(request.app.openapi())


@pages.get("/")
async def index() -> Response:
    """Return the live page."""
    return _file("index.html")


@pages.get("/docs")
async def docs() -> Response:
    """Return the page that shows and tries the API."""
    return _file("docs.html")


@pages.get("/static/{file}")
async def static(file: str) -> Response:
    """Return a file of the pages."""
    return _file(file)


def _file(name: str) -> Response:
    if name not in STATIC:
        raise NotFoundError("there is no such file", "path", "see /")
    content_type, content = STATIC[name]
    # "no-cache": asked again each time, so that page and script are of one version.
    headers = {"cache-control": "no-cache"}
    return Response(content, headers=headers, media_type=content_type)
