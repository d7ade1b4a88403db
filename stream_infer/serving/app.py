"""The HTTP application: routes, errors and guard around the services."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stream_infer.serving.errors import (
    STATUS,
    NotAcceptableError,
    OverloadedError,
    error_response,
    http_error_response,
)
from stream_infer.serving.guarding import Guard
from stream_infer.serving.openapi import build_openapi
from stream_infer.serving.routes import about, results, scoring
from stream_infer.serving.routes.common import services_of
from stream_infer.serving.services import Services


def create_app(services: Services) -> FastAPI:
    """Return the application; the caller runs `services.running()` around it."""
    app = FastAPI(title="stream-infer", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.services = services
    for router in (scoring.router, results.router, about.router, about.pages):
        app.include_router(router)
    for kind in (*STATUS, Exception):
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Guard, settings=services.settings, metrics=services.metrics)
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(build_openapi(app, services))
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return app


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, OverloadedError):
        services_of(request).metrics.shed += 1
    return error_response(error)


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_error_response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = " ".join(map(str, first["loc"]))
    return error_response(NotAcceptableError(first["msg"], where, "see /docs"))
