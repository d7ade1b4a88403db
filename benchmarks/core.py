"""The pure step without network: microseconds an event by stage, by batch size and keys."""

from collections.abc import Sequence

import numpy as np
from redis import Redis

from benchmarks.figures import Case, Figure, figure
from benchmarks.generator import SECOND_US, Keys, account_name, payments
from benchmarks.models import graphs
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.standard import topology
from benchmarks.step import Seconds, Step

BATCH_SIZES = (1, 10, 100, 1_000, 2_000, 5_000, 10_000)
EVENTS_PER_S = 20_000
WARM_UP_BATCHES = 3


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure each number of keys with each batch size, all rows in memory."""
    figures: list[Figure] = []
    with Redis.from_url(place.redis_url) as redis:
        for keys in options.keys:
            plan = place.plan(keys)
            step = Step(topology, graphs, plan=plan, redis=redis)
            step.fill([account_name(number) for number in range(keys)])
            for size in BATCH_SIZES[: options.curve_points_max]:
                found = batches(step, Keys(keys), size, options.curve_events)
                figures += stages(found, size, {"keys": keys, "batch": size})
    return figures


def batches(step: Step, keys: Keys, size: int, events: int) -> list[Seconds]:
    """Run batches of a size until they are that many events, and a few before that."""
    random = np.random.default_rng(size)
    # Enough for a median, and no more of the small ones than take a second or two.
    count = int(np.clip(events // size, 12, 500)) + WARM_UP_BATCHES
    numbers = keys.sample(random, count * size)
    times_us = step.time_us + np.arange(count * size) * (SECOND_US // EVENTS_PER_S)
    step.time_us = int(times_us[-1])
    values = [value for _, value in payments(numbers, times_us, size)]
    found = []
    for start in range(0, len(values), size):
        now_us = int(times_us[start + size - 1]) + 2_000
        found.append(step.run(values[start : start + size], now_us))
    return found[WARM_UP_BATCHES:]


def stages(found: Sequence[Seconds], size: int, case: Case) -> list[Figure]:
    """The median of each stage and of the whole, in microseconds an event."""
    per_event = 1e6 / size
    figures = [
        figure(name, float(np.median([run[name] for run in found])) * per_event, "µs/event", case)
        for name in found[0]
    ]
    whole = float(np.median([sum(run.values()) for run in found])) * per_event
    return [*figures, figure("all", whole, "µs/event", case)]
