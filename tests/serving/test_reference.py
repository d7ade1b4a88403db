"""The published reference is what the code says."""

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from stream_infer.loading import load_topology
from stream_infer.serving.asyncapi import schemas, write_reference
from stream_infer.serving.examples import example_event

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_the_reference_of_the_flight_topology_is_current(tmp_path: Path) -> None:
    for made in write_reference(load_topology("flight_delay"), tmp_path):
        kept = REFERENCE / made.name
        if not kept.exists() or kept.read_bytes() != made.read_bytes():
            pytest.fail(
                f"docs/reference/{made.name} is out of date: "
                "python -m stream_infer.serving.asyncapi flight_delay docs/reference"
            )


def test_examples_of_the_flight_events_are_acceptable_events() -> None:
    topology = load_topology("flight_delay")
    document = {"components": {"schemas": schemas(topology)}}
    for event_type in topology.stream.event_types:
        reference = {"$ref": f"#/components/schemas/{event_type.__name__}"}
        Draft202012Validator({**document, **reference}).validate(example_event(event_type))
