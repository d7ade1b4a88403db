"""The streams of a topology as one log: what is checked of them, and how their events are decoded.

A topology of one stream has a log like any other; the logs of several streams are merged, partition
by partition, and their records are then decoded, each by the rules of its own stream.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Ints
from stream_infer.core.columns import Batch, decode, decoder
from stream_infer.core.errors import DeclarationError
from stream_infer.core.events import Event, FieldInfo, tag_of
from stream_infer.core.stream import Stream, View

NUMBERS = ("number", "flag")


@dataclass(frozen=True)
class Sources:
    """Streams in the order in which they were declared, and their event types in one row.

    An event type's index here is its stream's `first_kind` plus its index in the stream.
    """

    streams: tuple[Stream, ...]

    @cached_property
    def event_types(self) -> tuple[type[Event], ...]:
        """The event types of all streams."""
        return tuple(kind for stream in self.streams for kind in stream.event_types)

    @cached_property
    def first_kinds(self) -> tuple[int, ...]:
        """For each stream, the index of its first event type."""
        counts = [len(stream.event_types) for stream in self.streams]
        return tuple(accumulate(counts, initial=0))[:-1]

    @cached_property
    def fields(self) -> Mapping[type[Event], dict[str, FieldInfo]]:
        """Fields by name, of each event type of all streams."""
        return {kind: infos for stream in self.streams for kind, infos in stream.fields.items()}

    @cached_property
    def shared_fields(self) -> frozenset[str]:
        """Names of fields that all event types of all streams have."""
        return frozenset.intersection(*map(frozenset, self.fields.values()))

    def index(self, name: str) -> int:
        """Return which of the streams has this name; raises KeyError where none has."""
        return self._index[name]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {stream.name: number for number, stream in enumerate(self.streams)}

    @cached_property
    def _decoders(self) -> tuple[Callable[[bytes], Event], ...]:
        return tuple(map(decoder, self.streams))

    def decode(
        self,
        values: Sequence[bytes | None],
        offsets: Ints,
        ingested_us: Ints | None,
        sources: npt.NDArray[np.int8] | None,
    ) -> Batch:
        """Decode consumed values; `sources` int8[n] says of which stream each is (None: the first).

        See `core.columns.decode`. A batch of a single stream has no `sources`.
        """
        if len(self.streams) == 1:
            return decode(self.streams[0], self._decoders[0], values, offsets, ingested_us)
        if sources is None:
            sources = np.zeros(len(values), np.int8)
        parts: list[Batch] = []
        for number, stream in enumerate(self.streams):
            at = np.flatnonzero(sources == number)
            chosen = [values[i] for i in at.tolist()]
            ingested = None if ingested_us is None else ingested_us[at]
            part = decode(stream, self._decoders[number], chosen, offsets[at], ingested)
            part.rejects = [
                replace(reject, position=int(at[reject.position])) for reject in part.rejects
            ]
            part.positions = at[part.positions].astype(np.int32)
            part.kinds = part.kinds + np.int8(self.first_kinds[number])
            parts.append(part)
        return self._together(parts)

    def _together(self, parts: Sequence[Batch]) -> Batch:
        """Return the batches of the streams as one, in the order of the merged log."""
        positions = np.concatenate([part.positions for part in parts])
        order = np.argsort(positions)
        events = [event for part in parts for event in part.events]
        counts = [len(part) for part in parts]
        return Batch(
            self,
            [events[i] for i in order.tolist()],
            positions[order],
            np.concatenate([part.offsets for part in parts])[order],
            np.concatenate([part.ingested_us for part in parts])[order],
            np.concatenate([part.times_us for part in parts])[order],
            np.concatenate([part.kinds for part in parts])[order],
            sorted((r for part in parts for r in part.rejects), key=lambda r: r.position),
            np.repeat(np.arange(len(parts), dtype=np.int8), counts)[order],
        )


def check_sources(culprit: str, sources: Sources, on: type[Event], views: Sequence[View]) -> None:
    """Raise DeclarationError for streams that cannot be one log, or not be looked up by `on`."""
    streams = sources.streams
    for what, names in (
        ("streams", [stream.name for stream in streams]),
        ("event types", [kind.__name__ for kind in sources.event_types]),
    ):
        for name in names:
            if names.count(name) > 1:
                raise DeclarationError(culprit, f"two of its {what} are named {name!r}")
    _check_tags(culprit, streams)
    _check_kinds(culprit, sources)
    for view in views:
        if on not in view.stream.event_types:
            _check_lookup(culprit, view, on, sources.fields[on])


def _check_tags(culprit: str, streams: Sequence[Stream]) -> None:
    seen: dict[str, str] = {}
    for stream in streams:
        for kind in stream.event_types:
            other = seen.setdefault(tag_of(kind), f"{kind.__name__} of stream {stream.name!r}")
            if other != f"{kind.__name__} of stream {stream.name!r}":
                raise DeclarationError(
                    culprit,
                    f"{kind.__name__} of stream {stream.name!r} has the tag {tag_of(kind)!r}, and "
                    f"so has {other}: give one of them another tag",
                )


def _check_kinds(culprit: str, sources: Sources) -> None:
    """Raise for a field that is a number in one stream and something else in another."""
    seen: dict[str, tuple[bool, str]] = {}
    for kind, infos in sources.fields.items():
        for info in infos.values():
            here = info.kind in NUMBERS, f"{kind.__name__}.{info.name} is {info.kind}"
            there = seen.setdefault(info.name, here)
            if there[0] != here[0]:
                raise DeclarationError(
                    culprit, f"{there[1]}, but {here[1]}: rename one, a column has one type"
                )


def _check_lookup(
    culprit: str, view: View, on: type[Event], known: Mapping[str, FieldInfo]
) -> None:
    """Raise where the scored event cannot be looked up in a view of another stream."""
    for name in view.by:
        if name not in known:
            raise DeclarationError(
                culprit,
                f"view {view.name!r} of stream {view.stream.name!r} is looked up by {name!r}, "
                f"no field of {on.__name__}; add it to {on.__name__}",
                name=name,
                choices=known,
            )
        for kind, infos in view.stream.fields.items():
            theirs = infos.get(name)
            ours = known[name]
            if theirs is not None and (theirs.kind, theirs.whole) != (ours.kind, ours.whole):
                raise DeclarationError(
                    culprit,
                    f"view {view.name!r} is looked up by {name!r}, but {on.__name__}.{name} is "
                    f"{_kind(ours)} and {kind.__name__}.{name} is {_kind(theirs)}",
                )


def _kind(info: FieldInfo) -> str:
    return "a whole number" if info.whole else info.kind
