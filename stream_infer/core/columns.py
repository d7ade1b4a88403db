"""From the bytes of a micro-batch to columns, in one step; what is unacceptable is set aside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import repeat
from operator import attrgetter, sub
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import FEW, Choice, Floats, Ints
from stream_infer.core.checks import KEY_SEPARATOR, check_numbers, check_texts, check_times
from stream_infer.core.events import Event
from stream_infer.core.stream import Stream

EPOCH = datetime.fromtimestamp(0, UTC)
_US = timedelta(microseconds=1)
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that is not an acceptable event: its index in what was consumed, and why."""

    position: int
    stage: str
    reason: str


class EventTypes(Protocol):
    """Anything that knows which fields all event types of a batch have."""

    @property
    def shared_fields(self) -> frozenset[str]: ...


@dataclass(slots=True)
class Batch:
    """Acceptable events of one partition in offset order, and columns of them on demand.

    `positions` int32[n] index what was consumed; `offsets`, `ingested_us` (the record's broker
    timestamp) and `times_us` (event time) are int64[n]; `kinds` int8[n] index the event types, and
    `sources` int8[n] the topology's streams: None where there is but one.
    """

    stream: EventTypes
    events: list[Event]
    positions: npt.NDArray[np.int32]
    offsets: Ints
    ingested_us: Ints
    times_us: Ints
    kinds: npt.NDArray[np.int8]
    rejects: list[Reject] = field(default_factory=list)
    sources: npt.NDArray[np.int8] | None = None
    _columns: dict[str, Floats] = field(default_factory=dict)
    _labels: dict[str, list[str | None]] = field(default_factory=dict)
    _keys: dict[tuple[str, ...], list[str | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.events)

    def column(self, name: str) -> Floats:
        """Return a numeric field as float64[n]: NaN where absent or null, flags as 0 and 1."""
        if name not in self._columns:
            self._columns[name] = self._numbers(name)
        return self._columns[name]

    def labels(self, name: str) -> list[str | None]:
        """Return a field as text, None where absent or null."""
        if name not in self._labels:
            values = self.raw(name)
            if set(map(type, values)) != {str}:
                values = [None if value is None else str(value) for value in values]
            self._labels[name] = values
        return self._labels[name]

    def keys(self, by: tuple[str, ...]) -> list[str | None]:
        """Return entity keys: the fields' texts joined; None where one is absent or null."""
        if by not in self._keys:
            columns = [self.labels(name) for name in by]
            self._keys[by] = columns[0] if len(by) == 1 else list(map(_join, *columns))
        return self._keys[by]

    def take(self, keep: Choice) -> "Batch":
        """Return the chosen events; rejects stay with the whole batch."""
        if keep is None or np.count_nonzero(keep) == len(keep):
            return self
        chosen = keep.nonzero()[0]
        events = self.events
        taken = Batch(
            self.stream,
            [events[i] for i in chosen.tolist()],
            self.positions[chosen],
            self.offsets[chosen],
            self.ingested_us[chosen],
            self.times_us[chosen],
            self.kinds[chosen],
            sources=None if self.sources is None else self.sources[chosen],
        )
        taken._columns = {name: column[chosen] for name, column in self._columns.items()}
        return taken

    def raw(self, name: str) -> list[Any]:
        """Return a field's values as decoded, None where an event type lacks the field."""
        if name in self.stream.shared_fields:
            return list(map(attrgetter(name), self.events))
        return [getattr(event, name, None) for event in self.events]

    def _numbers(self, name: str) -> Floats:
        values = self.raw(name)
        try:
            return np.fromiter(values, np.float64, len(values))
        except (TypeError, OverflowError):
            pass
        try:  # Slower, but it takes None for NaN.
            return np.array(values, np.float64)
        except (TypeError, OverflowError):
            return np.array(list(map(_number, values)), np.float64)


def _number(value: Any) -> float:
    """Return a number as a float: NaN for none, and infinity for an integer beyond all floats."""
    if value is None:
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def _join(*parts: str | None) -> str | None:
    return None if None in parts else KEY_SEPARATOR.join(parts)  # type: ignore[arg-type]


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes that are no event."""


def decoder(stream: Stream) -> Callable[[bytes], Event]:
    """Return the JSON decoder of a stream's events."""
    decode_one: Callable[[bytes], Event] = msgspec.json.Decoder(stream.declared).decode
    return decode_one


def decode(
    stream: Stream,
    decode_one: Callable[[bytes], Event],
    values: Sequence[bytes | None],
    offsets: Ints,
    ingested_us: Ints | None,
) -> Batch:
    """Decode consumed values; one bad record never spoils the others.

    `ingested_us` None: the events come from a file, without broker timestamps; then event times
    are not bounded from above, and count as ingestion times.
    """
    positions: list[int] = []
    rejects: list[Reject] = []
    limit = stream.max_bytes
    events = _all_at_once(decode_one, values, limit)
    if events is not None:
        everything = np.arange(len(events), dtype=np.int32)
        return _checked(stream, events, everything, offsets, ingested_us, rejects)
    events = []
    for position, value in enumerate(values):
        if value is None or len(value) > limit:
            rejects.append(_unreadable(position, value, limit))
            continue
        try:
            events.append(decode_one(value))
        except UNREADABLE as error:
            rejects.append(Reject(position, "decode", str(error)))
            continue
        positions.append(position)
    return _checked(stream, events, np.array(positions, np.int32), offsets, ingested_us, rejects)


def _all_at_once(
    decode_one: Callable[[bytes], Event], values: Sequence[bytes | None], limit: int
) -> list[Event] | None:
    """Return all events; None where one of the values is none, and it must be found out which."""
    try:
        if max(map(len, values), default=0) <= limit:  # type: ignore[arg-type]
            return list(map(decode_one, values))  # type: ignore[arg-type]
    except (TypeError, *UNREADABLE):
        pass
    return None


def _unreadable(position: int, value: bytes | None, limit: int) -> Reject:
    if value is None:
        return Reject(position, "decode", "null body: an event is a JSON object")
    return Reject(position, "decode", f"{len(value)} bytes is over the stream's limit of {limit}")


def _checked(
    stream: Stream,
    events: list[Event],
    positions: npt.NDArray[np.int32],
    offsets: Ints,
    ingested_us: Ints | None,
    rejects: list[Reject],
) -> Batch:
    if len(stream.event_types) == 1:
        kinds = np.zeros(len(events), np.int8)
    else:
        kind_of = {event_type: kind for kind, event_type in enumerate(stream.event_types)}
        types = map(type, events)
        kinds = np.fromiter(map(kind_of.__getitem__, types), np.int8, len(events))
    reasons: dict[int, str] = {}
    times_us = _times(stream, events, reasons)
    if len(positions) < len(offsets):
        offsets = offsets[positions]
        ingested_us = None if ingested_us is None else ingested_us[positions]
    ingested = times_us if ingested_us is None else ingested_us
    batch = Batch(stream, events, positions, offsets, ingested, times_us, kinds)
    if len(events):
        check_times(stream, events, times_us, ingested_us, reasons)
        check_numbers(stream, batch.column, reasons)
        check_texts(stream, batch.labels, reasons)
    if reasons:
        keep = np.ones(len(events), bool)
        keep[list(reasons)] = False
        rejects.extend(
            Reject(int(positions[i]), "validate", reason) for i, reason in reasons.items()
        )
        rejects.sort(key=lambda reject: reject.position)
        batch = batch.take(keep)
    batch.rejects = rejects
    return batch


def _times(stream: Stream, events: list[Event], reasons: dict[int, str]) -> Ints:
    moments: list[datetime] = list(map(attrgetter(stream.time), events))
    try:
        since = list(map(sub, moments, repeat(EPOCH)))
    except TypeError:  # from one that has no time zone
        for i, moment in enumerate(moments):
            if moment.tzinfo is None:
                reasons[i] = f"{stream.time} has no time zone; end it with Z or an offset"
                moments[i] = EPOCH
        since = list(map(sub, moments, repeat(EPOCH)))
    if len(since) <= FEW:
        return np.array([moment // _US for moment in since], np.int64)
    days, seconds, fractions = (
        np.fromiter(map(attrgetter(part), since), np.int64, len(since))
        for part in ("days", "seconds", "microseconds")
    )
    return (days * _DAY_S + seconds) * 1_000_000 + fractions
