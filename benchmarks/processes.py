"""The program under measurement as a process, and what the system says that it uses."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.place import PARTITIONS, ROOT, Place
from stream_infer.processes import Guarded, free_port, wait_until
from stream_infer.settings import FIELDS, PREFIX

START_MAX_S = 120.0
_SAMPLED = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A benchmark could not come to its figures; the message says where it stood."""


@dataclass
class Process:
    """A worker or a server: its process, its log, and the port of its pages."""

    process: Guarded
    log: Path
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, text: str) -> bool:
        """Whether its log has this text."""
        return text in self.log.read_text(errors="replace")

    def partitions(self) -> set[int]:
        """The partitions that its log says it reads, after its latest assignment."""
        lines = self.log.read_text(errors="replace").splitlines()
        latest = next((line for line in reversed(lines) if " reading " in line), "")
        return set(map(int, re.findall(r"/(\d+) from \d+", latest)))

    def until(self, *texts: str, timeout_s: float = START_MAX_S) -> None:
        """Wait until its log has one of these; raises BenchmarkError with the log's end if not."""
        if not wait_until(
            lambda: any(map(self.said, texts)),
            alive=lambda: self.process.poll() is None,
            timeout_s=timeout_s,
            interval_s=0.02,
        ):
            raise self.failure(f"did not say {texts[0]!r}")

    def failure(self, what: str) -> BenchmarkError:
        """An error that shows the end of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return BenchmarkError("\n".join([f"{self.log.stem}: {what}; it said:", *lines]))

    def stop(self) -> None:
        """Stop it with SIGTERM; raises BenchmarkError where it does not end well."""
        code = self.process.stop()
        if code:
            raise self.failure(f"ended with exit code {code}")


def cpu_s(pid: int | None) -> float:
    """Seconds of processor time, user and system, that a process has used with all its threads;
    0 for a server that is not ours.
    """
    if pid is None:
        return 0.0
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def start(
    place: Place,
    command: str,
    name: str,
    events: str,
    *,
    settings: Mapping[str, object] | None = None,
    profile: Path | None = None,
    core: int | None = None,
) -> Process:
    """Start `stream-infer COMMAND` on the standard job named `name`, reading topic `events`.

    Its settings are the defaults and what the environment says, but for where things are and what
    `settings` names. `profile` is the file for its profile; `core` the only core it may use.
    """
    folder = place.folder / "logs"
    folder.mkdir(exist_ok=True)
    port = free_port()
    own: dict[str, object] = {
        "broker": place.kafka.bootstrap,
        "redis": place.redis_url,
        "models_dir": place.models,
        "partitions": PARTITIONS,
        "metrics_port" if command == "worker" else "http_port": port,
        **(settings or {}),
    }
    for setting in own:
        if setting not in FIELDS:
            raise BenchmarkError(f"this version has no setting {setting!r}")
    environment = {
        **os.environ,
        **{f"{PREFIX}{key.upper()}": str(value) for key, value in own.items()},
        "PYTHONPATH": str(ROOT),
        "BENCHMARK_TOPOLOGY": name,
        "BENCHMARK_EVENTS": events,
    }
    sampled = profile is not None and profile.suffix in _SAMPLED
    log = folder / f"{command}-{name}-{port}.log"
    run = ["taskset", "-c", str(core)] if core is not None else []
    run += _python(None if sampled else profile)
    with log.open("wb") as output:
        process = Guarded(
            [*run, "stream_infer.cli", command, "benchmarks.standard"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=place.folder,
            grace_s=60.0,
        )
    if profile is not None and sampled:
        _sample(process.pid, profile)
    return Process(process, log, port)


def _sample(pid: int, profile: Path) -> None:
    """Let py-spy look at all threads until the process ends; far cheaper than cProfile."""
    program = Path(sys.executable).with_name("py-spy")
    found = str(program) if program.exists() else shutil.which("py-spy")
    if found is None:
        raise BenchmarkError(f"{profile.name}: needs py-spy (pip install py-spy), or take a .prof")
    command = [found, "record", "--pid", str(pid), "--format", _SAMPLED[profile.suffix]]
    subprocess.Popen(
        [*command, "--rate", "500", "--threads", "--output", str(profile)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _python(profile: Path | None) -> list[str]:
    if profile is None:
        return [sys.executable, "-m"]
    return [sys.executable, "-m", "cProfile", "-o", str(profile.resolve()), "-m"]
