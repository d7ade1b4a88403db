"""Two workers on two partitions each against one on all four.

Workers share the partitions of an empty topic, and are frozen while the backlog is made: all of
them then begin at the same moment, with nothing left to negotiate.
"""

import contextlib
import os
import signal

from benchmarks.backlog import Progress, numbers_of, produce
from benchmarks.figures import Figure, figure, over_runs
from benchmarks.generator import Keys
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, Place
from benchmarks.processes import BenchmarkError, start
from benchmarks.worker import WARM_UP_SHARE, Run, figures_of, followed, sample, watchable
from stream_infer.processes import wait_until

KEYS = 5_000
RUNS_MAX = 2
SETTINGS = {"session_timeout_s": 300, "heartbeat_interval_s": 1, "watchdog_timeout_s": 0}
"""Nobody takes the partitions of frozen workers away."""


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure the same backlog with one and with two workers."""
    figures: list[Figure] = []
    throughput = []
    for workers in (1, 2):
        runs = [one_run(place, options, workers) for _ in range(min(options.runs, RUNS_MAX))]
        found = over_runs(runs, {"workers": workers})
        figures += found
        throughput.append(next(item.value for item in found if item.name == "throughput"))
    return [*figures, figure("of one", throughput[1] / throughput[0], "times", {"workers": 2})]


def one_run(place: Place, options: Options, count: int) -> Run:
    """Run that many workers through a backlog."""
    name = place.job(KEYS)
    topic = f"{name}.events"
    place.create({topic: PARTITIONS})
    numbers = numbers_of(Keys(KEYS), int(options.events * WARM_UP_SHARE), options.events, seed=1)
    with contextlib.ExitStack() as stack:
        stack.callback(place.forget, name)
        workers = []
        settings = {**watchable(options.events), **SETTINGS}
        for _ in range(count):
            workers.append(start(place, "worker", name, topic, settings=settings))
            stack.callback(workers[-1].process.kill)
        progress = Progress(place, name, topic)
        stack.callback(progress.close)
        share = PARTITIONS // count
        if not wait_until(
            lambda: all(len(worker.partitions()) == share for worker in workers), timeout_s=60
        ):
            raise BenchmarkError(f"{count} workers never shared {PARTITIONS} partitions")
        for worker in workers:
            os.kill(worker.pid, signal.SIGSTOP)
        produce(place, topic, numbers, seed=1)
        begun = sample(place, workers, 0)
        for worker in workers:
            os.kill(worker.pid, signal.SIGCONT)
        samples = [begun, *followed(place, workers, progress, len(numbers))]
        for worker in workers:
            worker.stop()
    return figures_of(samples, KEYS, len(numbers) - options.events)
