"""Who may ask what: token, Host and Origin are checked before a route sees the request."""

import hmac
import ipaddress
import time
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream_infer.core.errors import SettingsError
from stream_infer.monitoring.metrics import HttpMetrics
from stream_infer.serving.errors import (
    ForbiddenError,
    ServingError,
    UnauthorizedError,
    error_response,
)
from stream_infer.settings import Settings

OPEN_PATHS = frozenset({"/", "/docs", "/health/live", "/health/ready"})
"""Answered without a token: health, and pages that hold no data and ask for the token."""
OPEN_PREFIX = "/static/"

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SECURITY = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_binding(settings: Settings) -> None:
    """Raise SettingsError when the server would be open to others without a token."""
    if is_loopback(settings.http_host) or settings.http_token or settings.http_insecure:
        return
    raise SettingsError(
        f"setting 'http_host': {settings.http_host} can be reached from other machines and there "
        "is no token: set STREAM_INFER_HTTP_TOKEN, or allow it with STREAM_INFER_HTTP_INSECURE=true"
    )


def answer_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Add what every answer carries to an answer's headers."""
    if all(name != b"cache-control" for name, _ in headers):
        headers.append((b"cache-control", b"no-store"))
    headers.extend(_SECURITY)


class Rules:
    """Whom a server answers, by a request's headers."""

    def __init__(self, settings: Settings) -> None:
        self._token = settings.http_token.encode()
        self._local_only = not settings.http_token and not settings.http_insecure

    def check(self, path: str, host: str, origin: str | None, authorization: str) -> None:
        """Raise ForbiddenError or UnauthorizedError for a request that is not answered."""
        if self._local_only and host and not is_loopback(_name_of(host)):
            raise ForbiddenError(
                "this server answers to this machine's own names only",
                "header Host",
                "use 127.0.0.1 or localhost, or set STREAM_INFER_HTTP_TOKEN",
            )
        if origin is not None and _netloc_of(origin) != host:
            raise ForbiddenError(
                "pages of another origin may not ask this server",
                "header Origin",
                "ask from its page",
            )
        if not self._token or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return
        kind, _, given = authorization.partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode("utf-8", "replace"), self._token
        ):
            raise UnauthorizedError(
                "the bearer token is missing or wrong",
                "header Authorization",
                "send `Authorization: Bearer TOKEN` with the server's STREAM_INFER_HTTP_TOKEN",
            )


class Guard:
    """Checks each request, adds security headers to each answer, and counts it.

    Without a token, only requests to this machine's own names are answered, so that a web page
    cannot reach the server by a name of its own (DNS rebinding). A request that a browser sends on
    behalf of a page of another origin is refused.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: HttpMetrics) -> None:
        self._app = app
        self._rules = Rules(settings)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        status = 500

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer_headers(message["headers"])
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._rules.check(
                scope["path"],
                headers.get("host", ""),
                headers.get("origin"),
                headers.get("authorization", ""),
            )
        except ServingError as error:
            await error_response(error)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)
        finally:
            self._metrics.request(
                scope["method"] if scope["method"] in _METHODS else "other",
                _route_of(scope),
                status,
                time.perf_counter() - began_s,
            )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _netloc_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _name_of(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _route_of(scope: Scope) -> str:
    route = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else "other"
