"""Accepting connections, as many as wait: uvloop's own server accepts one a turn of its loop.

A turn may take as long as a batch. Under load, connections would wait for seconds then, and beyond
the listening socket's backlog be dropped, before the server could even refuse them.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

log = logging.getLogger("stream_infer.serving")

ACCEPTED_AT_ONCE = 16
PAUSE_S = 0.5
"""How long nothing is accepted after the system refused, such as for want of open files."""


class Acceptor:
    """Gives each connection on a listening socket a protocol of its own, until it is closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._protocol = protocol
        self._beginning: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept nothing any more, and close the socket."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # It has gone before it was accepted.
            except OSError as error:
                log.error("cannot accept connections (%s); trying again", error.strerror)
                self._loop.remove_reader(self._listener.fileno())
                self._pause = self._loop.call_later(PAUSE_S, self._resume)
                return
            task = self._loop.create_task(self._begin(accepted))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError:
            accepted.close()  # It has gone.
