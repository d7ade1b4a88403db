"""What a caller may choose: which parts, how much of each."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.generator import Draw


@dataclass(frozen=True)
class Options:
    """How much each part does. The defaults make the published figures."""

    keys: tuple[int, ...] = (5_000, 1_000_000)
    draws: tuple[Draw, ...] = ("uniform", "zipf")
    events: int = 1_200_000
    """Measured events of a backlog, of the smallest number of keys; half as many of the others."""
    runs: int = 3
    """Repetitions of what a median is taken of; one where keys are many."""
    rates: tuple[int, ...] = (500, 2_000, 10_000, 30_000)
    """Events a second at which latency is measured."""
    seconds: float = 10.0
    """How long each run of an open loop is measured."""
    warm_up_s: float = 3.0
    """How long it runs before that."""
    broker_warm_up_s: float = 40.0
    """How long a worker runs before latency is measured, for the broker to compile its code."""
    curve_events: int = 40_000
    """Events of each point of `core` and of the curves of `growth`."""
    curve_points_max: int = 10
    """Points of each curve, from its beginning."""
    entities: tuple[int, ...] = (1, 10, 100, 1_000)
    """Entities read at a time from the batch features."""
    stored_keys: int = 1_000_000
    """Keys whose rows are stored when `start` starts a worker."""
    read_seconds: float = 0.7
    """How long each reader of batch features is measured at each number of entities."""
    peers: tuple[str, ...] = ()
    """Which peers `peers` measures, by their folders; none named: all."""
    profile: Path | None = None
    """Where to write a worker's profile; by py-spy for .svg, .json and .txt, else by cProfile."""
