"""The battery: `python -m tests.faults [--only NAME] [--seeds N] [--seed S] [--json]`."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from stream_infer.failpoints import ONLY_EXACTLY_ONCE, POINTS
from tests.faults import (
    brokers,
    clocks,
    draining,
    exactly_once,
    letters,
    members,
    models_failing,
    redis_faults,
    rekeyed,
    resources,
    scaling,
    servers,
    steady,
    two_streams,
    workers,
)
from tests.faults.bench import Bench
from tests.faults.harness import Run
from tests.faults.verifier import Figures

Scenario = Callable[[Run], Figures]

SCENARIOS: dict[str, Scenario] = {
    "kill": workers.kill,
    "takeover": workers.takeover,
    **{
        f"kill-{p.replace('_', '-')}": partial(workers.failpoint, point=p)
        for p in POINTS
        if p not in ONLY_EXACTLY_ONCE
    },
    "zombie": workers.zombie,
    **{
        f"zombie-{p.replace('_', '-')}": partial(workers.frozen_at, point=p)
        for p in ("acknowledged", "state_unwritten", "state_written", "committing")
    },
    "rekey-kill": rekeyed.kill,
    "rekey-zombie": rekeyed.zombie,
    "two-streams-kill": two_streams.kill,
    "scale": scaling.scale,
    "sigterm": workers.sigterm,
    "poison": servers.poison,
    "redis-away": servers.redis_away,
    "redis-resets": servers.redis_resets,
    "redis-slow": servers.redis_slow,
    "redis-set-back": servers.redis_set_back,
    "redis-emptied": servers.redis_emptied,
    "redis-away-degraded": redis_faults.away_degraded,
    "redis-evicting": redis_faults.evicting,
    "redis-full": redis_faults.full,
    "redis-disk-full": redis_faults.disk_full,
    "redis-promoted": redis_faults.promoted,
    "cluster-kill": redis_faults.cluster_kill,
    "cluster-node-away": redis_faults.cluster_node_away,
    "broker-stopped": partial(servers.broker_stopped, killed=False),
    "broker-killed": partial(servers.broker_stopped, killed=True),
    **{
        f"model-{name}": partial(models_failing.model_fails, fault=fault)
        for name, fault in (
            ("hangs", "hang"),
            ("slow", "slow"),
            ("raises", "raise"),
            ("nan", "nan"),
        )
    },
    "message-too-large": letters.message_too_large,
    "poison-replayed": letters.poison_replayed,
    "disk-full": resources.disk_full,
    "memory-limit": resources.memory_limit,
    "overlapping-members": members.overlapping_members,
    "steady": steady.steady,
    "http-drain": draining.http_drain,
    "http-beside-workers": draining.http_beside_workers,
    "brokers-leader-killed": brokers.leader_killed,
    "clock-set-back": clocks.clock_set_back,
    **exactly_once.scenarios(),
}
SEEDED = {"kill", "exactly-once-kill"}
"""Scenarios that `--seeds` repeats; each other one runs once unless it is named."""


def play(bench: Bench, name: str, seed: int) -> Figures:
    """Run one scenario; what goes wrong on the way is in its figures."""
    start_s = time.monotonic()
    run = Run(bench, name, seed)
    try:
        figures = SCENARIOS[name](run)
    except Exception as error:
        figures = run.figures
        figures.failures.append(f"{type(error).__name__}: {error}")
    finally:
        run.close()
        bench.restore()
    figures.notes["took_s"] = round(time.monotonic() - start_s, 1)
    return figures


def main() -> int:
    """Run scenarios; 0 when all passed."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="one scenario, or several")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds of each")
    parser.add_argument("--seed", type=int, metavar="S", help="this seed only")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs and data here")
    parser.add_argument(
        "--away-s", type=float, default=Bench.away_s, metavar="S", help="how long servers stay away"
    )
    parser.add_argument(
        "--steady-s", type=float, default=Bench.steady_s, metavar="S", help="length of `steady`"
    )
    options = parser.parse_args()
    for name in options.only or ():
        if name not in SCENARIOS:
            parser.error(f"no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        with Bench.started(folder) as bench:
            bench.away_s, bench.steady_s = options.away_s, options.steady_s
            for name in options.only or SCENARIOS:
                many = options.only or name in SEEDED
                seeds = [options.seed] if options.seed is not None else range(options.seeds)
                for seed in seeds if many or options.seed is not None else [0]:
                    figures = play(bench, name, seed)
                    show(figures, as_json=options.json)
                    bench.forget()
                    failed += not figures.passed
    return 1 if failed else 0


def show(figures: Figures, *, as_json: bool) -> None:
    """Print one line; for a failure, how to repeat it."""
    if as_json:
        print(json.dumps({**asdict(figures), "passed": figures.passed}), flush=True)
    else:
        print(f"{'ok    ' if figures.passed else 'FAILED'} {figures.line()}", flush=True)
    if not figures.passed:
        repeat = f'make faults ARGS="--only {figures.scenario} --seed {figures.seed}"'
        print(f"to repeat it: {repeat}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
