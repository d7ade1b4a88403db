"""How long a worker with much stored state takes to predict, and the command line to show help."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from redis import Redis

from benchmarks.figures import Figure, over_runs
from benchmarks.generator import account_name
from benchmarks.http import with_state
from benchmarks.open_loop import receive, send
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, Place
from benchmarks.processes import BenchmarkError, start
from stream_infer.processes import wait_until
from stream_infer.store.state import partition_prefix
from stream_infer.stream.partitioning import Partitioner

RATE_PER_S = 500
RESULT_MAX_S = 60.0
CHUNK = 5_000
VIEW = "by_account"


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure starts of a worker over the same stored rows, and of `stream-infer --help`."""
    with with_state(place, options) as name:
        spread(place, name, options.stored_keys)
        runs = [one_run(place, name, options) for _ in range(options.runs)]
    return [
        *over_runs(runs, {"program": "worker", "keys stored": options.stored_keys}),
        *over_runs([help_run() for _ in range(options.runs)], {"program": "stream-infer --help"}),
    ]


def one_run(place: Place, name: str, options: Options) -> dict[str, tuple[float, str]]:
    """Start a worker on a topic into which events flow; find its first result."""
    output = place.folder / f"{name}-{time.time_ns()}.npy"
    receiver = receive(place, f"{name}.predictions", output)
    # Events come all the while, on as many accounts as are stored.
    sender = send(place, f"{name}.events", RATE_PER_S, RESULT_MAX_S, keys=options.stored_keys)
    before = place.records(f"{name}.predictions")
    began_s = time.time()
    worker = start(place, "worker", name, f"{name}.events")
    try:
        worker.until("working on ", "reading ")
        ready_s = time.time()
        wait_until(
            lambda: place.records(f"{name}.predictions") > before,
            timeout_s=RESULT_MAX_S,
            interval_s=0.1,
        )
        receiver.stop()
        worker.stop()
    finally:
        sender.kill()
        receiver.kill()
        worker.process.kill()
    times = np.load(output)
    if not len(times):
        raise BenchmarkError("no result came")
    first_s = float(times[:, 1].min()) / 1e6
    return {
        "ready for partitions to first result": (first_s - ready_s, "s"),
        "process to first result": (first_s - began_s, "s"),
    }


def spread(place: Place, name: str, keys: int) -> None:
    """Store a row for each of that many accounts: a copy of one that a worker wrote."""
    place.plan(keys)
    partitioner = Partitioner()
    choices = range(PARTITIONS)
    with Redis.from_url(place.redis_url) as redis:
        owner = partitioner.partition(account_name(0).encode(), choices)
        row = redis.get(f"{partition_prefix(name, owner)}{VIEW}:{account_name(0)}")
        if row is None:
            raise BenchmarkError("the worker stored no row of the first account")
        prefixes = [f"{partition_prefix(name, number)}{VIEW}:" for number in choices]
        for first in range(0, keys, CHUNK):
            names = [account_name(number) for number in range(first, min(first + CHUNK, keys))]
            rows = {
                prefixes[partitioner.partition(one.encode(), choices)] + one: row for one in names
            }
            redis.mset(rows)


def help_run() -> dict[str, tuple[float, str]]:
    """How long the command takes to show its help."""
    command = Path(sys.executable).with_name("stream-infer")
    run = (
        [str(command)]
        if os.access(command, os.X_OK)
        else [sys.executable, "-m", "stream_infer.cli"]
    )
    start_s = time.perf_counter()
    subprocess.run([*run, "--help"], check=True, stdout=subprocess.DEVNULL)
    return {"shown after": (time.perf_counter() - start_s, "s")}
