"""The HTTP server as a program: `serve` returns when it is told to stop."""

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn
from sse_starlette.sse import AppStatus

from stream_infer import collector
from stream_infer.core.errors import SettingsError
from stream_infer.loading import load_topology
from stream_infer.serving.accepting import Acceptor
from stream_infer.serving.app import create_app
from stream_infer.serving.direct import Direct
from stream_infer.serving.guarding import check_binding
from stream_infer.serving.limits import (
    CONNECTIONS_MAX,
    FAREWELL_S,
    KEEP_ALIVE_TIMEOUT_S,
    OPEN_FILES_SPARE,
)
from stream_infer.serving.protocol import Config, Connection
from stream_infer.serving.services import Services, build_services
from stream_infer.settings import Settings
from stream_infer.stream.kafka_connections import use_lean_connections
from stream_infer.stream.runtime import build_runtime

log = logging.getLogger("stream_infer.serving")
BACKLOG = 2048
FAREWELL_STEPS = 50


class Server(uvicorn.Server):
    """uvicorn's server; asked to stop, it ends live streams so that it can drain."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept on the sockets."""
        await super().startup([])
        loop = asyncio.get_running_loop()

        def connection() -> Connection:
            config = self.config
            assert isinstance(config, Config)
            return Connection(config, self.server_state, self.lifespan.state, loop)

        self._acceptors = [Acceptor(loop, listener, connection) for listener in sockets or ()]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: finish what is in flight; a second time, at once."""
        self._services.hub.close()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections; answer what comes on open ones, with a farewell; end."""
        for acceptor in self._acceptors:
            acceptor.close()
        # A request may be under way on a connection that looks idle here: closed at once, it would
        # be lost without an answer.
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.say_farewell()
        for _ in range(FAREWELL_STEPS):
            if not self.server_state.connections or self.force_exit:
                break
            await asyncio.sleep(FAREWELL_S / FAREWELL_STEPS)
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Stop as a signal would."""
        self.handle_exit(signal.SIGTERM, None)


def bind(settings: Settings) -> socket.socket:
    """Return a listening socket; raises SettingsError where the address cannot be had."""
    check_binding(settings)
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.http_host, settings.http_port))
        # At once, so that a caller who reads the address is not refused before the loop runs.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {settings.http_host}:{settings.http_port}: {error.strerror}; choose "
            "another STREAM_INFER_HTTP_PORT (0: any free one)"
        ) from error
    listener.set_inheritable(True)
    return listener


def allow_open_files(wanted: int) -> None:
    """Let this process open that many files, or as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "only %d files may be open here; %d connections need %d",
            allowed,
            CONNECTIONS_MAX,
            wanted,
        )


def make_server(services: Services) -> Server:
    """Return a server for services, not started yet."""
    # Streams end by the hub's farewell. The library's own way marks the whole process as stopping.
    AppStatus.enable_automatic_graceful_drain = False
    use_lean_connections()
    settings = services.settings
    config = Config(
        create_app(services),
        direct=Direct(services),
        connections_max=CONNECTIONS_MAX + settings.sse_clients_max,
        ws="none",
        lifespan="off",
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_TIMEOUT_S,
        timeout_graceful_shutdown=max(1, int(settings.drain_timeout_s)),
    )
    return Server(config, services)


def serve(topology_names: Sequence[str], settings: Settings) -> int:
    """Serve topologies over HTTP until SIGINT or SIGTERM; return 0.

    Prints one line with the server's address. Redis or Kafka being absent is told and tried again;
    the server answers 503 where it needs them. Raises DeclarationError, ModelError or SettingsError
    before it listens.
    """
    check_binding(settings)
    allow_open_files(CONNECTIONS_MAX + settings.sse_clients_max + OPEN_FILES_SPARE)
    runtimes = [build_runtime(load_topology(name), settings) for name in topology_names]
    listener = bind(settings)
    services = build_services(runtimes, settings)
    services.warm_up()
    collector.settle()
    server = make_server(services)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"stream-infer serves {', '.join(services.served)} at http://{shown}:{port}/", flush=True)
    # uvicorn raises the signal that stopped it once more when it has drained, for these handlers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_run(server, services, listener))
    return 0


async def _run(server: Server, services: Services, listener: socket.socket) -> None:
    async with services.running():
        await server.serve(sockets=[listener])
