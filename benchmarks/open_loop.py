"""An open loop from outside: a producer at a fixed rate and a reader, each a process of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.generator import Draw
from benchmarks.place import ROOT, Place
from benchmarks.processes import BenchmarkError
from stream_infer.processes import Guarded

ACCOUNTS = 5_000
GREETING_RATE_PER_S = 2_500
SETTLE_MAX_S = 20.0
PERCENTILES = (50, 99, 99.9)


def percentiles(latencies_us: npt.NDArray[np.int64]) -> dict[str, tuple[float, str]]:
    """p50, p99 and p99.9 in milliseconds."""
    values = np.percentile(latencies_us, PERCENTILES) / 1e3
    return {f"p{p:g}": (float(v), "ms") for p, v in zip(PERCENTILES, values, strict=True)}


def receive(place: Place, topic: str, output: Path, field: str = "event_time") -> Guarded:
    """Start a reader of what has, in `field`, when it was due; return it once it reads."""
    command = [sys.executable, "-m", "benchmarks.receiver", "--broker", place.kafka.bootstrap]
    receiver = Guarded(
        [*command, "--topic", topic, "--output", str(output), "--field", field],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        grace_s=30.0,
    )
    assert receiver.stdout is not None
    if receiver.stdout.readline().strip() != b"ready":
        receiver.kill()
        raise BenchmarkError("the reader of results did not start")
    return receiver


def send(
    place: Place,
    topic: str,
    rate: float,
    seconds: float,
    keys: int = ACCOUNTS,
    draw: Draw = "uniform",
) -> Guarded:
    """Start a producer; return it half a second before its first event is due."""
    command = [sys.executable, "-m", "benchmarks.sender", "--broker", place.kafka.bootstrap]
    how = {
        "--topic": topic,
        "--rate": rate,
        "--seconds": seconds,
        "--keys": keys,
        "--draw": draw,
    }
    arguments = [str(part) for pair in how.items() for part in pair]
    sender = Guarded([*command, *arguments], stdout=subprocess.PIPE, cwd=ROOT)
    assert sender.stdout is not None
    if sender.stdout.readline().strip() != b"ready":
        sender.kill()
        raise BenchmarkError("the producer did not start")
    return sender


def greet(place: Place, topic: str) -> float:
    """Send an event of each account, so that none is new at any rate; return how many were sent."""
    seconds = ACCOUNTS / GREETING_RATE_PER_S
    return finished(send(place, topic, GREETING_RATE_PER_S, seconds, draw="each"))["sent"]


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
