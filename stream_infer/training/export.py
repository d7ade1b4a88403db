"""ONNX graphs of fitted models, with everything between raw features and the score inside.

The graphs take `features` float32[n, F], NaN where missing, and give `score` float32[n, 1]. They
are written node by node: the converters of scikit-learn models do not cover gradient boosting by
histograms, and here every rounding is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper

from stream_infer.models.validation import FEATURES_KEY

INPUT, OUTPUT = "features", "score"
_OPSET, _ML_OPSET, _IR_VERSION = 20, 3, 10

TREE_NODE = np.dtype(
    [
        ("is_leaf", "u1"),
        ("value", "f8"),
        ("feature_idx", "i8"),
        ("num_threshold", "f8"),
        ("missing_go_to_left", "u1"),
        ("left", "i8"),
        ("right", "i8"),
    ]
)
"""What `export_trees` reads of a node; scikit-learn's own have further fields."""

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The column that a score is added to: its position, and what stands for it where missing."""

    column: int
    missing: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """`clip((x - mean) * inverse, -limit, limit)`, 0 where missing; float32[F] each."""

    mean: F32
    inverse: F32
    limit: float

    def apply(self, x: F32) -> F32:
        """Scale float32[n, F]; the same float32 steps as in the graph."""
        scaled = (x - self.mean) * self.inverse
        filled: F32 = np.where(np.isnan(scaled), np.float32(0), scaled)
        return filled.clip(np.float32(-self.limit), np.float32(self.limit))


class _Graph:
    """Nodes and constants of a graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: npt.NDArray[Any] | np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def scale(self, scaling: Scaling) -> str:
        centred = self.add("Sub", INPUT, self.constant(scaling.mean))
        scaled = self.add("Mul", centred, self.constant(scaling.inverse))
        missing = self.add("IsNaN", scaled)
        filled = self.add("Where", missing, self.constant(np.float32(0)), scaled)
        limits = [self.constant(np.float32(sign * scaling.limit)) for sign in (-1, 1)]
        return self.add("Clip", filled, *limits)

    def finish(self, score: str, baseline: Baseline | None, features: Sequence[str]) -> bytes:
        if baseline is None:
            self.add("Identity", score, output=OUTPUT)
        else:
            index = self.constant(np.array([baseline.column], np.int64))
            column = self.add("Gather", INPUT, index, axis=1)
            missing = self.add("IsNaN", column)
            instead = self.constant(np.float32(baseline.missing))
            base = self.add("Where", missing, instead, column)
            self.add("Add", base, score, output=OUTPUT)
        float32 = TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "stream_infer",
            [helper.make_tensor_value_info(INPUT, float32, ["n", len(features)])],
            [helper.make_tensor_value_info(OUTPUT, float32, ["n", 1])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="stream-infer"
        )
        helper.set_model_props(model, {FEATURES_KEY: msgspec.json.encode(list(features)).decode()})
        checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content


def export_network(
    scaling: Scaling,
    weights: Sequence[F64],
    biases: Sequence[F64],
    baseline: Baseline | None,
    features: Sequence[str],
) -> bytes:
    """Return the graph of dense layers (float64[in, out] and [out]) with ReLU between them."""
    graph = _Graph()
    value = graph.scale(scaling)
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if number:
            value = graph.add("Relu", value)
        constants = [graph.constant(array.astype(np.float32)) for array in (weight, bias)]
        value = graph.add("Gemm", value, *constants)
    return graph.finish(value, baseline, features)


def export_trees(
    trees: Sequence[npt.NDArray[Any]],
    constant: float,
    baseline: Baseline | None,
    features: Sequence[str],
) -> bytes:
    """Return the graph of a sum of regression trees plus a constant.

    Each tree is a structured array of nodes as scikit-learn keeps them (`TREE_NODE`), root first.
    """
    sizes = [len(tree) for tree in trees]
    node = np.concatenate(list(trees))
    leaf = node["is_leaf"].astype(bool)
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    graph = _Graph()
    score = graph.add(
        "TreeEnsembleRegressor",
        INPUT,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        base_values=[float(constant)],
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_featureids=np.where(leaf, 0, node["feature_idx"]).tolist(),
        nodes_values=np.where(leaf, 0, round_down(node["num_threshold"])).tolist(),
        nodes_truenodeids=np.where(leaf, 0, node["left"]).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, node["right"]).tolist(),
        nodes_missing_value_tracks_true=np.where(leaf, 0, node["missing_go_to_left"]).tolist(),
        target_treeids=tree_ids[leaf].tolist(),
        target_nodeids=node_ids[leaf].tolist(),
        target_ids=[0] * int(leaf.sum()),
        target_weights=node["value"][leaf].tolist(),
    )
    return graph.finish(score, baseline, features)


def round_down(thresholds: F64) -> F32:
    """Return the largest float32 not above each threshold.

    For a float32 input x, `x <= threshold` and `x <= round_down(threshold)` are the same question;
    rounding to the nearest would send inputs between the two down the other branch.
    """
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
        above = rounded.astype(np.float64) > thresholds
        return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)
