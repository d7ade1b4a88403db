"""A prepared demo: data, features and models, made once a run and kept between runs."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from stream_infer.processes import wait_until
from tests.cli.support import ROOT, Ran, environment, program
from tests.servers.kafka import Kafka

TOPICS = (
    "flights",
    "flight_delay.predictions",
    "flight_delay.outcomes",
    "flight_delay.dead_letters",
)
MARK = "STREAM_INFER_TEST_MARK"
PREPARE_MAX_S = 420.0
END_MAX_S = 120.0
SHORT = ("--warm-up-days", "2", "--json", "--port", "0")


@dataclass
class Running:
    """A demo under way; all its processes carry its mark in their environment."""

    process: "subprocess.Popen[str]"
    mark: str
    err: Path

    def wait_for(self, text: str, timeout_s: float = END_MAX_S) -> None:
        """Wait until it has said `text`."""
        assert wait_until(
            lambda: text in self.err.read_text(),
            alive=lambda: self.process.poll() is None,
            timeout_s=timeout_s,
            interval_s=0.05,
        ), self.err.read_text()

    def left(self) -> list[str]:
        """The processes that carry the mark."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def ended(self, timeout_s: float = END_MAX_S) -> Ran:
        """Its exit code and outputs, once it has ended."""
        out, _ = self.process.communicate(timeout=timeout_s)
        return Ran(self.process.returncode, out, self.err.read_text())


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, demo_dir: Path) -> Start:
    """Starts a demo, with the options given."""

    def started(*options: str, command: str = "demo") -> Running:
        mark = uuid.uuid4().hex
        err = tmp_path / f"{mark}.err"
        with err.open("w") as log:
            process = subprocess.Popen(
                program(command, "--data-dir", str(demo_dir), *options),
                cwd=ROOT,
                env=environment({MARK: mark}),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        return Running(process, mark, err)

    return started


@pytest.fixture(scope="session")
def demo_dir() -> Path:
    """The folder of a prepared demo, kept between runs of the tests: its steps know their input."""
    folder = ROOT / ".demo" / "tests"
    began_s = time.monotonic()
    done = subprocess.run(
        program("demo", "--data-dir", str(folder), "--duration-s", "0", *SHORT),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PREPARE_MAX_S,
        check=False,
    )
    assert done.returncode == 0, f"after {time.monotonic() - began_s:.0f} s:\n{done.stderr}"
    return folder


@pytest.fixture
def empty_kafka(kafka_server: Kafka) -> Iterator[Kafka]:
    """The run's Kafka without the topics of the flight example."""

    def clear() -> None:
        there = [name for name in kafka_server.topics() if name in TOPICS]
        if there:
            kafka_server.delete_topics(there)

    clear()
    yield kafka_server
    clear()


def end_group(running: Running) -> None:
    """Kill a demo at once, as a crash would."""
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.communicate()
