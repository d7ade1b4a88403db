"""From the moment an event is due at its producer to the moment its result is readable."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figure, over_runs
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, ROOT, Place
from benchmarks.processes import BenchmarkError, cpu_s, start
from stream_infer.processes import Guarded

KEYS = 5_000
SETTLE_MAX_S = 20.0
PERCENTILES = (50, 99, 99.9)


def measure(
    place: Place, options: Options, settings: Mapping[str, object] | None = None
) -> list[Figure]:
    """Measure each rate; each run has a worker of its own, with empty state."""
    figures: list[Figure] = []
    for rate in options.rates:
        runs = [one_run(place, rate, options, settings) for _ in range(options.runs)]
        figures += over_runs(runs, {"events/s": rate})
    return figures


def one_run(
    place: Place, rate: int, options: Options, settings: Mapping[str, object] | None = None
) -> dict[str, tuple[float, str]]:
    """One worker at one rate; the warm-up is left out of the figures."""
    name = place.job(KEYS)
    events = f"{name}.events"
    place.create({events: PARTITIONS})
    output = place.folder / f"{name}.npy"
    worker = start(place, "worker", name, events, settings=settings, profile=options.profile)
    receiver = sender = None
    try:
        worker.until("reading ")
        receiver = receive(place, f"{name}.predictions", output)
        sender = send(place, events, rate, options.warm_up_s + options.seconds)
        time.sleep(options.warm_up_s + 0.5)
        before_s, at_s = cpu_s(worker.pid), time.monotonic()
        said = finished(sender)
        used = (cpu_s(worker.pid) - before_s) / (time.monotonic() - at_s)
        settle(place, f"{name}.predictions", said["sent"])
        receiver.stop()
        worker.stop()
    finally:
        for helper in (receiver, sender):
            if helper is not None:
                helper.kill()
        worker.process.kill()
        place.forget(name)
    times = np.load(output)
    from_us = said["start_us"] + options.warm_up_s * 1e6
    if len(times) < said["sent"]:
        raise BenchmarkError(f"{said['sent'] - len(times)} of {said['sent']} results never came")
    measured = times[times[:, 0] >= from_us]
    return {
        **percentiles(measured[:, 1] - measured[:, 0]),
        "CPU": (used * 1e6 / rate, "µs/event"),
        "producer behind, p99": (said["behind_p99_ms"], "ms"),
    }


def percentiles(latencies_us: npt.NDArray[np.int64]) -> dict[str, tuple[float, str]]:
    """p50, p99 and p99.9 in milliseconds."""
    values = np.percentile(latencies_us, PERCENTILES) / 1e3
    return {f"p{p:g}": (float(v), "ms") for p, v in zip(PERCENTILES, values, strict=True)}


def receive(place: Place, topic: str, output: Path) -> Guarded:
    """Start the reader of results; return it once it reads."""
    command = [sys.executable, "-m", "benchmarks.receiver", "--broker", place.kafka.bootstrap]
    receiver = Guarded(
        [*command, "--topic", topic, "--output", str(output)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        grace_s=30.0,
    )
    assert receiver.stdout is not None
    if receiver.stdout.readline().strip() != b"ready":
        receiver.kill()
        raise BenchmarkError("the reader of results did not start")
    return receiver


def send(place: Place, topic: str, rate: float, seconds: float, keys: int = KEYS) -> Guarded:
    """Start a producer."""
    command = [sys.executable, "-m", "benchmarks.sender", "--broker", place.kafka.bootstrap]
    how = {"--topic": topic, "--rate": rate, "--seconds": seconds, "--keys": keys}
    arguments = [str(part) for pair in how.items() for part in pair]
    return Guarded([*command, *arguments], stdout=subprocess.PIPE, cwd=ROOT)


def finished(sender: Guarded) -> dict[str, float]:
    """Wait for a producer's end; return what it says of itself."""
    assert sender.stdout is not None
    lines = sender.stdout.read().splitlines()
    sender.stop()
    if not lines:
        raise BenchmarkError("the producer failed: not all of its events were acknowledged")
    said: dict[str, float] = json.loads(lines[-1])
    return said


def settle(place: Place, topic: str, results: float) -> None:
    """Wait until a topic has that many results, and for their reader to have them too."""
    deadline_s = time.monotonic() + SETTLE_MAX_S
    while place.records(topic) < results and time.monotonic() < deadline_s:
        time.sleep(0.1)
    time.sleep(0.5)
