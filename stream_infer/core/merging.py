"""Several logs as one, by event time: which record comes next."""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from stream_infer.core.checks import EARLIEST_US
from stream_infer.core.stream import Stream

T = TypeVar("T")
PASSES = -1
"""Stands for the time of a record that will be refused: it has no place to wait for."""

EventTimes = Callable[[Sequence[bytes | None], Sequence[int] | None], list[int]]
"""From values, and their broker timestamps in ms if they have any, to event times in µs."""


class Merge(Generic[T]):
    """Items of several logs that wait for their turn: by event time, among equals by log.

    The order within a log stays, whatever its times are: only the logs' first items are compared.
    So the order of all depends on nothing but the logs, as long as none is empty before its end.

    >>> merge = Merge[str](2)
    >>> merge.put(0, ["a", "b"], [10, 30])
    >>> merge.put(1, ["x", "y"], [10, 20])
    >>> [merge.pop(merge.next() or 0) for _ in range(4)]
    ['a', 'x', 'y', 'b']
    """

    def __init__(self, logs: int) -> None:
        self._waiting: list[deque[tuple[int, T]]] = [deque() for _ in range(logs)]

    def put(self, log: int, items: Sequence[T], times_us: Sequence[int]) -> None:
        """Append items to what waits of a log."""
        self._waiting[log].extend(zip(times_us, items, strict=True))

    def next(self) -> int | None:
        """Return the log whose first item comes next, None where nothing waits."""
        found, least_us = None, 0
        for log, waiting in enumerate(self._waiting):
            if waiting and (found is None or waiting[0][0] < least_us):
                found, least_us = log, waiting[0][0]
        return found

    def first(self, log: int) -> tuple[int, T]:
        """Return the event time and the item that is first in a log."""
        return self._waiting[log][0]

    def pop(self, log: int) -> T:
        """Take the first item of a log."""
        return self._waiting[log].popleft()[1]

    def count(self, log: int) -> int:
        """Return how many items of a log wait."""
        return len(self._waiting[log])


def event_times(stream: Stream) -> EventTimes:
    """Return what reads the event times of a stream's records, and no more of them.

    A record that is certain to be refused (no time, one before 2000 or too far ahead, too many
    bytes) has time PASSES. Without broker timestamps, times are not bounded from above.
    """
    names = {
        field.encode_name
        for event_type in stream.event_types
        for field in msgspec.structs.fields(event_type)
        if field.name == stream.time
    }
    members = {f"t{number}": name for number, name in enumerate(sorted(names))}
    timed = msgspec.defstruct(
        "Timed", [(name, datetime | None, None) for name in members], rename=members, gc=False
    )
    decode = msgspec.json.Decoder(timed).decode

    def time_us(value: bytes | None) -> int:
        if value is None or len(value) > stream.max_bytes:
            return PASSES
        try:
            found = decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return PASSES
        moments = (getattr(found, name) for name in members)
        moment = next((moment for moment in moments if moment is not None), None)
        if moment is None or moment.tzinfo is None:
            return PASSES
        us = round(moment.timestamp() * 1e6)
        return us if us >= EARLIEST_US else PASSES

    def times_us(values: Sequence[bytes | None], ingested_ms: Sequence[int] | None) -> list[int]:
        times = list(map(time_us, values))
        if ingested_ms is None:
            return times
        ahead_us = stream.max_ahead_us
        return [
            us if us <= ms * 1000 + ahead_us else PASSES
            for us, ms in zip(times, ingested_ms, strict=True)
        ]

    return times_us
