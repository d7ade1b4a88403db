"""A worker's own pages: `/metrics`, `/health/live` and `/health/ready`, served by a thread.

A thread answers even when the worker's loop is stuck, which is when its health matters most.
"""

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

REQUEST_TIMEOUT_S = 5.0

Checks = Callable[[], Mapping[str, str | None]]
"""Returns what is wrong with each part, None where it is well."""


class Pages:
    """Pages of one process on `host:port`, port 0 for any free one; stopped by `close`.

    Raises OSError where the address is taken.
    """

    def __init__(
        self,
        metrics: Callable[[], bytes],
        live: Checks,
        ready: Checks,
        *,
        port: int,
        host: str = "127.0.0.1",
    ) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(metrics, live, ready))
        self._server.daemon_threads = True
        self.host = host
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, name="pages", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; returns when the thread has ended."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def health(checks: Mapping[str, str | None]) -> tuple[int, dict[str, Any]]:
    """Return status 200 or 503, and the page: what is wrong with each part, null where nothing."""
    well = not any(checks.values())
    return (200 if well else 503), {"status": "ok" if well else "unavailable", "checks": checks}


def _handler(
    metrics: Callable[[], bytes], live: Checks, ready: Checks
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S
        server_version = "stream-infer"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics())
            elif path in ("/health/live", "/health/ready"):
                status, page = health((live if path.endswith("live") else ready)())
                self._answer(status, "application/json", json.dumps(page).encode())
            else:
                known = (
                    b'{"error": {"what": "no such page", "remedy": "see /metrics, /health/live"}}'
                )
                self._answer(404, "application/json", known)

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet: a scrape is no news."""

    return Handler
