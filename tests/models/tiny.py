"""Small ONNX models for the tests."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from stream_infer.models.manifest import Manifest
from stream_infer.models.repository import ModelArtifact, ModelRepository

NAMES = ("delay", "distance", "hour")
CREATED = datetime(2013, 10, 1, tzinfo=UTC)

Proto = Any


def linear(
    weights: Sequence[float] = (1.0, 2.0, 3.0),
    *,
    metadata: Sequence[str] | None = NAMES,
    rows: int | str = "n",
    kind: int = TensorProto.FLOAT,
    output_shape: Sequence[int | str] = ("n", 1),
) -> Proto:
    """Return `score = features @ weights` as a ModelProto."""
    weight = np.array(weights, helper.tensor_dtype_to_np_dtype(kind)).reshape(-1, 1)
    nodes = [helper.make_node("MatMul", ["features", "w"], ["score"])]
    if len(output_shape) == 1:
        nodes = [
            helper.make_node("MatMul", ["features", "w"], ["column"]),
            helper.make_node("Squeeze", ["column", "axis"], ["score"]),
        ]
    constants = [numpy_helper.from_array(weight, "w")]
    if len(output_shape) == 1:
        constants.append(numpy_helper.from_array(np.array([1]), "axis"))
    return model(nodes, constants, len(weights), metadata, rows, kind, output_shape)


def model(
    nodes: list[Any],
    constants: list[Any],
    width: int = len(NAMES),
    metadata: Sequence[str] | None = NAMES,
    rows: int | str = "n",
    kind: int = TensorProto.FLOAT,
    output_shape: Sequence[int | str] = ("n", 1),
) -> Proto:
    """Return a ModelProto from `features` [rows, width] to `score`."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("features", kind, [rows, width])],
        [helper.make_tensor_value_info("score", kind, list(output_shape))],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if metadata is not None:
        helper.set_model_props(proto, {"stream_infer.features": json.dumps(list(metadata))})
    return proto


def described(
    model: str = "tiny", version: int = 1, sha256: str = "", features: Sequence[str] = NAMES
) -> Manifest:
    """Return a manifest."""
    return Manifest(
        model=model,
        version=version,
        sha256=sha256,
        features=tuple(features),
        input="features",
        output="score",
        created_at=CREATED,
    )


def artifact(proto: Proto, features: Sequence[str] = NAMES, name: str = "tiny") -> ModelArtifact:
    """Return a model as if it came from a repository."""
    manifest = described(model=name, version=3, features=features)
    return ModelArtifact(manifest, proto.SerializeToString(), Path("model.onnx"))


def save(
    repository: ModelRepository,
    proto: Proto,
    model: str = "tiny",
    topology: str = "flights",
    features: Sequence[str] = NAMES,
) -> ModelArtifact:
    """Store a model."""
    return repository.save(
        topology,
        model,
        proto.SerializeToString(),
        lambda version, sha256: described(model, version, sha256, features),
    )
