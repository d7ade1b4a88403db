"""The machine's clock set back and forward under a running worker."""

import json
import time

from tests.faults import hooks
from tests.faults.events import T0_US
from tests.faults.harness import Run
from tests.faults.reading import read_topic
from tests.faults.verifier import Figures

RATE = 800.0
HOUR_S = 3_600.0


def clock_set_back(run: Run) -> Figures:
    """An hour back, two forward, then to before the events' own timestamps, then as it was."""
    told = run.directory / "clock"
    hooks.set_clock(told, 0.0)
    worker = run.worker(test={"CLOCK": str(told)})
    run.until_reading(worker)
    run.generate(10_000, RATE)
    before_events_s = T0_US / 1e6 - HOUR_S - time.time()
    for offset_s in (-HOUR_S, HOUR_S, before_events_s, 0.0):
        sent = run.sent() + run.random.randrange(1_000, 1_500)
        run.until_sent(sent)
        with run.fault():
            hooks.set_clock(told, offset_s)
    figures = run.finish(worker)
    years: dict[str, int] = {}
    negative = 0
    for message in read_topic(run.broker, f"{run.name}.predictions"):
        said = json.loads(message.value())
        year = said["predicted_at"][:4]
        years[year] = years.get(year, 0) + 1
        negative += said["latency_ms"] < 0
    figures.notes["predicted_at_years"] = years
    if len(years) < 2:
        figures.failures.append(f"the worker's clock did not move: {years}")
    if negative:
        figures.failures.append(f"{negative} latencies are negative")
    if figures.repeats:
        figures.failures.append(f"{figures.repeats} results were published again")
    if (figures.recovery_s or 0.0) > 1.5:
        figures.failures.append(f"results stood still for {figures.recovery_s} s")
    return figures
