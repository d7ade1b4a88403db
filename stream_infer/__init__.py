"""Streaming online prediction: declare features and ensemble once; stream, HTTP and training agree."""

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

__all__ = [
    "Event",
    "Label",
    "Stream",
    "Topology",
    "count",
    "distinct",
    "ewm_mean",
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
