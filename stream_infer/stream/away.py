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

    def pairs_when(self, emit_from: Position) -> Position:
        """Return from where pairs are to be published, if results are from `emit_from` on.

        That is lower for each stream whose pairs lag behind its results; where they do not, they
        went with the results, also with those that Kafka has and this process has not heard of.
        """
        return tuple(
            pairs if pairs < results else start
            for pairs, results, start in zip(
                self.pairs_from, self.emit_from, emit_from, strict=True
            )
        )


def highest(one: Position, other: Position) -> Position:
    """Return the higher offset of each stream."""
    return tuple(map(max, one, other))
