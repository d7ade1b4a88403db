"""One worker process with a backlog: events/s, processor time per event, memory."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.backlog import Progress, numbers_of, produce
from benchmarks.figures import Figure, over_runs
from benchmarks.generator import Keys
from benchmarks.options import Options
from benchmarks.place import PARTITIONS, Place
from benchmarks.processes import Process, cpu_s, resident_bytes, start
from stream_infer.stream.settings import StreamSettings

WARM_UP_SHARE = 0.1
SILENCE_MAX_S = 60.0
SHORT_EVENTS = 300_000
"""Fewer than that may all be committed at once, unless commits come more often."""
COMMIT_MIN_S = 0.02
MANY_KEYS = 100_000
"""From here on, memory per key says more about keys than about the program."""

Run = dict[str, tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events that lie in a topic: each key once, then a warm-up, then `measured` ones."""

    topic: str
    keys: Keys
    total: int
    measured: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What workers had done, and what had been used for it, at one moment."""

    at_s: float
    committed: int
    workers_s: float
    kafka_s: float
    redis_s: float


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure each number of keys with each draw."""
    figures: list[Figure] = []
    for count in options.keys:
        many = count >= MANY_KEYS
        events = options.events // 2 if many else options.events
        for draw in options.draws:
            runs = backlog_runs(
                place,
                Keys(count, draw),
                events,
                runs=1 if many else options.runs,
                options=options,
            )
            figures += over_runs(runs, {"keys": count, "draw": draw})
    return figures


def backlog_runs(
    place: Place,
    keys: Keys,
    events: int,
    *,
    runs: int,
    options: Options,
    settings: Mapping[str, object] | None = None,
) -> list[Run]:
    """Measure the same backlog several times, each time from empty state."""
    place.plan(keys.count)
    settings = {**watchable(events), **(settings or {})}
    topic = f"backlog_{keys.count}_{keys.draw}_{time.time_ns()}"
    numbers = numbers_of(keys, int(events * WARM_UP_SHARE), events, seed=1)
    place.create({topic: PARTITIONS})
    produce(place, topic, numbers, seed=1)
    backlog = Backlog(topic, keys, len(numbers), events)
    try:
        return [one_run(place, backlog, options, settings) for _ in range(runs)]
    finally:
        place.kafka.delete_topics([topic])


def one_run(
    place: Place,
    backlog: Backlog,
    options: Options,
    settings: Mapping[str, object] | None = None,
) -> Run:
    """Run a worker through a backlog; measure its last events."""
    keys = backlog.keys.count
    name = place.job(keys)
    redis_before = place.redis_bytes()
    with contextlib.ExitStack() as stack:
        stack.callback(place.forget, name)
        profile = options.profile
        worker = start(place, "worker", name, backlog.topic, settings=settings, profile=profile)
        stack.callback(worker.process.kill)
        begun = sample(place, [worker], 0)
        progress = Progress(place, name, backlog.topic)
        stack.callback(progress.close)
        worker.until("models loaded")
        resident_before = resident_bytes(worker.pid)
        samples = [begun, *followed(place, [worker], progress, backlog.total)]
        resident = resident_bytes(worker.pid)
        redis_after = place.redis_bytes()
        worker.stop()
    run = figures_of(samples, keys, backlog.total - backlog.measured)
    run["memory"] = (resident / 1e6, "MB")
    if keys >= MANY_KEYS:
        run["memory per key"] = ((resident - resident_before) / keys, "bytes")
        run["Redis per key"] = ((redis_after - redis_before) / keys, "bytes")
    return run


def followed(
    place: Place, workers: Sequence[Process], progress: Progress, total: int
) -> list[Sample]:
    """Sample until all is committed; raises BenchmarkError when nothing moves for a minute."""
    samples: list[Sample] = []
    moved_s = time.monotonic()
    for position in progress.watch(total):
        now_s = time.monotonic()
        ended = [worker for worker in workers if worker.process.poll() is not None]
        if ended or now_s - moved_s > SILENCE_MAX_S:
            at = samples[-1].committed if samples else 0
            raise [*ended, *workers][0].failure(f"stands at {at:,} of {total:,} events")
        if position < 0:
            continue
        moved_s = now_s
        samples.append(sample(place, workers, position))
    return samples


def sample(place: Place, workers: Sequence[Process], committed: int) -> Sample:
    """What was used up to now, with what is known to be committed now."""
    used_s = sum(cpu_s(worker.pid) for worker in workers)
    now_s = time.monotonic()
    return Sample(now_s, committed, used_s, cpu_s(place.kafka_pid), cpu_s(place.redis_pid))


def watchable(events: int) -> dict[str, object]:
    """Settings that let several commits be seen among few events; the defaults for many."""
    if events >= SHORT_EVENTS:
        return {}
    interval_s = StreamSettings().commit_interval_s * events / SHORT_EVENTS
    return {"commit_interval_s": max(interval_s, COMMIT_MIN_S)}


def figures_of(samples: Sequence[Sample], keys: int, warm: int) -> Run:
    """Return what happened from the first commit past the warm-up to the last one.

    Where less than half of the events is left then, from the sample before it: the first one must
    be of a moment when nothing was committed, so that there always is one, however fast it went.
    """
    last = samples[-1]
    past = next(n for n, found in enumerate(samples) if found.committed >= warm)
    if past and samples[past].committed - warm > (last.committed - warm) / 2:
        past -= 1
    first = samples[past]
    events, seconds = last.committed - first.committed, last.at_s - first.at_s
    workers_s = last.workers_s - first.workers_s
    kafka_s, redis_s = last.kafka_s - first.kafka_s, last.redis_s - first.redis_s
    run: Run = {
        "throughput": (events / seconds, "events/s"),
        "CPU": (workers_s * 1e6 / events, "µs/event"),
        "Kafka's CPU": (kafka_s * 1e6 / events, "µs/event"),
        "Redis' CPU": (redis_s * 1e6 / events, "µs/event"),
        "cores in use": ((workers_s + kafka_s + redis_s) / seconds, ""),
        "measured": (seconds, "s"),
    }
    cold = [found for found in samples if 0 < found.committed <= keys]
    if keys >= MANY_KEYS and len(cold) > 1:
        moved = cold[-1].committed - cold[0].committed
        run["throughput, new keys"] = (moved / (cold[-1].at_s - cold[0].at_s), "events/s")
    return run
