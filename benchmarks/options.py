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
    profile: Path | None = None
    """Where to write a worker's profile; by py-spy for .svg, .json and .txt, else by cProfile."""
