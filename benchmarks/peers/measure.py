"""Measure all peers, or those asked for: `python -m benchmarks --only peers [--peer NAME ...]`."""

import contextlib
import sys
from collections.abc import Iterator, Mapping

from confluent_kafka import KafkaException

from benchmarks.figures import Figure, figure
from benchmarks.options import Options
from benchmarks.peers import requests, streams
from benchmarks.peers.catalogue import BY_KEY, PEERS, Mode, Peer
from benchmarks.peers.environments import environment, versions
from benchmarks.place import Place
from benchmarks.processes import BenchmarkError
from tests.servers.jars import MissingProgramError

KEEPS_UP = 1.2
"""Latency at a rate is measured where the backlog went this much faster."""

Case = Mapping[str, str | int | float]
Run = dict[str, tuple[float, str]]


def measure(place: Place, options: Options) -> list[Figure]:
    """Measure each peer in each of its modes; one that fails is reported, the others go on."""
    chosen = [BY_KEY[key] for key in options.peers] or list(PEERS)
    place.plan(streams.KEYS)
    figures: list[Figure] = []
    installed = []
    for peer in chosen:
        with _reported(figures, _case(peer, Mode(""))):
            environment(peer)
            installed.append(peer)
    kafka = [peer for peer in installed if peer.kind == "stream"]
    if kafka:
        with streams.backlog(place, options) as events:
            for peer in kafka:
                for mode in peer.modes:
                    figures += stream_figures(place, peer, mode, events, options)
    for peer in installed:
        if peer.kind == "http":
            for mode in peer.modes:
                figures += http_figures(place, peer, mode, options)
    return figures


def stream_figures(
    place: Place, peer: Peer, mode: Mode, events: streams.Backlog, options: Options
) -> list[Figure]:
    """What one mode of a stream peer came to."""
    case = _case(peer, mode)
    figures: list[Figure] = []
    with _reported(figures, case):
        run = streams.through_backlog(place, peer, mode, events)
        figures += as_figures(run, case, remarks(peer, mode))
        if run["throughput"][0] < KEEPS_UP * streams.RATE_PER_S:
            note = f"does not keep up with {streams.RATE_PER_S:,}/s: no latency there"
            figures.append(_noted("keeps up", 0, case, note))
        else:
            figures += as_figures(streams.at_rate(place, peer, mode, options), case)
    return figures


def http_figures(place: Place, peer: Peer, mode: Mode, options: Options) -> list[Figure]:
    """What one mode of an HTTP peer came to."""
    case = _case(peer, mode)
    figures: list[Figure] = []
    with _reported(figures, case):
        run, collapsed = requests.under_load(place, peer, mode, options)
        figures += as_figures(run, case, remarks(peer, mode))
        figures += [_noted("keeps up", 0, case, note) for note in collapsed.values()]
    return figures


def as_figures(run: Run, case: Case, note: str = "") -> list[Figure]:
    """Figures of one run; the first carries the note."""
    made = [figure(name, value, unit, case) for name, (value, unit) in run.items()]
    if note:
        made[0] = figure(made[0].name, made[0].value, made[0].unit, case, note)
    return made


def remarks(peer: Peer, mode: Mode) -> str:
    """Versions, and where it does more or less than we do; what all modes share, by the first."""
    if mode != peer.modes[0]:
        return mode.remarks
    pinned = ", ".join(f"{name} {version}" for name, version in versions(peer).items())
    return " ".join(part for part in (f"{pinned}.", peer.remarks, mode.remarks) if part)


def _case(peer: Peer, mode: Mode) -> Case:
    rate = streams.RATE_PER_S if peer.kind == "stream" else requests.STEADY_PER_S
    return {"peer": peer.name, "mode": mode.name, "by": peer.kind, "latency at": rate}


def _noted(name: str, value: float, case: Case, note: str) -> Figure:
    return figure(name, value, "", case, note)


@contextlib.contextmanager
def _reported(figures: list[Figure], case: Case) -> Iterator[None]:
    """A failure inside becomes a figure that says what happened."""
    print(f"{case['peer']} {case['mode']} …", file=sys.stderr, flush=True)
    try:
        yield
    except (BenchmarkError, MissingProgramError, KafkaException, OSError, ValueError) as error:
        figures.append(_noted("failed", 1, case, str(error)))
