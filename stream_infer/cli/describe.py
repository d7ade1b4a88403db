"""`schema` and `version`: what programs of others need to know."""

from typing import Annotated, Literal

import typer

from stream_infer.cli.options import Json, TopologyName, topology_of
from stream_infer.cli.output import emit_json

LIBRARIES = (
    "faust-streaming",
    "aiokafka",
    "redis",
    "onnxruntime",
    "numpy",
    "msgspec",
    "fastapi",
    "feast",
)


def schema(
    topology: TopologyName,
    form: Annotated[
        Literal["asyncapi", "jsonschema"],
        typer.Option("--as", help="All topics of a topology, or the schemas of what they carry."),
    ] = "asyncapi",
) -> None:
    """Print what a topology's events, predictions and outcomes look like, as one JSON object."""
    from stream_infer.serving import asyncapi

    declared = topology_of(topology)
    emit_json(asyncapi.document(declared) if form == "asyncapi" else asyncapi.schemas(declared))


def version(json: Json = False) -> None:
    """Print the version, and those of the libraries that matter."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed
    from platform import python_version

    versions = {"python": python_version()}
    for name in ("stream-infer", *LIBRARIES):
        try:
            versions[name] = installed(name)
        except PackageNotFoundError:
            continue
    if json:
        emit_json(versions)
        return
    print(f"stream-infer {versions.pop('stream-infer', '(not installed)')}")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
