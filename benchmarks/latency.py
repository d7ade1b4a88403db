"""From the moment an event is due at its producer to the moment its result is readable."""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks import kafka_alone
from benchmarks.figures import Figure, over_runs
from benchmarks.open_loop import ACCOUNTS, finished, greet, percentiles, receive, send, settle
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, Place
from benchmarks.processes import BenchmarkError, cpu_s, start

WARM_UP_RATE = 2_000


def measure(
    place: Place, options: Options, settings: Mapping[str, object] | None = None
) -> list[Figure]:
    """Measure each rate; each run has a worker of its own, with empty state.

    With default settings, what Kafka takes without a worker is measured in turn with it.
    """
    figures: list[Figure] = []
    # A broker compiles its own code, on one of the cores, for most of a minute after its start, and
    # for seconds more when it first has much more to do.
    warming = replace(options, warm_up_s=0.0, seconds=options.broker_warm_up_s)
    for rate in sorted({WARM_UP_RATE, max(options.rates)}):
        one_run(place, rate, warming, settings)
    for rate in options.rates:
        runs = []
        for _ in range(options.runs):
            floor = kafka_alone.one_run(place, rate, options) if settings is None else {}
            runs.append(one_run(place, rate, options, settings) | floor)
        figures += over_runs(runs, {"events/s": rate})
    return figures


def one_run(
    place: Place, rate: int, options: Options, settings: Mapping[str, object] | None = None
) -> dict[str, tuple[float, str]]:
    """One worker at one rate; the warm-up is left out of the figures."""
    name = place.job(ACCOUNTS)
    events = f"{name}.events"
    place.create({events: PARTITIONS})
    output = place.folder / f"{name}.npy"
    worker = start(place, "worker", name, events, settings=settings, profile=options.profile)
    receiver = sender = None
    try:
        worker.until("reading ")
        receiver = receive(place, f"{name}.predictions", output)
        greeted = greet(place, events)
        sender = send(place, events, rate, options.warm_up_s + options.seconds)
        time.sleep(options.warm_up_s + 0.5)
        before_s, at_s = cpu_s(worker.pid), time.monotonic()
        said = finished(sender)
        used = (cpu_s(worker.pid) - before_s) / (time.monotonic() - at_s)
        sent = greeted + said["sent"]
        settle(place, f"{name}.predictions", sent)
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
    if len(times) < sent:
        raise BenchmarkError(f"{sent - len(times):.0f} of {sent:.0f} results never came")
    measured = times[times[:, 0] >= from_us]
    return {
        **percentiles(measured[:, 1] - measured[:, 0]),
        "CPU": (used * 1e6 / rate, "µs/event"),
        "producer behind, p99": (said["behind_p99_ms"], "ms"),
    }
