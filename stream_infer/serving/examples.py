"""An example of each event type and result, made from the declaration itself."""

from datetime import UTC, datetime
from typing import Any, get_args

import msgspec

from stream_infer.core.events import Event, FieldInfo, fields_of, tag_of
from stream_infer.core.results import Outcome, Prediction, record_id
from stream_infer.core.topology import Topology

MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def example_event(event_type: type[Event]) -> dict[str, Any]:
    """Return an acceptable event as JSON types; `Meta(examples=[…])` on a field is taken first."""
    example: dict[str, Any] = {}
    if event_type.__struct_config__.tag is not None:
        example["type"] = tag_of(event_type)
    infos = fields_of(event_type)
    for field in msgspec.structs.fields(event_type):
        declared = _declared_example(field.type)
        example[field.encode_name] = (
            declared if declared is not None else _value(field.type, infos[field.name])
        )
    return example


def example_prediction(topology: Topology, versions: dict[str, str] | None = None) -> Prediction:
    """Return a prediction of the form that the topology makes."""
    models = topology.graph.models
    return Prediction(
        prediction_id=record_id(topology.name, topology.stream.name, 0, 17),
        topology=topology.name,
        key=str(example_event(topology.on)[topology.key]),
        score=12.5,
        scores=dict.fromkeys(models, 12.5),
        models=versions or dict.fromkeys(models, "1"),
        event_time=MOMENT,
        predicted_at=MOMENT,
        latency_ms=6.2,
        feature_age_s=3600.0,
        degraded=(),
    )


def example_outcome(topology: Topology) -> Outcome:
    """Return an outcome of the form that the topology makes."""
    prediction = example_prediction(topology)
    return Outcome(
        outcome_id=record_id(topology.name, topology.stream.name, 0, 42),
        prediction_id=prediction.prediction_id,
        topology=topology.name,
        key=prediction.key,
        score=12.5,
        label=10.0,
        error=2.5,
        predicted_for=MOMENT,
        labelled_at=MOMENT,
    )


def _declared_example(annotation: Any) -> Any:
    for part in (annotation, *get_args(annotation)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta) and meta.examples:
                return meta.examples[0]
    return None


def _value(annotation: Any, info: FieldInfo) -> Any:
    integer = annotation is int or int in get_args(annotation)
    return {
        "number": 3 if integer else 12.5,
        "flag": True,
        "time": MOMENT.isoformat().replace("+00:00", "Z"),
        "text": f"{info.name}-1",
        "other": None,
    }[info.kind]
