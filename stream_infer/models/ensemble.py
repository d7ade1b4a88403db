"""Running several models on the same vectors, so that one that fails does not stop the others."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from msgspec import Struct, field

from stream_infer.core.combiners import all_finite
from stream_infer.models.sessions import Rows, Scores


class Scorer(Protocol):
    """What an ensemble needs of a model: float64[n] scores from float32[n, F] vectors."""

    def run(self, vectors: Rows) -> Scores:
        """Return the scores, or raise."""
        ...


Begun = Callable[[], Scores]
"""Waits for a model's scores and returns them.

Raises TimeoutError for a model that was not done in time, and what the model raises.
"""


class Elsewhere(ABC):
    """A `Begun` call that runs in another thread."""

    __slots__ = ()

    @abstractmethod
    def __call__(self) -> Scores: ...

    @abstractmethod
    async def ended(self) -> None:
        """Let the event loop go on until the call has ended or is overdue."""


class Caller(Protocol):
    """How the models of an ensemble are called, such as within a time limit."""

    def __call__(self, models: Mapping[str, Scorer], vectors: Rows) -> Sequence[Begun]:
        """Begin a call of each model; what fails does so in what is returned for it."""
        ...


class ModelScores(Struct, frozen=True):
    """Scores float64[n, M], a column a model; NaN where there is no finite one.

    `failures` gives the reason, `model:NAME:error`, `…:timeout` or `…:nan`, of each model that
    failed for some row; `details` what an exception said.
    """

    scores: Scores
    failures: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)


def call_directly(models: Mapping[str, Scorer], vectors: Rows) -> Sequence[Begun]:
    """Run each model in the thread that waits for it, for as long as it takes."""
    return [partial(model.run, vectors) for model in models.values()]


class Running:
    """Models at work on n vectors: `begun` has the call of each of `names`."""

    def __init__(self, names: Sequence[str], begun: Sequence[Begun], n: int) -> None:
        self._names = names
        self._begun = begun
        self._n = n

    async def ended(self) -> None:
        """Let the event loop go on while models run in other threads."""
        for call in self._begun:
            if isinstance(call, Elsewhere):
                await call.ended()

    def scores(self) -> ModelScores:
        """Wait for the scores and return them, once; never raises for a model's failure."""
        shape = (self._n,)
        given = np.empty((self._n, len(self._names)))
        result = ModelScores(given)
        for column, (name, finish) in enumerate(zip(self._names, self._begun, strict=True)):
            try:
                scores = finish()
                if scores.shape != shape:
                    raise ValueError(f"scores have shape {scores.shape}, not {shape}")
                given[:, column] = scores
            except Exception as error:  # whatever a model raises, the others' scores still count
                kind = "timeout" if isinstance(error, TimeoutError) else "error"
                result.failures[name] = f"model:{name}:{kind}"
                result.details[name] = f"{type(error).__name__}: {error}"
                given[:, column] = np.nan
        if not all_finite(given):
            finite = np.isfinite(given)
            given[~finite] = np.nan
            for name, column in zip(self._names, finite.T, strict=True):
                if not column.all():
                    result.failures.setdefault(name, f"model:{name}:nan")
        return result


class ModelSet:
    """The models of an ensemble; `names` is the order of the columns of their scores."""

    def __init__(self, models: Mapping[str, Scorer], call: Caller = call_directly) -> None:
        self.models = dict(models)
        self.names = tuple(self.models)
        self._call = call

    def begin(self, vectors: Rows) -> Running:
        """Let every model begin to run on vectors float32[n, F]."""
        return Running(self.names, self._call(self.models, vectors), len(vectors))

    def run(self, vectors: Rows) -> ModelScores:
        """Run every model once on vectors float32[n, F]; never raises for a model's failure."""
        return self.begin(vectors).scores()
