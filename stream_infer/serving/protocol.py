"""HTTP on one connection: uvicorn's, with deadlines, a bound, and the short way for predictions."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stream_infer.serving.direct import ROUTE, Direct, DirectCycle, status_and_headers
from stream_infer.serving.limits import HEADERS_TIMEOUT_S
from stream_infer.serving.services import Served


class Config(uvicorn.Config):
    """uvicorn's configuration, and what a `Connection` needs; more than a number are refused."""

    def __init__(self, app: Any, direct: Direct, connections_max: int, **options: Any) -> None:
        super().__init__(app, http=Connection, **options)
        self.direct = direct
        self.connections_max = connections_max


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP, closing a connection that takes too long to send a request's headers."""

    _leaving = False
    _excess = False
    _in_head = False
    _deadline: asyncio.TimerHandle | None = None
    _held: Served | None = None
    """Whose predictions the request asks for that is being read, where it may go the short way."""
    _held_body = b""
    _rests = True
    """Whether the next byte begins a request, after none or ones that went the short way."""
    _rests_next = False
    _alone = b""
    """What has come in one piece since the parser rested."""
    _rested_s = 0.0
    _date: tuple[Any, dict[int, bytes]] = (None, {})
    """The server's own headers, and how an answer begins with them, by status."""

    def __init__(self, config: Config, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self.direct = config.direct

    def say_farewell(self) -> None:
        """Close the connection with the answer to the request that runs, or to the next one."""
        self._leaving = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        assert isinstance(self.config, Config)
        self._excess = len(self.connections) > self.config.connections_max
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request that is only begun starts the clock."""
        if self._rests:
            found = self.direct.heads.find(data)
            if found is not None and self._is_free():
                self._take(*found)
                return
            self._alone = data
        super().data_received(data)
        self._alone = b""
        if self._held is not None:
            self._hand_over()
        if self._leaving:
            self.say_farewell()
        if self._deadline is None and self._in_head and self._between_requests():
            self._await_headers()

    def on_message_begin(self) -> None:
        """Note that headers come."""
        self._in_head, self._rests, self._rests_next = True, False, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin a request: refuse it, hold it for the short way, or give it to the application."""
        self._in_head = False
        self._stop_clock()
        if self._excess and self._between_requests():
            self._refuse(keep_alive=False)
            return
        served = self._direct_target()
        if served is None:
            super().on_headers_complete()
            return
        self._rests_next = self.parser.should_keep_alive()
        if self.direct.is_full(served):
            # Answered at once, so that refusing costs next to nothing; the body is passed over.
            self._refuse(keep_alive=self._rests_next and not self._leaving)
        else:
            self._held, self._held_body = served, b""

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held_body = self._held_body + body if self._held_body else body

    def on_message_complete(self) -> None:
        """Begin a request that has arrived whole."""
        served, body = self._held, self._held_body
        self._rests = self._rests_next
        if served is None:
            super().on_message_complete()
        elif not self.direct.takes(body):
            self._hand_over()
            super().on_message_complete()
        else:
            self._held = None
            if self._rests:
                self.direct.heads.learn(self._alone, served, len(body))
            cycle = DirectCycle(self, self._rests and not self._leaving)
            self.cycle = cycle  # type: ignore[assignment]
            cycle.begin(served, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_direct_answer(self) -> None:
        """Begin to wait for the next request, after an answer on the short way."""
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self._rested_s = self.loop.time()
        # One timer that looks when it is due, not one for each answer.
        if self.timeout_keep_alive_task is None:
            self._close_idle_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection where no request has come for too long."""
        self.timeout_keep_alive_task = None
        if not self._between_requests():
            return  # Its answer begins the wait anew.
        left_s = self._rested_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._close_idle_in(left_s)
        else:
            super().timeout_keep_alive_handler()

    def server_head(self, status: int) -> bytes:
        """Return how an answer begins: its status line, and the server's own headers."""
        headers = self.server_state.default_headers
        if Connection._date[0] is not headers:
            Connection._date = headers, {}
        known = Connection._date[1]
        if status not in known:
            known[status] = status_and_headers(status, headers)
        return known[status]

    def _direct_target(self) -> Served | None:
        if (
            self.parser.get_method() != b"POST"
            or self.expect_100_continue
            or self.flow.write_paused
            or self.pipeline
            or not self._between_requests()
            or self.parser.get_http_version() != "1.1"
            or self.parser.should_upgrade()
        ):
            return None
        return self.direct.served(self.url, self.headers)

    def _hand_over(self) -> None:
        """Give the held request to the application after all: it is not here as a whole."""
        body, self._held = self._held_body, None
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _is_free(self) -> bool:
        """Whether a request that comes now can go the short way."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
            and not self._leaving
            and not self._excess
        )

    def _take(self, served: Served, body: bytes) -> None:
        """Begin a whole request whose head is known."""
        if self._deadline is not None:
            self._stop_clock()
        direct = self.direct
        if direct.is_full(served):
            direct.metrics.shed += 1
            direct.metrics.request("POST", ROUTE, 503, 0.0)
            self.transport.write(self.server_head(503) + direct.refusal)
            self.on_direct_answer()
            direct.pace.refused(self.flow, self.loop)
        else:
            cycle = DirectCycle(self, True)
            self.cycle = cycle  # type: ignore[assignment]
            cycle.begin(served, body)

    def _refuse(self, *, keep_alive: bool) -> None:
        self.direct.metrics.shed += 1
        cycle = self.cycle = DirectCycle(self, keep_alive)  # type: ignore[assignment]
        cycle.send(503, self.direct.refusal)
        if keep_alive:
            self.direct.pace.refused(self.flow, self.loop)

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_idle_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_TIMEOUT_S, self._expire)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()
