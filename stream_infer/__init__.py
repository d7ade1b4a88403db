"""Streaming online prediction: declare features and ensemble once; stream, HTTP, training agree."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_infer.core.combiners import weighted_mean
    from stream_infer.core.events import Event
    from stream_infer.core.features import (
        count,
        distinct,
        ewm_mean,
        last,
        maximum,
        mean,
        minimum,
        ratio,
        since_last,
        std,
        total,
    )
    from stream_infer.core.inputs import feast_service, fields
    from stream_infer.core.stream import Stream
    from stream_infer.core.topology import Label, Topology
    from stream_infer.stream.service import faust_app

# Imported when first asked for: the command line's help comes without NumPy that way.
_HOMES = {
    "weighted_mean": "core.combiners",
    "Event": "core.events",
    "faust_app": "stream.service",
    "feast_service": "core.inputs",
    "fields": "core.inputs",
    "Stream": "core.stream",
    "Label": "core.topology",
    "Topology": "core.topology",
}

__all__ = [
    "Event",
    "Label",
    "Stream",
    "Topology",
    "count",
    "distinct",
    "ewm_mean",
    "faust_app",
    "feast_service",
    "fields",
    "last",
    "maximum",
    "mean",
    "minimum",
    "ratio",
    "since_last",
    "std",
    "total",
    "weighted_mean",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"stream_infer.{_HOMES.get(name, 'core.features')}"), name)
    globals()[name] = value
    return value
