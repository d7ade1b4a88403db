"""What an aggregate is: columns of a row, an answer for each event, and a fold."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stream_infer.core.arrays import Floats
from stream_infer.core.arrivals import Arrivals, Source
from stream_infer.core.features import Kind


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a row: `length` cells of `width` numbers each."""

    name: str
    dtype: str
    length: int = 1
    width: int = 1

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return np.dtype(self.dtype).itemsize * self.length * self.width


@dataclass(frozen=True, slots=True)
class Question:
    """What a feature asks of an aggregate: `panes` is its window in tiles (0: it has none)."""

    kind: Kind
    over_us: int
    panes: int
    include_self: bool


class Stored(Protocol):
    """A part of each row, shared by the features that can be answered from it."""

    @property
    def source(self) -> Source: ...

    def columns(self) -> list[Column]: ...

    def meaning(self, tags: tuple[str, ...]) -> str:
        """Return text that changes whenever stored numbers mean something else."""
        ...


class Aggregate(Stored, Protocol):
    """A part of each row that answers and folds by itself.

    `answer` returns float64[n] in the order of `arrivals`, from the rows as they were before the
    batch and the events of the batch that come before each; it changes nothing. `fold` adds all
    events to their rows; it runs after all answers, and before `updated_us` moves.
    """

    def answer(self, arrivals: Arrivals, question: Question) -> Floats: ...

    def fold(self, arrivals: Arrivals) -> None: ...
