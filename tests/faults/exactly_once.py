"""The faults of `workers` and `servers` with delivery = "exactly_once": no repeats, either."""

from collections.abc import Callable
from functools import partial

from stream_infer.failpoints import ONLY_AT_LEAST_ONCE, POINTS
from tests.faults import scaling, servers, workers
from tests.faults.harness import Run
from tests.faults.verifier import Figures

FROZEN_AT = ("in_transaction", "transaction_ending", "transaction_committed", "acknowledged")


def once(run: Run, fault: Callable[[Run], Figures]) -> Figures:
    """Let a fault befall workers that deliver exactly once."""
    run.settings = {"delivery": "exactly_once"}
    figures = fault(run)
    if figures.repeats:
        figures.failures.append(f"{figures.repeats} results were seen again by a reader")
    return figures


def scenarios() -> dict[str, Callable[[Run], Figures]]:
    """Return the scenarios by name."""
    faults: dict[str, Callable[[Run], Figures]] = {
        "kill": workers.kill,
        "takeover": workers.takeover,
        "zombie": workers.zombie,
        "scale": scaling.scale,
        "sigterm": workers.sigterm,
        "redis-emptied": servers.redis_emptied,
        "broker-stopped": partial(servers.broker_stopped, killed=False),
        "broker-killed": partial(servers.broker_stopped, killed=True),
    }
    for point in POINTS:
        if point not in ONLY_AT_LEAST_ONCE:
            faults[point.replace("_", "-")] = partial(workers.failpoint, point=point)
    for point in FROZEN_AT:
        faults[f"zombie-{point.replace('_', '-')}"] = partial(workers.frozen_at, point=point)
    return {f"exactly-once-{name}": partial(once, fault=fault) for name, fault in faults.items()}
