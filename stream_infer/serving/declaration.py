"""What is served, in words: a topology's declaration with the models it runs on."""

from typing import Any

from stream_infer.core.events import tag_of
from stream_infer.core.inputs import FieldsInput
from stream_infer.core.stream import View
from stream_infer.core.topology import Input, Topology
from stream_infer.stream.runtime import Runtime


def declaration(runtime: Runtime) -> dict[str, Any]:
    """Return a topology's declaration as JSON types."""
    topology, combiner = runtime.topology, runtime.combiner
    weights = dict(zip(combiner.models, combiner.weights or (), strict=True))
    label = topology.label
    return {
        "name": topology.name,
        "stream": topology.stream.name,
        "stream_key": topology.stream.key,
        "on": tag_of(topology.on),
        "event_types": [tag_of(event_type) for event_type in topology.event_types],
        "streams": [
            {
                "name": stream.name,
                "key": stream.key,
                "time": stream.time,
                "event_types": [tag_of(event_type) for event_type in stream.event_types],
            }
            for stream in topology.streams
        ],
        "key": topology.key,
        "topics": {
            "predictions": topology.output,
            "dead_letters": topology.dead_letters,
            "outcomes": topology.outcomes if label else None,
            "rekeyed": topology.rekeyed_events if topology.rekeyed else None,
        },
        "label": {"of": tag_of(label.of), "key": label.key, "value": label.value}
        if label
        else None,
        "inputs": [_input(topology, item) for item in topology.inputs],
        "vector": list(runtime.engine.vector_names),
        "models": [
            {"name": name, "version": runtime.versions[name], "weight": weights[name]}
            for name in combiner.models
        ],
    }


def _input(topology: Topology, item: Input) -> dict[str, Any]:
    if isinstance(item, FieldsInput):
        return {"source": "event", "event": tag_of(topology.on), "features": list(item.names)}
    if isinstance(item, View):
        features = [
            {
                "name": name,
                "kind": feature.kind.value,
                "field": feature.field,
                "window_s": feature.over_us / 1e6 or None,
            }
            for name, feature in item.features.items()
        ]
        return {
            "source": "view",
            "view": item.name,
            "by": list(item.by),
            "rekey": item.rekey,
            "features": features,
        }
    return {"source": "batch", "feature_service": item.service}
