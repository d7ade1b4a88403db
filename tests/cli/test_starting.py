"""A program told to stop before it has begun ends with code 0, whatever it is doing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["worker", "serve"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_is_ended_by_a_signal_with_code_0(
    tmp_path: Path, command: str, number: signal.Signals
) -> None:
    # The program's own start runs this: a signal at a known moment of it.
    module = tmp_path / "starts.py"
    module.write_text(f"import os\nos.kill(os.getpid(), {int(number)})\nraise SystemError\n")
    ended = subprocess.run(
        [sys.executable, "-m", "stream_infer.cli", command, str(module)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "stream-infer: told to stop before it had started\n"
