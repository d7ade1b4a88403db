"""Child processes that end with this one, free ports, and waiting until a server answers."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

GUARD = Path(__file__).with_name("guard.py")


class Guarded:
    """A child process that ends when this process ends, however that happens.

    It runs in a session of its own, so that Ctrl-C at a terminal reaches this process only, which
    then decides the order in which its servers stop. `pid` is the command's own. Raises OSError
    where the command cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace_s: float = 10.0,
    ) -> None:
        self.grace_s = grace_s
        pid_read, pid_write = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", GUARD, str(pid_write), str(grace_s), *command],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env=env,
                cwd=cwd,
                pass_fds=(pid_write,),
                start_new_session=True,
            )
        finally:
            os.close(pid_write)
        with os.fdopen(pid_read) as answer:
            line = answer.readline().strip()
        if not line.isdigit():
            self._end_guard()
            raise OSError(f"cannot start {command[0]}: {line.removeprefix('error ')}")
        self.pid = int(line)

    @property
    def stdout(self) -> IO[bytes] | None:
        """The command's standard output, where it was asked for with `subprocess.PIPE`."""
        return self._guard.stdout

    def poll(self) -> int | None:
        """The exit code, 128 + n for signal n; None while it runs."""
        return self._guard.poll()

    def stop(self) -> int:
        """End it with SIGTERM, after `grace_s` with SIGKILL; its exit code."""
        if self._guard.poll() is None:
            self._guard.terminate()
        return self._end_guard()

    def kill(self) -> int:
        """End it with SIGKILL, at once, as a crash would."""
        if self._guard.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return self._end_guard()

    def _end_guard(self) -> int:
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        return self._guard.wait()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of `host` that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(
    ready: Callable[[], bool],
    *,
    alive: Callable[[], bool] = lambda: True,
    timeout_s: float,
    interval_s: float = 0.01,
) -> bool:
    """Ask `ready` until it is True; False once `alive` is not, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while alive() and time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(interval_s)
    return False
