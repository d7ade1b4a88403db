"""Ctrl-C under make reaches the program alone, once, and make ends with the program's exit code."""

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stream_infer.processes import wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = """
import signal, sys, time
heard = []
signal.signal(signal.SIGINT, lambda *a: heard.append("INT"))
signal.signal(signal.SIGTERM, lambda *a: heard.append("TERM"))
print("ready", flush=True)
deadline = time.monotonic() + 20
while not heard and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.3)  # a second signal would come within this
print("heard", *heard, flush=True)
sys.exit(CODE)
"""


@pytest.fixture
def make(tmp_path: Path) -> list[str]:
    """A make command whose recipe runs the program as `make demo` runs the demo."""
    (tmp_path / "program.py").write_text(PROGRAM.replace("CODE", "int(sys.argv[1])"))
    launcher = ROOT / "tools" / "foreground.py"
    (tmp_path / "Makefile").write_text(
        f"demo:\n\t@exec {sys.executable} {launcher} {sys.executable} program.py $(CODE)\n"
    )
    return ["make", "-C", str(tmp_path), "--no-print-directory", "demo"]


def _at_a_terminal(command: list[str], keys: bytes) -> tuple[int, str]:
    """Exit code and output of `command` at a terminal where `keys` are typed once it is ready."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    output = b""
    while True:
        if not select.select([terminal], [], [], 30)[0]:
            os.kill(pid, signal.SIGKILL)
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # how Linux says that nobody has the terminal open any more
            break
        if b"ready" in chunk:
            os.write(terminal, keys)
        output += chunk
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


def test_ctrl_c_at_a_terminal_is_heard_once_and_make_succeeds(make: list[str]) -> None:
    code, output = _at_a_terminal([*make, "CODE=0"], b"\x03")
    assert "heard INT\r\n" in output
    assert (code, "Interrupt" in output, "***" in output) == (0, False, False)


def test_a_failure_after_ctrl_c_fails_make(make: list[str]) -> None:
    code, output = _at_a_terminal([*make, "CODE=3"], b"\x03")
    assert code == 2
    assert "Error 3" in output


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_make_alone_ends_the_program(make: list[str], how: signal.Signals) -> None:
    with subprocess.Popen(
        [*make, "CODE=0"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        programs = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(how)
        assert f"heard {how.name.removeprefix('SIG')}\n" in run.stdout.read()
    assert wait_until(lambda: not any(p.is_running() for p in programs), timeout_s=10)


def test_without_a_terminal_a_signal_to_the_group_is_heard_once(make: list[str]) -> None:
    with subprocess.Popen(
        [*make, "CODE=0"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        os.killpg(run.pid, signal.SIGINT)
        assert "heard INT\n" in run.stdout.read()
    # make, which heard it as well, ends by it: only at a terminal can it be kept out of it.
    assert run.returncode == -signal.SIGINT
