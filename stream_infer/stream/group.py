"""The consumer group and the log, as the loop of a topology asks for them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from stream_infer.core.errors import StateError
from stream_infer.stream.commits import CommitResult
from stream_infer.stream.processing import TP

log = logging.getLogger("stream_infer.stream")


class Group(Protocol):
    """What is asked of the consumer group and the log, in the worker's own loop."""

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, int | None]: ...
    async def bounds(self, partitions: Sequence[TP]) -> Mapping[TP, tuple[int, int]]:
        """Return the first offset and the end of each partition's log."""
        ...

    async def seek_positions(self, positions: Mapping[TP, int]) -> None: ...
    async def commit_positions(self, positions: Mapping[TP, int]) -> CommitResult: ...
    def end(self, tp: TP) -> int | None:
        """Return the end of a partition's log as last heard."""
        ...


def readable_position(tp: TP, position: int, bounds: tuple[int, int]) -> int:
    """Return from where a partition is read; raises StateError for an offset past its end."""
    first, end = bounds
    if position > end:
        raise StateError(
            f"{tp.topic}/{tp.partition} is to be read from offset {position}, but its log ends at "
            f"{end}: the topic was recreated or lost data; remove its state and committed offsets"
        )
    if position < first:
        log.warning(
            "%s/%d: %d offsets from %d on were deleted from the log before they were processed",
            *(tp.topic, tp.partition, first - position, position),
        )
    return max(position, first)
