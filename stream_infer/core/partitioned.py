"""A micro-batch whose events are those of several partitions, worked on at once."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stream_infer.core.arrays import Bools, Choice, Ints
from stream_infer.core.columns import Batch
from stream_infer.core.errors import StateError
from stream_infer.core.shard import Shard, lookup_together
from stream_infer.core.state import PartitionState, Position

Keys = list[str | None]


class Found(Struct, frozen=True):
    """Where the events' rows are: by shard the keys, the rows int64[n] (-1: none in memory), and
    for each partition the distinct keys whose rows must be inserted before the batch is folded.
    """

    keys: Mapping[str, Keys]
    rows: Mapping[str, Ints]
    absent: Mapping[str, list[list[str]]]

    def lacking(self, part: int = 0) -> dict[str, list[str]]:
        """Return, for each shard, the keys that one partition lacks."""
        return {name: keys[part] for name, keys in self.absent.items()}


class Partitioned(Struct, frozen=True):
    """Events of `batch` from `bounds[i]` to `bounds[i + 1]` are of the partition of `states[i]`.

    Partitions of one batch keep their rows in the same slabs.
    """

    batch: Batch
    states: Sequence[PartitionState]
    bounds: Sequence[int]

    @classmethod
    def alone(cls, state: PartitionState, batch: Batch) -> "Partitioned":
        """Return a batch of one partition."""
        return cls(batch, [state], [0, len(batch)])

    @property
    def parts(self) -> Ints:
        """Which of the partitions each event is of, int64[n]."""
        return parts_of(self.bounds)

    def shard(self, name: str) -> Shard:
        """Return a shard in whose slab all partitions' rows are."""
        return self.states[0].shards[name]

    def look_up(self, keys: Mapping[str, Keys]) -> Found:
        """Find the rows of events by their keys, of each shard."""
        rows: dict[str, Ints] = {}
        absent: dict[str, list[list[str]]] = {}
        for name, own in keys.items():
            shards = [state.shards[name] for state in self.states]
            rows[name], absent[name] = lookup_together(shards, self.bounds, own)
        return Found(keys, rows, absent)

    def rows(self, found: Found) -> Mapping[str, Ints]:
        """Return the rows, those that have been inserted since included.

        Raises StateError when one was not.
        """
        if not any(any(parts) for parts in found.absent.values()):
            return found.rows
        again = self.look_up(found.keys)
        for name, parts in again.absent.items():
            for state, keys in zip(self.states, parts, strict=True):
                if keys:
                    raise StateError(
                        f"partition {state.partition}: row {keys[0]!r} of {name} was not read"
                    )
        return again.rows


def parts_of(bounds: Sequence[int]) -> Ints:
    """Return the number of the part of each event, int64[n], from the parts' bounds."""
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


def bounds_of(keep: Choice, bounds: Sequence[int]) -> Sequence[int]:
    """Return the parts' bounds among the chosen events."""
    if keep is None:
        return bounds
    before = np.concatenate(([0], np.cumsum(keep)))
    kept: list[int] = before[np.asarray(bounds)].tolist()
    return kept


def from_on(
    starts: Sequence[Position],
    bounds: Sequence[int],
    offsets: Ints,
    sources: npt.NDArray[np.int8] | None,
) -> Bools:
    """Return bool[n]: which records are at or beyond their partition's start.

    `offsets` int64[n] are those of streams `sources` int8[n] (None: there is but one stream), and
    ascend within a partition's stream.
    """
    if sources is not None:
        reached: Bools = offsets >= np.array(starts)[parts_of(bounds), sources]
        return reached
    reached = np.ones(len(offsets), bool)
    for (start,), (first, end) in zip(starts, pairwise(bounds), strict=True):
        if first < end and offsets[first] < start:
            reached[first:end] = offsets[first:end] >= start
    return reached


def slices(bounds: Sequence[int]) -> list[slice]:
    """Return the events of each part."""
    return [slice(start, stop) for start, stop in pairwise(bounds)]
