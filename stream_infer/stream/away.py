"""Partitions whose rows cannot be read: what is known of them until they can be."""

from dataclasses import dataclass

from stream_infer.core.state import PartitionState, Position


@dataclass(slots=True)
class Away:
    """A partition that is predicted without its rows: `state` has a position and a clock only."""

    state: PartitionState


@dataclass(frozen=True, slots=True)
class Published:
    """What this process has published of a partition, whatever is stored or committed.

    Results of the events below `emit_from` are acknowledged; pairs of a prediction and its label
    are published, or on their way, below `pairs_from`.
    """

    emit_from: Position
    pairs_from: Position


def highest(one: Position, other: Position) -> Position:
    """Return the higher offset of each stream."""
    return tuple(map(max, one, other))


def lowest(one: Position, other: Position) -> Position:
    """Return the lower offset of each stream."""
    return tuple(map(min, one, other))
