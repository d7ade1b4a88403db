"""Measure: `python -m benchmarks [--only NAME ...] [--json]`; `make bench` does it."""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import (
    core,
    evenness,
    exactly_once,
    feast_reads,
    freshness,
    growth,
    http,
    latency,
    scale,
    start,
    worker,
)
from benchmarks.figures import Figure, notes, table, text_of
from benchmarks.machine import commit, machine, versions
from benchmarks.options import Options
from benchmarks.peers.catalogue import BY_KEY
from benchmarks.peers.measure import measure as measure_peers
from benchmarks.place import Place
from benchmarks.processes import BenchmarkError

RESULTS = Path(__file__).with_name("results")

PARTS: dict[str, Callable[[Place, Options], list[Figure]]] = {
    "core": core.measure,
    "growth": growth.measure,
    "feast-reads": feast_reads.measure,
    "worker": worker.measure,
    "latency": latency.measure,
    "http": http.measure,
    "freshness": freshness.measure,
    "start": start.measure,
    "scale": scale.measure,
    "exactly-once": exactly_once.measure,
    "peers": measure_peers,
}


def main() -> int:
    """Run the parts asked for; print their tables, or one JSON object; write the results."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        choices=[*PARTS],
        metavar="NAME",
        help=", ".join(PARTS),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="where to write DATE.json (default: nowhere)"
    )
    parser.add_argument("--keys", nargs="+", type=int, metavar="N", help="numbers of keys")
    parser.add_argument(
        "--draws", nargs="+", choices=["uniform", "zipf"], help="how keys are drawn"
    )
    parser.add_argument("--events", type=int, metavar="N", help="measured events of a backlog")
    parser.add_argument("--rates", nargs="+", type=int, metavar="N", help="events/s for latency")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of each open loop")
    parser.add_argument("--warm-up-s", type=float, metavar="S", help="what comes before it")
    parser.add_argument("--curve-events", type=int, metavar="N", help="events of a curve's point")
    parser.add_argument("--curve-points-max", type=int, metavar="N", help="points of a curve")
    parser.add_argument("--stored-keys", type=int, metavar="N", help="rows stored for `start`")
    parser.add_argument("--read-seconds", type=float, metavar="S", help="time of each Feast read")
    parser.add_argument("--runs", type=int, metavar="N", help="repetitions for a median")
    parser.add_argument(
        "--peer",
        nargs="+",
        action="extend",
        dest="peers",
        choices=[*BY_KEY],
        metavar="NAME",
        help=f"of peers: {', '.join(BY_KEY)}",
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="the worker's profile: .svg, .json (speedscope), .txt by py-spy, else by cProfile",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep data and logs here")
    arguments = parser.parse_args()
    chosen: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value, list) else value
        for field in dataclasses.fields(Options)
        if (value := getattr(arguments, field.name, None)) is not None
    }
    with ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        report = run(
            arguments.only or list(PARTS),
            Options(**chosen),
            folder,
            arguments.results,
            quiet=arguments.json,
        )
    if arguments.json:
        print(json.dumps(report, indent=1))
    return 1 if report["failed"] else 0


def run(
    parts: list[str],
    options: Options,
    folder: Path,
    results: Path | None = None,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run parts on servers of their own; return all that is to be kept of them.

    What is measured is written to the folder `results` at once: later parts may fail.
    """
    report: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(),
        "parts": {},
        "failed": {},
    }
    with Place.started(folder) as place:
        for name in parts:
            before = evenness.measure(min(evenness.SECONDS, options.seconds / 5))
            start_s = time.monotonic()
            try:
                figures = PARTS[name](place, options)
            except BenchmarkError as error:
                # The others' figures are worth having all the same.
                report["failed"][name] = str(error)
                print(f"\n{name}: {error}", file=sys.stderr, flush=True)
                if results:
                    write(report, results)
                continue
            took_s = round(time.monotonic() - start_s, 1)
            report["parts"][name] = {
                "took_s": took_s,
                "commit": report["commit"],
                "command": report["command"],
                "machine_before": msgspec.to_builtins(before),
                "figures": msgspec.to_builtins(figures),
            }
            if results:
                write(report, results)
            if not quiet:
                print(f"\n{name} ({took_s:.0f} s; before it, {before})\n{text_of(table(figures))}")
                print(*notes(figures), sep="\n", flush=True)
    return report


def write(report: dict[str, Any], folder: Path) -> Path:
    """Write the results of a day; parts that were not measured again stay as they were."""
    path = folder / f"{report['date']}.json"
    before = json.loads(path.read_text()) if path.is_file() else {"parts": {}}
    merged = report | {"parts": before["parts"] | report["parts"]}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
