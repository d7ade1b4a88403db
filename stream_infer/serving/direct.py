"""The short way of a request for predictions, past the application's layers.

Most of what a small request costs is what is built around it: a task, a scope, a chain of
middleware, a request object, a response object. A request for predictions that arrives whole in one
piece needs none of them: its bytes go from the parser to the batcher, and the answer's bytes to the
connection. The application answers all other requests, the same ones that come in
parts among them, so a direct answer differs from its answers in nothing but its cost.
"""

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from stream_infer.serving.bodies import Body, cut, predictions_json
from stream_infer.serving.errors import (
    OverloadedError,
    ServingError,
    error_response,
    overloaded,
)
from stream_infer.serving.guarding import Rules, answer_headers
from stream_infer.serving.heads import Heads
from stream_infer.serving.pacing import TURNS_A_WAIT, Pace
from stream_infer.serving.services import Served, Services

ROUTE = "/v1/topologies/{name}/predict"
Headers = Sequence[tuple[bytes, bytes]]


class Direct:
    """What the connections of a server share of the short way."""

    def __init__(self, services: Services) -> None:
        self.metrics = services.metrics
        self._rules = Rules(services.settings)
        self._bytes_max = services.settings.http_body_bytes_max
        self._events_max = services.settings.http_events_max
        self._served = {
            ROUTE.format(name=quote(name)).encode(): one for name, one in services.served.items()
        }
        self._head = _head_of(Response(media_type="application/json"))
        self.heads = Heads[Served]()
        self.pace = Pace(services.settings.http_wait_max_ms / 1e3 / TURNS_A_WAIT)
        self.refusal = answer_bytes(error_response(overloaded()))
        """The answer when more waits than can be served soon."""

    def served(self, url: bytes, headers: Headers) -> Served | None:
        """Return whose predictions a POST asks for; None where the application is to answer it."""
        served = self._served.get(url)
        if served is None:
            return None
        host, origin, authorization = "", None, ""
        for name, value in headers:
            if name == b"host":
                host = host or value.decode("latin-1")
            elif name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"authorization":
                authorization = authorization or value.decode("latin-1")
            elif name == b"content-length" and int(value) > self._bytes_max:
                return None
        try:
            self._rules.check("", host, origin, authorization)
        except ServingError:
            return None
        return served

    def is_full(self, served: Served) -> bool:
        """Whether a request for those predictions is refused for now."""
        batcher = served.batcher
        return batcher.is_full() or self.pace.is_full(batcher.waiting_size)

    def takes(self, body: bytes) -> bool:
        """Whether a whole body is not too large."""
        return len(body) <= self._bytes_max

    def cut(self, body: bytes) -> Body:
        """Cut a body into events; see `bodies.cut`."""
        return cut(body, self._events_max)

    def answer(self, body: Body, result: list[bytes] | Exception) -> tuple[int, bytes]:
        """Return status and bytes, but for the status line and the date, of an answer."""
        if isinstance(result, Exception):
            return self.failed(result)
        content = predictions_json(body, result)
        return 200, b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(content), content)

    def failed(self, error: Exception) -> tuple[int, bytes]:
        """Return the same of an answer to a request that failed."""
        if isinstance(error, OverloadedError):
            self.metrics.shed += 1
            return 503, self.refusal
        response = error_response(error)
        return response.status_code, answer_bytes(response)


class _Unheard:
    """Stands for the event by which the server's cycles hear of bytes: this one has them all."""

    def set(self) -> None:
        pass


class DirectCycle:
    """One request on the short way, in the place of the server's own kind of cycle."""

    __slots__ = (
        "_began_s",
        "_body",
        "_protocol",
        "disconnected",
        "keep_alive",
        "response_complete",
    )
    message_event = _Unheard()

    def __init__(self, protocol: Any, keep_alive: bool) -> None:
        self._protocol = protocol
        self._began_s = time.perf_counter()
        self._body = Body([], False)
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    def begin(self, served: Served, body: bytes) -> None:
        """Let the request's events wait to be scored."""
        direct = self._protocol.direct
        try:
            self._body = direct.cut(body)
            served.batcher.offer(self._body, self._scored)
        except Exception as error:  # Answered as the application would.
            self.send(*direct.failed(error))

    def _scored(self, result: list[bytes] | Exception) -> None:
        self.send(*self._protocol.direct.answer(self._body, result))

    def send(self, status: int, rest: bytes) -> None:
        """Send an answer's bytes, but for its status line and date, and end the request."""
        protocol = self._protocol
        transport = protocol.transport
        self.response_complete = True
        seconds = time.perf_counter() - self._began_s
        protocol.direct.metrics.request("POST", ROUTE, status, seconds)
        if self.disconnected or transport.is_closing():
            return
        begin = protocol.server_head(status)
        if self.keep_alive:
            transport.write(begin + rest)
        else:
            transport.write(b"%bconnection: close\r\n%b" % (begin, rest))
            transport.close()
        protocol.on_direct_answer()


def answer_bytes(response: Response) -> bytes:
    """Return a response's bytes, but for its status line and date, with the headers of every one.

    >>> answer_bytes(Response(b"{}"))[:19]
    b'content-length: 2\\r\\n'
    """
    return b"%b\r\n%b" % (_head_of(response, length=True), bytes(response.body))


def _head_of(response: Response, *, length: bool = False) -> bytes:
    headers = [
        (name, value) for name, value in response.raw_headers if length or name != b"content-length"
    ]
    answer_headers(headers)
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def status_and_headers(status: int, headers: Headers) -> bytes:
    """Return the first lines of an answer."""
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers)
