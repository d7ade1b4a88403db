"""Every error of the HTTP server: what it says, and the one table of its statuses."""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka.errors import KafkaError
from redis.exceptions import RedisClusterException, RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stream_infer.core.errors import StateError, did_you_mean
from stream_infer.serving.limits import RETRY_AFTER_S

log = logging.getLogger("stream_infer.serving")


class ServingError(Exception):
    """A request that cannot be answered as asked: what is wrong, where, and what to do."""

    def __init__(self, what: str, where: str, remedy: str, events: Sequence[Any] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy
        self.events = tuple(events)


class InvalidJsonError(ServingError):
    """The body is not JSON."""


class NotAcceptableError(ServingError):
    """The request is well formed, but an event or parameter in it is not acceptable."""


class TooLargeError(ServingError):
    """The body is larger, or holds more events, than a setting allows."""


class TooSlowError(ServingError):
    """The body did not arrive in time."""


class UnauthorizedError(ServingError):
    """The bearer token is missing or wrong."""


class ForbiddenError(ServingError):
    """The request comes from a page or for a host that is not ours."""


class NotFoundError(ServingError):
    """There is nothing by this name."""

    @classmethod
    def named(cls, kind: str, name: str, choices: Sequence[str], where: str) -> "NotFoundError":
        """Say which names there are, the nearest first."""
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        hint = did_you_mean(shown, choices).removeprefix("; ") or f"no {kind} is served"
        return cls(f"there is no {kind} {shown!r}", where, hint)


class OverloadedError(ServingError):
    """More waits than can be served soon."""


def overloaded() -> OverloadedError:
    """Return the error for an event that would wait too long."""
    return OverloadedError(
        "too many events wait to be scored", "server", "try again after Retry-After"
    )


class UnavailableError(ServingError):
    """A dependency does not answer."""


STATUS: dict[type[Exception], int] = {
    InvalidJsonError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    TooSlowError: 408,
    TooLargeError: 413,
    NotAcceptableError: 422,
    OverloadedError: 503,
    UnavailableError: 503,
    StateError: 503,
    RedisError: 503,
    RedisClusterException: 503,
    KafkaError: 503,
    TimeoutError: 503,
}
"""The HTTP status of each error; 500 for any other."""

REDIS_AWAY = (
    "the state store does not answer",
    "Redis",
    "try again; if it lasts, check Redis and the setting STREAM_INFER_REDIS",
)
_REMEDIES: dict[type[Exception], tuple[str, str, str]] = {
    StateError: (
        "the stored state was made by another declaration of the topology",
        "state store",
        "serve the topology that the worker runs",
    ),
    RedisError: REDIS_AWAY,
    RedisClusterException: REDIS_AWAY,
    KafkaError: (
        "Kafka does not answer",
        "Kafka",
        "try again; if it lasts, check Kafka and the setting STREAM_INFER_BROKER",
    ),
    TimeoutError: ("a dependency did not answer in time", "server", "try again"),
}


class ErrorDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong, where, and what to do; `events` names each event that is not acceptable."""

    what: str
    where: str
    remedy: str
    events: tuple["EventProblem", ...] = ()


class EventProblem(msgspec.Struct, frozen=True):
    """One event that is not acceptable: its index in the request, the path in it, and why."""

    index: int
    where: str
    what: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def error_response(error: Exception) -> Response:
    """Return the answer to a request that failed; what went wrong inside is logged, not told."""
    status = status_of(error)
    detail = _detail(error)
    if not isinstance(error, ServingError):
        log.error("%s: %s", detail.what, type(error).__name__, exc_info=status == 500)
    headers = {}
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _answer(status, detail, headers)


def http_error_response(error: HTTPException) -> Response:
    """Return the answer to a request that no route takes."""
    if error.status_code == 405:
        detail = ErrorDetail("the method is not allowed here", "method", "see /openapi.json")
    elif error.status_code == 404:
        detail = ErrorDetail("there is no such page", "path", "see /docs")
    else:
        detail = ErrorDetail(str(error.detail), "request", "see /docs")
    return _answer(error.status_code, detail, dict(error.headers or {}))


def _detail(error: Exception) -> ErrorDetail:
    if isinstance(error, ServingError):
        return ErrorDetail(error.what, error.where, error.remedy, error.events)
    for kind in type(error).__mro__:
        if kind in _REMEDIES:
            return ErrorDetail(*_REMEDIES[kind])
    return ErrorDetail("internal error", "server", "see the server's log")


def _answer(status: int, detail: ErrorDetail, headers: dict[str, str]) -> Response:
    return Response(
        msgspec.json.encode(ErrorBody(detail)), status, headers, media_type="application/json"
    )
