"""Streaming online prediction: declare features and ensemble once; stream, HTTP and training agree."""

from typing import Any

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


def faust_app(topology: Topology) -> Any:
    """Return the topology's Faust app, with settings of the environment (`faust -A … worker`)."""
    # Late: only workers need Faust.
    from stream_infer.stream.service import faust_app as build

    return build(topology)


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
