"""Throughput and latency with `delivery = "exactly_once"`, beside the default in the same run."""

from dataclasses import replace

from benchmarks import latency, worker
from benchmarks.figures import Figure, figure, over_runs
from benchmarks.generator import Keys
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.processes import BenchmarkError
from stream_infer.settings import FIELDS

KEYS = 5_000
RUNS_MAX = 2
DELIVERIES = ("at_least_once", "exactly_once")


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure the backlog with both, and the latencies of exactly once."""
    if "delivery" not in FIELDS:
        raise BenchmarkError(
            "exactly-once needs the setting `delivery`, which this version does not have"
        )
    figures: list[Figure] = []
    throughput: dict[str, float] = {}
    for delivery in DELIVERIES:
        runs = worker.backlog_runs(
            place,
            Keys(KEYS),
            options.events,
            runs=min(options.runs, RUNS_MAX),
            options=options,
            settings={"delivery": delivery},
        )
        found = over_runs(runs, {"delivery": delivery})
        figures += found
        throughput[delivery] = next(item.value for item in found if item.name == "throughput")
    share = throughput["exactly_once"] / throughput["at_least_once"]
    figures.append(figure("share of the default", share, "", {"delivery": "exactly_once"}))
    rates = replace(options, runs=1)
    for item in latency.measure(place, rates, {"delivery": "exactly_once"}):
        figures.append(
            figure(item.name, item.value, item.unit, {"delivery": "exactly_once"} | item.case)
        )
    return figures
