"""Run a server for a program, so that the server never outlives it.

Run as a script, `python guard.py PID_FD GRACE_S COMMAND...`, with the program's pipe as standard
input: the end of that pipe means that the program is gone, by whatever cause, SIGKILL included.
Only the standard library, and little of it: this is on the way of every start.
`stream_infer.processes.Guarded` is the other side.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Ask Linux to end this process when the guard itself is killed (elsewhere: nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def main(arguments: list[str]) -> int:
    """Run COMMAND until it ends, SIGTERM comes, or standard input closes; return its exit code."""
    pid_fd, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    stopping = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)
    except OSError as error:
        os.write(pid_fd, f"error {error}\n".encode())
        return 127
    os.write(pid_fd, f"{child.pid}\n".encode())
    os.close(pid_fd)
    while child.poll() is None and not stopping:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready and not os.read(0, 4096):
            stopping = True
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.kill()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
