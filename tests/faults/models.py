"""One model a feature: its score is that feature, so that predictions show what was computed."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from stream_infer.models.manifest import Manifest
from stream_infer.models.repository import ModelRepository
from tests.faults.shop import VECTOR


def save_models(
    root: Path,
    topology: str,
    features: tuple[str, ...] = VECTOR,
    shown: tuple[str, ...] = VECTOR,
) -> None:
    """Store the models of a topology whose vector is `features`: one for each of `shown`.

    These are the first features, in that order.
    """
    repository = ModelRepository(root)
    for column, name in enumerate(shown):
        graph = helper.make_graph(
            [helper.make_node("Gather", ["features", "column"], ["score"], axis=1)],
            "pick",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(features)])],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])],
            [numpy_helper.from_array(np.array([column], np.int64), "column")],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

        def manifest(version: int, sha256: str, name: str = name) -> Manifest:
            return Manifest(
                model=name,
                version=version,
                sha256=sha256,
                features=features,
                input="features",
                output="score",
                created_at=datetime(2024, 1, 1, tzinfo=UTC),
            )

        repository.save(topology, name, proto.SerializeToString(), manifest)
