"""What travels in a topology's topics, as an AsyncAPI 3.0 document and as JSON Schemas.

`python -m stream_infer.serving.asyncapi TOPOLOGY FOLDER` writes both into a folder.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from stream_infer.core.events import tag_of
from stream_infer.core.results import Outcome, Prediction
from stream_infer.core.topology import Topology
from stream_infer.loading import load_topology
from stream_infer.serving.examples import example_event, example_outcome, example_prediction
from stream_infer.stream import dead_letters

REF = "#/components/schemas/{name}"
_HEADER_TEXTS = {
    dead_letters.REASON: "why the record could not be processed",
    dead_letters.STAGE: "where it failed: decode, validate, publish, …",
    dead_letters.TOPIC: "the topic it was consumed from",
    dead_letters.PARTITION: "the partition it was consumed from, a decimal number",
    dead_letters.OFFSET: "its offset there, a decimal number",
    dead_letters.TIMESTAMP: "its broker timestamp, milliseconds since the epoch",
    dead_letters.TOPOLOGY: "the topology that refused it",
}


def dead_letter_headers() -> dict[str, Any]:
    """Return the JSON Schema of a dead letter's headers, which are UTF-8 text."""
    return {
        "title": "DeadLetterHeaders",
        "type": "object",
        "properties": {
            name: {"type": "string", "description": _HEADER_TEXTS[name]}
            for name in dead_letters.HEADERS
        },
        "required": [dead_letters.REASON, dead_letters.STAGE, dead_letters.TOPOLOGY],
    }


def schemas(topology: Topology) -> dict[str, Any]:
    """Return the JSON Schemas of events, results and dead-letter headers, by name."""
    types = [*topology.event_types, Prediction, Outcome]
    _, components = msgspec.json.schema_components(types, ref_template=REF)
    return {**components, "DeadLetterHeaders": dead_letter_headers()}


def document(topology: Topology) -> dict[str, Any]:
    """Return the AsyncAPI document of a topology: the topics it reads and writes."""
    sources = {
        "events" if stream is topology.stream else f"events.{stream.name}": _channel(
            stream.name,
            f"Events, keyed by `{stream.key}`; event time is `{stream.time}`.",
            [event_type.__name__ for event_type in stream.event_types],
        )
        for stream in topology.streams
    }
    channels = {
        **sources,
        "predictions": _channel(
            topology.output, f"Predictions, keyed by `{topology.key}`.", ["Prediction"]
        ),
        "deadLetters": _channel(
            topology.dead_letters,
            "Records that could not be processed: the original bytes, and why in the headers.",
            ["DeadLetter"],
        ),
    }
    if topology.label is not None:
        channels["outcomes"] = _channel(
            topology.outcomes, "Predictions joined with what turned out.", ["Outcome"]
        )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": topology.name,
            "version": "1",
            "description": f"Topology {topology.name}: scores every {tag_of(topology.on)!r} event.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            **{f"read{name[0].upper()}{name[1:]}": _operation("receive", name) for name in sources},
            **{
                f"write{name[0].upper()}{name[1:]}": _operation("send", name)
                for name in channels
                if name not in sources
            },
        },
        "components": {"messages": _messages(topology), "schemas": schemas(topology)},
    }


def write_reference(topology: Topology, folder: Path) -> list[Path]:
    """Write the AsyncAPI document and the JSON Schemas into a folder; return the files."""
    name = topology.name
    bundle = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Messages of topology {name}",
        "components": {"schemas": schemas(topology)},
    }
    contents = {f"{name}.asyncapi.json": document(topology), f"{name}.schemas.json": bundle}
    folder.mkdir(parents=True, exist_ok=True)
    for filename, content in contents.items():
        text = msgspec.json.format(msgspec.json.encode(content), indent=2)
        (folder / filename).write_bytes(text + b"\n")
    return [folder / filename for filename in contents]


def _channel(address: str, description: str, messages: list[str]) -> dict[str, Any]:
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _messages(topology: Topology) -> dict[str, Any]:
    messages: dict[str, Any] = {
        event_type.__name__: {
            "name": tag_of(event_type),
            "summary": (event_type.__doc__ or "").strip().partition("\n")[0],
            "payload": {"$ref": REF.format(name=event_type.__name__)},
            "examples": [{"payload": example_event(event_type)}],
        }
        for event_type in topology.event_types
    }
    messages["Prediction"] = _result("prediction", "Prediction", example_prediction(topology))
    messages["DeadLetter"] = {
        "name": "dead letter",
        "contentType": "application/octet-stream",
        "headers": {"$ref": REF.format(name="DeadLetterHeaders")},
        "payload": {"description": "the record's value as it was, whatever that is"},
    }
    if topology.label is not None:
        messages["Outcome"] = _result("outcome", "Outcome", example_outcome(topology))
    return messages


def _result(name: str, schema: str, example: Prediction | Outcome) -> dict[str, Any]:
    return {
        "name": name,
        "payload": {"$ref": REF.format(name=schema)},
        "examples": [{"payload": msgspec.to_builtins(example)}],
    }


if __name__ == "__main__":
    write_reference(load_topology(sys.argv[1]), Path(sys.argv[2]))
