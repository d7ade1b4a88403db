"""Typed events: what a user declares, and what the declaration says about each field."""

import types
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from stream_infer.core.errors import DeclarationError

FieldKind = Literal["number", "text", "flag", "time", "other"]
_KINDS: dict[type, FieldKind] = {
    bool: "flag",
    int: "number",
    float: "number",
    str: "text",
    datetime: "time",
}


# Out of a type checker's sight, which would ask each subclass to repeat it.
_FROZEN: dict[str, Any] = {"frozen": True}


class Event(msgspec.Struct, gc=False, tag_field="type", **_FROZEN):
    """Base of all event types: `class Departure(Event, tag="departure"): ...`.

    Fields are typed; `X | None = None` is optional and stands last; fields unknown to the type are
    ignored.
    """


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of one event type: its kind, whether it may be null, whether it is an integer."""

    name: str
    kind: FieldKind
    optional: bool
    whole: bool


def fields_of(event_type: type[Event]) -> dict[str, FieldInfo]:
    """Return the fields of an event type by name, in declaration order."""
    return {
        field.name: _field_info(field.name, field.type)
        for field in msgspec.structs.fields(event_type)
    }


def _field_info(name: str, annotation: Any) -> FieldInfo:
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        optional = len(members) < len(get_args(annotation))
        annotation = members[0] if len(members) == 1 else object
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return FieldInfo(name, _KINDS.get(annotation, "other"), optional, annotation is int)


def tag_of(event_type: type[Event]) -> str:
    """Return the text by which records name this event type."""
    tag = event_type.__struct_config__.tag
    return str(tag) if tag is not None else event_type.__name__


def union_members(declared: Any) -> tuple[type[Event], ...]:
    """Return the event types of `A | B`, or of a single type.

    Raises DeclarationError for anything that is not an Event, and for several types without tags.
    """
    is_union = get_origin(declared) in (Union, types.UnionType)
    members = get_args(declared) if is_union else (declared,)
    for member in members:
        if not (isinstance(member, type) and issubclass(member, Event)):
            raise DeclarationError(repr(member), "is not an Event; declare `class X(Event, tag=…)`")
    tags = [member.__struct_config__.tag for member in members]
    if len(members) > 1 and (None in tags or len(set(tags)) < len(tags)):
        raise DeclarationError(
            " | ".join(member.__name__ for member in members),
            "several event types in one stream each need a tag of their own",
        )
    return tuple(members)
