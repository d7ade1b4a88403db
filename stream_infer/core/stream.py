"""A stream of typed events, and the feature views declared over it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from stream_infer.core.aggregates_sums import PARTS_OF
from stream_infer.core.arrays import Floats
from stream_infer.core.durations import microseconds
from stream_infer.core.errors import DeclarationError, did_you_mean
from stream_infer.core.events import Event, FieldInfo, fields_of, union_members
from stream_infer.core.features import Feature
from stream_infer.core.windows import RESOLUTION_DEFAULT, ViewPlan, plan_view

MAX_BYTES_DEFAULT = 65_536
SCALED_MAX = float(1 << 40)
MODEL_MAX = float(np.finfo(np.float32).max)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def check_topic(culprit: str, name: str) -> None:
    """Raise DeclarationError for a name that Kafka gives to no topic."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise DeclarationError(
            culprit, f"{name!r} is no name of a topic: up to 249 ASCII letters, digits, . _ and -"
        )


class Checks(NamedTuple):
    """What is checked of the events of a stream: numbers, each below its limit, and texts.

    `limits` float64[numbers, 1]; `texts` are the fields that are keys or part of one.
    """

    numbers: tuple[str, ...]
    limits: Floats
    texts: tuple[str, ...]


class Stream:
    """Events of one topic, in the order of its partitions' logs.

    `event_types` is an Event class or a union of them; `key` names the field that is the topic's
    partition key, `time` the field with the event time (a datetime with a time zone). Events more
    than `lateness` behind the newest event time of their partition are dropped and counted. With
    `event_id`, an event whose type and id were seen within `duplicates_within` is a duplicate.
    `max_ahead` bounds an event time against its record's broker timestamp; `max_bytes` bounds a
    record's value. `resolution` gives, by field, the step at which values are summed.

    Raises DeclarationError, naming the field, for anything that does not fit the event types.
    """

    def __init__(
        self,
        name: str,
        event_types: Any,
        *,
        key: str,
        time: str,
        lateness: str = "10m",
        event_id: str | None = None,
        duplicates_within: str = "1h",
        max_ahead: str = "1h",
        max_bytes: int = MAX_BYTES_DEFAULT,
        resolution: Mapping[str, float] | None = None,
    ) -> None:
        self.name = name
        self.event_types: tuple[type[Event], ...] = union_members(event_types)
        self.declared = event_types
        self.key = key
        self.time = time
        self.lateness_us = microseconds(lateness, f"stream {name!r}, lateness")
        self.event_id = event_id
        self.duplicates_within_us = microseconds(
            duplicates_within, f"stream {name!r}, duplicates_within"
        )
        self.max_ahead_us = microseconds(max_ahead, f"stream {name!r}, max_ahead")
        self.max_bytes = max_bytes
        self.resolution: Mapping[str, float] = MappingProxyType(dict(resolution or {}))
        self.key_fields = {key} | ({event_id} if event_id else set())
        self.summed_fields: set[str] = set()
        self._checks: tuple[tuple[int, int], Checks] | None = None
        self._check()

    def _check(self) -> None:
        culprit = f"stream {self.name!r}"
        check_topic(culprit, self.name)
        self._require(culprit, self.key, ("text", "number"), "a partition key is text or a number")
        self._require(culprit, self.time, ("time",), "an event time is a datetime")
        if self.event_id is not None:
            self._require(culprit, self.event_id, ("text", "number"), "an id is text or a number")
        self._check_kinds(culprit)
        for name, step in self.resolution.items():
            if name not in self.numeric_fields:
                raise DeclarationError(
                    culprit,
                    f"resolution of {name!r}, which is no numeric field",
                    name=name,
                    choices=self.numeric_fields,
                )
            if not 0 < step < math.inf:
                raise DeclarationError(culprit, f"resolution of {name!r} must be above 0, finite")
        if self.max_bytes <= 0:
            raise DeclarationError(culprit, "max_bytes must be above 0")

    def _check_kinds(self, culprit: str) -> None:
        """Raise for a field that is a number or flag in one type and neither in another."""
        numbers: dict[str, str] = {}
        others: dict[str, str] = {}
        for event_type, infos in self.fields.items():
            for info in infos.values():
                kinds = numbers if info.kind in ("number", "flag") else others
                kinds.setdefault(info.name, f"{event_type.__name__}.{info.name} is {info.kind}")
        for name in sorted(numbers.keys() & others.keys()):
            raise DeclarationError(
                culprit, f"{numbers[name]}, but {others[name]}: rename one, a column has one type"
            )

    def _require(self, culprit: str, name: str, kinds: tuple[str, ...], rule: str) -> None:
        for event_type in self.event_types:
            info = self.fields[event_type].get(name)
            if info is None:
                hint = did_you_mean(name, self.fields[event_type])
                raise DeclarationError(culprit, f"{event_type.__name__} has no {name!r}{hint}")
            if info.kind not in kinds or info.optional:
                raise DeclarationError(culprit, f"{event_type.__name__}.{name}: {rule}, never null")

    @cached_property
    def fields(self) -> Mapping[type[Event], dict[str, FieldInfo]]:
        """Fields by name, of each event type."""
        return {event_type: fields_of(event_type) for event_type in self.event_types}

    @cached_property
    def numeric_fields(self) -> frozenset[str]:
        """Names of fields that are a number in at least one event type."""
        return frozenset(
            info.name
            for infos in self.fields.values()
            for info in infos.values()
            if info.kind == "number"
        )

    @property
    def checks(self) -> "Checks":
        """What is checked of each event, as of the views that are declared by now."""
        size = len(self.summed_fields), len(self.key_fields)  # These only grow.
        if self._checks is None or self._checks[0] != size:
            self._checks = size, _checks(self)
        return self._checks[1]

    @cached_property
    def shared_fields(self) -> frozenset[str]:
        """Names of fields that all event types have."""
        return frozenset.intersection(*map(frozenset, self.fields.values()))

    @cached_property
    def field_names(self) -> frozenset[str]:
        """Names of all fields of all event types."""
        return frozenset(name for infos in self.fields.values() for name in infos)

    def view(
        self,
        name: str,
        *,
        by: Sequence[str],
        features: Mapping[str, Feature],
        rekey: bool = False,
    ) -> "View":
        """Declare features of one entity: the events that share the fields `by`.

        `by` must contain the stream's partition key, so that one worker sees all events of an
        entity in the order of the log. Where it does not, `rekey` sends the events on through a
        topic keyed by the entity; such features are eventually consistent (docs/how-to/rekey.md).
        """
        view = View(name, self, tuple(by), MappingProxyType(dict(features)), rekey)
        self.key_fields.update(by)
        self.summed_fields.update(
            feature.field
            for feature in features.values()
            if feature.kind in PARTS_OF and feature.field is not None
        )
        return view


def _checks(stream: Stream) -> Checks:
    names = tuple(sorted(stream.numeric_fields))
    limits = [
        SCALED_MAX * stream.resolution.get(name, RESOLUTION_DEFAULT)
        if name in stream.summed_fields
        else MODEL_MAX
        for name in names
    ]
    return Checks(names, np.array(limits).reshape(-1, 1), tuple(sorted(stream.key_fields)))


@dataclass(frozen=True)
class View:
    """Streaming features of one entity."""

    name: str
    stream: Stream
    by: tuple[str, ...]
    features: Mapping[str, Feature] = field(repr=False)
    rekey: bool = False

    def __post_init__(self) -> None:
        culprit = f"view {self.name!r}"
        if not self.name.isidentifier():
            raise DeclarationError(culprit, "a view's name must be a Python identifier")
        for name in self.by:
            if name not in self.stream.field_names:
                raise DeclarationError(
                    culprit, f"no field {name!r}", name=name, choices=self.stream.field_names
                )
        if self.rekey and self.stream.key in self.by:
            raise DeclarationError(
                culprit,
                f"by={list(self.by)} has {self.stream.key!r}, the partition key of stream "
                f"{self.stream.name!r}: leave out rekey=True, the view is exact without it",
            )
        if not self.by:
            raise DeclarationError(culprit, "by=[] names no field")
        if self.stream.key not in self.by and not self.rekey:
            raise DeclarationError(
                culprit,
                f"by={list(self.by)} lacks {self.stream.key!r}, the partition key of stream "
                f"{self.stream.name!r}: its events lie in several partitions. Add the key to `by`, "
                "or declare rekey=True: events are sent on by this key, and the features are "
                "eventually consistent",
            )
        if not self.features:
            raise DeclarationError(culprit, "has no features")
        _ = self.plan

    @cached_property
    def plan(self) -> ViewPlan:
        """How the features are stored and computed."""
        return plan_view(
            self.name,
            self.features,
            self.stream.event_types,
            self.stream.lateness_us,
            self.stream.resolution,
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names in a model's vector: `view__feature`."""
        return tuple(f"{self.name}__{name}" for name in self.features)
