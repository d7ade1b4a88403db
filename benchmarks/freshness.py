"""From sending an event to its effect being readable over HTTP, beside a stream of others."""

import json
import subprocess
import sys
import time

import numpy as np

from benchmarks.figures import Figure, over_runs
from benchmarks.http import until_ready
from benchmarks.open_loop import finished, send
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, ROOT, Place
from benchmarks.processes import BenchmarkError, start

KEYS = 5_000
PROBES_MAX = 20_000
RATE_PER_S = 10_000


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure at 10,000 events/s, or at the greatest of the rates where all are smaller."""
    rate = min(RATE_PER_S, max(options.rates))
    runs = [one_run(place, rate, options) for _ in range(options.runs)]
    return over_runs(runs, {"events/s": rate})


def one_run(place: Place, rate: int, options: Options) -> dict[str, tuple[float, str]]:
    """Probe a worker and a server of its own."""
    # The probes' accounts have batch features too, but get no other events.
    name = place.job(KEYS + PROBES_MAX)
    topic = f"{name}.events"
    place.create({topic: PARTITIONS})
    worker = start(place, "worker", name, topic)
    server = start(place, "serve", name, topic)
    sender = None
    try:
        worker.until("reading ")
        until_ready(server)
        sender = send(place, topic, rate, options.warm_up_s + options.seconds + 2, keys=KEYS)
        time.sleep(options.warm_up_s)
        command = [sys.executable, "-m", "benchmarks.prober", "--broker", place.kafka.bootstrap]
        how = {
            "--topic": topic,
            "--port": server.port,
            "--topology": name,
            "--first": KEYS,
            "--accounts": PROBES_MAX,
            "--seconds": options.seconds,
        }
        arguments = [str(part) for pair in how.items() for part in pair]
        probed = subprocess.run(
            [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if probed.returncode:
            raise BenchmarkError(f"the prober failed: {probed.stderr[-1000:]}")
        finished(sender)
        server.stop()
        worker.stop()
    finally:
        if sender is not None:
            sender.kill()
        for process in (server, worker):
            process.process.kill()
        place.forget(name)
    took_ms = np.array(json.loads(probed.stdout)["took_ms"])
    return {
        "p50": (float(np.percentile(took_ms, 50)), "ms"),
        "p99": (float(np.percentile(took_ms, 99)), "ms"),
        "probes": (float(len(took_ms)), ""),
    }
