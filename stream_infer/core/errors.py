"""Every error the project raises on purpose: what happened, to what, and what to do about it."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"`, or the list of what exists when nothing is near."""
    known = sorted(choices)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(known)}" if known else ""


class StreamInferError(Exception):
    """Base of all errors raised on purpose."""


class DeclarationError(StreamInferError):
    """A stream, view, feature, graph or topology is declared wrongly.

    `culprit` names the declaration at fault; of `choices`, the valid names, the nearest is offered.
    """

    def __init__(
        self, culprit: str, message: str, *, name: str | None = None, choices: Iterable[str] = ()
    ) -> None:
        hint = did_you_mean(name, choices) if name is not None else ""
        super().__init__(f"{culprit}: {message}{hint}")
        self.culprit = culprit


class SettingsError(StreamInferError):
    """A setting has a value outside its bounds, or is unknown."""


class ModelError(StreamInferError):
    """A model file is missing, damaged, unsafe, or does not fit its topology."""


class StateError(StreamInferError):
    """Stored state does not fit the topology that reads it."""


class FencedError(StateError):
    """Another worker owns this partition now; this one must not write."""


class StateLostError(FencedError):
    """The store has an older state than the one it had acknowledged."""


class RowsEvictedError(StateLostError):
    """The store may have evicted rows of this partition: none of them can be trusted."""


class EvictingError(StateError):
    """The store keeps evicting rows; folding them again would not help."""


class EventError(StreamInferError):
    """One event is not acceptable; `stage` and `reason` go to its dead letter."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
