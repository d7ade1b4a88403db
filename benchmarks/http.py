"""Scoring over HTTP: one server process alone on one core, the load and the stores on the other."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.backlog import Progress, numbers_of, produce
from benchmarks.figures import Figure, over_runs
from benchmarks.generator import Keys
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, ROOT, Place
from benchmarks.processes import BenchmarkError, Process, cpu_s, resident_bytes, start
from benchmarks.served_times import Counts, answered, times_between
from benchmarks.wire import ask, connect
from benchmarks.worker import followed
from stream_infer.processes import Guarded, wait_until

KEYS = 5_000
STEADY_PER_S = 1_000
CONNECTIONS = 64
START_MAX_S = 60.0
_READY = b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n"

Run = dict[str, tuple[float, str]]


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure saturation, a steady rate, twice the saturation, and the load generator itself."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("http needs two cores: one for the server, one for the load")
    runs: dict[str, list[Run]] = {}
    with with_state(place, options) as name, stores_on(place, cores[1]):
        for _ in range(options.runs):
            server = start(place, "serve", name, f"{name}.events", core=cores[0])
            try:
                until_ready(server)
                for case, run in _loads(name, server, cores[1], options):
                    runs.setdefault(case, []).append(run)
                server.stop()
            finally:
                server.process.kill()
    runs["load alone"] = [_own_limit(cores, options)]
    return [item for case, found in runs.items() for item in over_runs(found, {"load": case})]


def _loads(name: str, server: Process, core: int, options: Options) -> Iterator[tuple[str, Run]]:
    saturated = load(name, server.port, core, options, pid=server.pid)
    saturated["memory"] = (resident_bytes(server.pid) / 1e6, "MB")
    yield "saturation", saturated
    yield f"{STEADY_PER_S}/s", load(name, server.port, core, options, STEADY_PER_S, server.pid)
    twice = 2 * saturated["accepted"][0]
    yield "2 x saturation", load(name, server.port, core, options, twice, server.pid)


def load(
    name: str,
    port: int,
    core: int,
    options: Options,
    rate: float = 0.0,
    pid: int | None = None,
    requests: Path | None = None,
) -> Run:
    """Run a load from one core; return what came of it. `requests` is a file of other requests."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "benchmarks.load"]
    how = {
        "--port": port,
        "--topology": name,
        "--rate": rate,
        "--connections": CONNECTIONS,
        "--seconds": options.seconds,
        "--warm-up-s": options.warm_up_s,
        **({"--requests": requests} if requests is not None else {}),
    }
    arguments = [str(part) for pair in how.items() for part in pair]
    before = answered(port) if pid is not None else {}
    before_s = cpu_s(pid)
    result = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    used_s = cpu_s(pid) - before_s
    if result.returncode:
        raise BenchmarkError(f"the load failed:\n{result.stderr[-2000:]}")
    said = json.loads(result.stdout)
    if said["others"]:
        raise BenchmarkError(f"{said['others']} answers were neither 200 nor 503")
    count = sum(said["answers"])
    return {
        "accepted": (said["accepted_per_s"], "req/s"),
        "shed": (said["shed_per_s"], "req/s"),
        "unanswered": (said["unanswered"], "req"),
        "p50": (said["p50_ms"], "ms"),
        "p99": (said["p99_ms"], "ms"),
        **(_in_server(before, answered(port)) if pid is not None else {}),
        **({"shed, p99": (said["shed_p99_ms"], "ms")} if said["shed_p99_ms"] is not None else {}),
        **({"CPU": (used_s * 1e6 / max(count, 1), "µs/req")} if pid else {}),
        "load's CPU": (said["load_cpu_us"], "µs/req"),
        "load's core in use": (said["load_busy"], ""),
        **({"load behind, p99": (said["behind_p99_ms"], "ms")} if rate else {}),
    }


def _in_server(before: Counts, after: Counts) -> Run:
    """How long accepted requests took from when the server read them, by its own metrics."""
    times = times_between(before, after)
    found = {f"in server, p{q}": times.quantile(q / 100) for q in (50, 99)}
    return {name: (value * 1e3, "ms") for name, value in found.items() if value is not None}


def _own_limit(cores: list[int], options: Options) -> Run:
    """What the load reaches against a server that does nothing."""
    floor = Guarded(
        ["taskset", "-c", str(cores[0]), sys.executable, "-m", "benchmarks.floor"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert floor.stdout is not None
        return load("nothing", int(floor.stdout.readline()), cores[1], options)
    finally:
        floor.kill()


@contextlib.contextmanager
def with_state(place: Place, options: Options) -> Iterator[str]:
    """A topology whose worker has folded a few payments of each account, and has stopped."""
    name = place.job(KEYS)
    topic = f"{name}.events"
    place.create({topic: PARTITIONS})
    numbers = numbers_of(Keys(KEYS), 0, min(options.events, 10 * KEYS), seed=2)
    produce(place, topic, numbers, seed=2)
    progress = Progress(place, name, topic)
    worker = start(place, "worker", name, topic)
    try:
        followed(place, [worker], progress, len(numbers))
        worker.stop()
        yield name
    finally:
        worker.process.kill()
        progress.close()
        place.forget(name)


@contextlib.contextmanager
def stores_on(place: Place, core: int) -> Iterator[None]:
    """Keep Kafka and Redis on one core meanwhile, where they are ours."""
    pids = [pid for pid in (place.kafka_pid, place.redis_pid) if pid is not None]
    before = os.sched_getaffinity(0)
    for pid in pids:
        _pin(pid, {core})
    try:
        yield
    finally:
        for pid in pids:
            _pin(pid, before)


def _pin(pid: int, cores: set[int]) -> None:
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), cores)


def until_ready(server: Process) -> None:
    """Wait until a server says that it can answer."""

    def ready() -> bool:
        try:
            with connect(server.port) as connection:
                return ask(connection, _READY)[0] == 200
        except OSError:
            return False

    if not wait_until(
        ready,
        alive=lambda: server.process.poll() is None,
        timeout_s=START_MAX_S,
        interval_s=0.1,
    ):
        raise server.failure("is not ready")
