"""A topology: which events are scored, on what inputs, by which ensemble, and where results go."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from stream_infer.core.combiners import WeightedMean
from stream_infer.core.durations import microseconds
from stream_infer.core.errors import DeclarationError
from stream_infer.core.events import Event, fields_of
from stream_infer.core.inputs import BatchLayout, FeastInput, FieldsInput
from stream_infer.core.sources import Sources, check_sources
from stream_infer.core.stream import Stream, View, check_topic


@dataclass(frozen=True)
class Label:
    """What turned out: field `value` of event type `of`, joined to the prediction with equal `key`.

    A label is joined when its event time is at most `within` from the prediction's, whichever of
    the two comes first; a second label of the same key is ignored.
    """

    of: type[Event]
    key: str
    value: str
    within: str = "2d"

    @cached_property
    def within_us(self) -> int:
        """The horizon in microseconds."""
        return microseconds(self.within, f"label of {self.of.__name__}")


Input = FieldsInput | View | FeastInput


class Topology:
    """Score each event of type `on` with an ensemble, and publish the results to topic `output`.

    `inputs` make the models' vector, in this order. `key` names the field by which a result is
    looked up (default: the label's key, else the stream's key); the latest result of each key
    stays readable for `keep_results`. `stream` is the one that has `on`; it must be given only
    where no input is a view of it.

    With views of several streams, the logs of their topics are merged by event time; of equal
    times, the stream that stands first among the inputs comes first (`stream`, if given, before
    all). Views of other streams are looked up by the scored event's own fields.

    Raises DeclarationError, naming the culprit, when a part does not fit another.
    """

    def __init__(
        self,
        *,
        name: str,
        on: type[Event],
        inputs: Sequence[Input],
        graph: WeightedMean,
        output: str,
        label: Label | None = None,
        key: str | None = None,
        keep_results: str = "1h",
        stream: Stream | None = None,
    ) -> None:
        self.name = name
        self.on = on
        self.inputs = tuple(inputs)
        self.graph = graph
        self.output = output
        self.label = label
        self.keep_results_us = microseconds(keep_results, f"topology {name!r}, keep_results")
        self.sources = Sources(self._streams_of(stream))
        self.stream = self._scored_stream()
        self.key = key or (label.key if label else self.stream.key)
        self._check()

    def __repr__(self) -> str:
        return f"Topology({self.name!r})"

    @property
    def dead_letters(self) -> str:
        """Topic of events that could not be processed."""
        return f"{self.name}.dead_letters"

    @property
    def outcomes(self) -> str:
        """Topic of predictions joined with their labels."""
        return f"{self.name}.outcomes"

    @property
    def rekeyed_events(self) -> str:
        """Topic of events sent on by the keys of rekeyed views; also the name of their state."""
        return f"{self.name}.rekeyed"

    @cached_property
    def streaming(self) -> tuple[View, ...]:
        """All streaming views among the inputs."""
        return tuple(item for item in self.inputs if isinstance(item, View))

    @cached_property
    def views(self) -> tuple[View, ...]:
        """Views that a partition's own state holds."""
        return tuple(view for view in self.streaming if not view.rekey)

    @cached_property
    def rekeyed(self) -> tuple[View, ...]:
        """Views by other keys, folded in a second stage."""
        return tuple(view for view in self.streaming if view.rekey)

    @cached_property
    def feast(self) -> FeastInput | None:
        """The feature service among the inputs."""
        return next((item for item in self.inputs if isinstance(item, FeastInput)), None)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All streams that it reads, in the order of declaration; `stream` is the scored one."""
        return self.sources.streams

    @property
    def event_types(self) -> tuple[type[Event], ...]:
        """The event types of all its streams."""
        return self.sources.event_types

    @cached_property
    def on_kind(self) -> int:
        """Index of the scored event type in `event_types`."""
        return self.event_types.index(self.on)

    def vector_names(self, layout: BatchLayout | None) -> tuple[str, ...]:
        """Return the names of the models' inputs in order, given the feature service's columns."""
        names: list[str] = []
        for item in self.inputs:
            if isinstance(item, FieldsInput):
                names.extend(item.names)
            elif isinstance(item, View):
                names.extend(item.feature_names)
            elif layout is not None:
                names.extend(layout.feature_names)
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise DeclarationError(self._culprit, f"two inputs are named {sorted(repeated)[0]!r}")
        return tuple(names)

    def check_layout(self, layout: BatchLayout) -> None:
        """Raise DeclarationError for a join by a field that is not there, or of another type."""
        known = fields_of(self.on)
        for view, names in zip(layout.views, layout.join_fields, strict=True):
            for name in names:
                if name not in known:
                    raise DeclarationError(
                        self._culprit,
                        f"batch view {view!r} is joined by {name!r}, no field of "
                        f"{self.on.__name__}",
                        name=name,
                        choices=known,
                    )
        for view, names, types in zip(
            layout.views, layout.join_fields, layout.join_types, strict=bool(layout.join_types)
        ):
            for name, wanted in zip(names, types, strict=True):
                info = known[name]
                kind = "whole" if info.whole else info.kind
                if kind not in (wanted, "other"):  # of other types, each event's value decides
                    raise DeclarationError(
                        self._culprit,
                        f"batch view {view!r} is joined by a {wanted} key, but "
                        f"{self.on.__name__}.{name} is {kind}",
                    )

    @property
    def _culprit(self) -> str:
        return f"topology {self.name!r}"

    def _streams_of(self, declared: Stream | None) -> tuple[Stream, ...]:
        streams = {id(declared): declared} if declared is not None else {}
        streams.update((id(view.stream), view.stream) for view in self.streaming)
        if not streams:
            raise DeclarationError(self._culprit, "has no view; say which stream=… it scores")
        return tuple(streams.values())

    def _scored_stream(self) -> Stream:
        having = [stream for stream in self.streams if self.on in stream.event_types]
        if not having:
            names = " or ".join(repr(stream.name) for stream in self.streams)
            remedy = "" if len(self.streams) == 1 else "; say which stream=… it scores"
            raise DeclarationError(
                self._culprit,
                f"{self.on.__name__} is not in stream {names}{remedy}",
                name=self.on.__name__,
                choices=[event_type.__name__ for event_type in self.event_types],
            )
        return having[0]

    def _check(self) -> None:
        if not self.name.isidentifier():
            raise DeclarationError(self._culprit, "a topology's name must be a Python identifier")
        if self.rekeyed and len(self.streams) > 1:
            raise DeclarationError(
                self._culprit,
                f"view {self.rekeyed[0].name!r} is declared with rekey=True: it may have one "
                "stream only",
            )
        if len(self.streams) > 1:
            check_sources(self._culprit, self.sources, self.on, self.views)
        known = fields_of(self.on)
        for item in self.inputs:
            if isinstance(item, FieldsInput):
                for name in item.names:
                    self._require_number(name)
        if self.key not in known:
            raise DeclarationError(
                self._culprit,
                f"{self.on.__name__} has no key {self.key!r}",
                name=self.key,
                choices=known,
            )
        if len([item for item in self.inputs if isinstance(item, FeastInput)]) > 1:
            raise DeclarationError(self._culprit, "one feature service at most; combine them")
        if len({view.name for view in self.streaming}) < len(self.streaming):
            raise DeclarationError(self._culprit, "two views have the same name")
        written = {self.output, self.dead_letters, self.outcomes}
        if self.rekeyed:
            if self.rekeyed_events in written:
                raise DeclarationError(
                    self._culprit,
                    f"output {self.output!r} is the topic that its rekeyed views read",
                )
            written.add(self.rekeyed_events)
        for topic in sorted(written):
            check_topic(self._culprit, topic)
        if written & {stream.name for stream in self.streams}:
            raise DeclarationError(self._culprit, "would write into the topic that it reads")
        if self.label is not None:
            self._check_label(self.label)
        self.vector_names(None)

    def _require_number(self, name: str) -> None:
        known = fields_of(self.on)
        if name not in known:
            raise DeclarationError(
                self._culprit, f"{self.on.__name__} has no field {name!r}", name=name, choices=known
            )
        if known[name].kind not in ("number", "flag"):
            raise DeclarationError(
                self._culprit, f"{self.on.__name__}.{name} is {known[name].kind}, not a number"
            )

    def _check_label(self, label: Label) -> None:
        having = [stream for stream in self.streams if label.of in stream.event_types]
        if not having:
            names = " or ".join(repr(stream.name) for stream in self.streams)
            raise DeclarationError(
                self._culprit, f"label {label.of.__name__} is not in stream {names}"
            )
        for event_type in (self.on, label.of):
            if label.key not in fields_of(event_type):
                raise DeclarationError(
                    self._culprit,
                    f"label key {label.key!r} is no field of {event_type.__name__}",
                    name=label.key,
                    choices=fields_of(event_type),
                )
        value = fields_of(label.of).get(label.value)
        if value is None or value.kind not in ("number", "flag"):
            raise DeclarationError(
                self._culprit,
                f"label value {label.value!r} is no numeric field of {label.of.__name__}",
                name=label.value,
                choices=fields_of(label.of),
            )
        for stream in {self.stream, having[0]}:
            stream.key_fields.add(label.key)
