"""Run a program so that Ctrl-C under `make` reaches it alone, once: `python tools/foreground.py
CMD…`.

GNU make ends with an error when it receives SIGINT itself, whatever its recipe returns. At a
terminal the program is therefore given a process group of its own in the foreground, and make, in
the background, sees only its exit code. Without a terminal the program runs in make's group.
"""

import contextlib
import os
import signal
import subprocess
import sys
from types import FrameType

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PARENT_CHECK_S = 0.5


def owned_terminal() -> int | None:
    """A descriptor of the terminal whose foreground is this process group; None where there is
    none."""
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR)
        if os.tcgetpgrp(terminal) == os.getpgrp():
            return terminal
        os.close(terminal)
    return None


def make_was_interrupted(make: int) -> bool:
    """Whether the parent no longer handles SIGINT: make does so while it waits to end by it."""
    with contextlib.suppress(OSError, StopIteration, ValueError), open(f"/proc/{make}/status") as f:
        caught = next(line for line in f if line.startswith("SigCgt:"))
        return not int(caught.split()[1], 16) & 1 << (signal.SIGINT - 1)
    return False


def run(command: list[str]) -> int:
    """The exit code of `command`, 128 + n where signal n ended it."""
    terminal = owned_terminal()
    # A process in the background that gives the foreground away, or writes, must not be stopped.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def become_foreground() -> None:
        if terminal is not None:
            os.setpgid(0, 0)
            os.tcsetpgrp(terminal, os.getpgrp())
        for changed in (signal.SIGTTOU, signal.SIGINT):
            signal.signal(changed, signal.SIG_DFL)

    child = subprocess.Popen(command, preexec_fn=become_foreground)

    def forward(signum: int, frame: FrameType | None) -> None:
        child.send_signal(signum)

    for forwarded in _FORWARDED:
        signal.signal(forwarded, forward)
    try:
        code = _wait(child, terminal)
    finally:
        if terminal is not None:
            os.tcsetpgrp(terminal, os.getpgrp())
    return code


def _wait(child: subprocess.Popen[bytes], terminal: int | None) -> int:
    make = os.getppid()
    interrupted = make_was_interrupted(make)  # a parent that never handled it says nothing
    while True:
        if terminal is not None:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                _suspend(child.pid, terminal)
                continue
            code = child.returncode = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(_PARENT_CHECK_S)
            return code if code >= 0 else 128 - code
        if not interrupted and make_was_interrupted(make):
            # kill -INT of make alone: it waits for its recipe, which would never hear of it.
            interrupted = True
            child.send_signal(signal.SIGINT)


def _suspend(group: int, terminal: int) -> None:
    """Ctrl-Z: stop make's job as a whole, and go on with the program when the shell continues
    it."""
    os.tcsetpgrp(terminal, os.getpgrp())
    os.killpg(0, signal.SIGSTOP)
    if os.tcgetpgrp(terminal) == os.getpgrp():
        os.tcsetpgrp(terminal, group)
    os.killpg(group, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
