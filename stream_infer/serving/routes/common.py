"""What several routes need."""

from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from stream_infer.serving.bodies import Body, cut, read_body
from stream_infer.serving.services import Services

_encode = msgspec.json.Encoder().encode


def services_of(request: Request) -> Services:
    """Return the server's services."""
    return cast(Services, request.app.state.services)


def json_response(content: Any, status: int = 200) -> Response:
    """Return msgspec's JSON of structs, dicts, lists; NaN becomes null."""
    return Response(_encode(content), status, media_type="application/json")


async def events_of(request: Request, services: Services) -> Body:
    """Read a request's body and cut it into events, within the server's bounds."""
    settings = services.settings
    body = await read_body(request, settings.http_body_bytes_max, settings.request_timeout_s)
    return cut(body, settings.http_events_max)
