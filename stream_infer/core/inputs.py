"""What a topology's vector is made of: the event's own fields, streaming views, batch features."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_infer.core.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class FieldsInput:
    """Numeric fields of the event that is scored."""

    names: tuple[str, ...]


def fields(*names: str) -> FieldsInput:
    """Take numeric fields of the scored event as inputs, in this order."""
    if not names:
        raise DeclarationError("fields()", "names no field")
    return FieldsInput(names)


@dataclass(frozen=True, slots=True)
class FeastInput:
    """Batch features of one Feast feature service; `repo` is the Feast repository's folder."""

    service: str
    repo: str


def feast_service(service: str, repo: str = "features") -> FeastInput:
    """Take all features of a Feast feature service as inputs, in the service's order."""
    return FeastInput(service, repo)


@dataclass(frozen=True)
class BatchLayout:
    """The columns of a feature service as the core sees them.

    `feature_names` are vector names (`view__feature`); `views` the views' names in the service;
    `view_of_feature` int64[F] and `ttl_us` int64[V] (0: never stale) say when a value is stale;
    `join_fields` are, per view, the event fields that its entity is read from, and `join_types`,
    where known, what these must be: "text" or "whole".
    """

    feature_names: tuple[str, ...]
    views: tuple[str, ...]
    view_of_feature: npt.NDArray[np.int64]
    ttl_us: npt.NDArray[np.int64]
    join_fields: tuple[tuple[str, ...], ...]
    join_types: tuple[tuple[str, ...], ...] = ()
