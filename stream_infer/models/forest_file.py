"""The trees of an ONNX file that is a sum of regression trees and nothing else."""

from typing import Any

import numpy as np

from stream_infer.models.forest import Forest, Trees, plant
from stream_infer.models.wire import fields

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT, _VALUE_NAME = 1, 11, 12, 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_NAME, _INT, _BYTES, _FLOATS, _INTS, _STRINGS = 1, 3, 4, 7, 8, 9
_VALUES = (_INT, _BYTES, _FLOATS, _INTS, _STRINGS)
_KIND = 20
_COLUMNS = {
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_modes",
    "nodes_featureids",
    "nodes_values",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "target_treeids",
    "target_nodeids",
    "target_ids",
    "target_weights",
}
_OPTIONAL = {
    "n_targets": 1,
    "aggregate_function": b"SUM",
    "post_transform": b"NONE",
}


def read_forest(content: bytes) -> Forest | None:
    """Return what evaluates a file; None where it has anything else than such trees."""
    try:
        return _read(memoryview(content))
    except (IndexError, KeyError, OverflowError, TypeError, ValueError):
        return None


def _read(content: memoryview) -> Forest | None:
    graph = _one(content, _MODEL_GRAPH)
    nodes = [_Node(node) for node in _all(graph, _GRAPH_NODE)]
    trees = [node for node in nodes if node.kind == b"TreeEnsembleRegressor"]
    inputs = [_one(value, _VALUE_NAME).tobytes() for value in _all(graph, _GRAPH_INPUT)]
    outputs = [_one(value, _VALUE_NAME).tobytes() for value in _all(graph, _GRAPH_OUTPUT)]
    if len(trees) != 1 or trees[0].inputs != inputs or len(inputs) != 1:
        return None
    given = trees[0].outputs
    for node in nodes:
        if node is trees[0]:
            continue
        if node.kind != b"Identity" or node.inputs != given:
            return None
        given = node.outputs
    if given != outputs:
        return None
    return _plant(trees[0].attributes())


def _plant(told: dict[str, Any]) -> Forest | None:
    for name, only in _OPTIONAL.items():
        if told.pop(name, only) != only:
            return None
    base = told.pop("base_values", [0.0])
    n = len(told["nodes_nodeids"])
    missing_left = told.pop("nodes_missing_value_tracks_true", [0] * n)
    told.pop("nodes_hitrates", None)
    if set(told) != _COLUMNS or len(base) != 1 or any(told["target_ids"]):
        return None
    modes = set(told["nodes_modes"])
    if not modes <= {b"LEAF", b"BRANCH_LEQ"}:
        return None
    leaves = list(zip(told["target_treeids"], told["target_nodeids"], strict=True))
    weight = dict(zip(leaves, told["target_weights"], strict=True))
    nodes = list(zip(told["nodes_treeids"], told["nodes_nodeids"], strict=True))
    is_leaf = [mode == b"LEAF" for mode in told["nodes_modes"]]
    wanted = [node for node, leaf in zip(nodes, is_leaf, strict=True) if leaf]
    thresholds = np.array(told["nodes_values"], np.float32)
    if len(weight) != len(leaves) or set(weight) != set(wanted) or np.isnan(thresholds).any():
        return None
    trees = Trees(
        tree=np.array(told["nodes_treeids"], np.int64),
        node=np.array(told["nodes_nodeids"], np.int64),
        is_leaf=np.array(is_leaf),
        feature=np.array(told["nodes_featureids"], np.int64),
        threshold=thresholds,
        missing_left=np.array(missing_left, bool),
        left=np.array(told["nodes_truenodeids"], np.int64),
        right=np.array(told["nodes_falsenodeids"], np.int64),
        weight=np.array([weight.get(node, 0.0) for node in nodes], np.float32),
        base=np.float32(base[0]),
    )
    lengths = {len(getattr(trees, name)) for name in Trees.__slots__ if name != "base"}
    return plant(trees) if lengths == {n} else None


class _Node:
    """What is needed of a node of the graph."""

    def __init__(self, data: memoryview) -> None:
        self._attributes = _all(data, _NODE_ATTRIBUTE)
        self.inputs = [name.tobytes() for name in _all(data, _NODE_INPUT)]
        self.outputs = [name.tobytes() for name in _all(data, _NODE_OUTPUT)]
        self.kind = _one(data, _NODE_TYPE).tobytes()

    def attributes(self) -> dict[str, Any]:
        """Return the value of each attribute; raises ValueError for one of another kind."""
        return dict(map(_attribute, self._attributes))


def _attribute(data: memoryview) -> tuple[str, Any]:
    name = ""
    values: dict[int, list[Any]] = {number: [] for number in _VALUES}
    for number, value in fields(data):
        if number == _NAME:
            name = str(value, "utf-8")  # type: ignore[arg-type]
        elif number == _FLOATS and isinstance(value, memoryview):
            values[number] += np.frombuffer(value, "<f4").tolist()
        elif number in values:
            values[number].append(value.tobytes() if isinstance(value, memoryview) else value)
        elif number != _KIND:
            raise ValueError(f"field {number} of attribute {name!r}")
    ((number, found),) = ((number, found) for number, found in values.items() if found)
    return name, found[0] if number in (_INT, _BYTES) else found


def _all(data: memoryview, wanted: int) -> list[memoryview]:
    return [
        value
        for number, value in fields(data)
        if number == wanted and isinstance(value, memoryview)
    ]


def _one(data: memoryview, wanted: int) -> memoryview:
    (found,) = _all(data, wanted)
    return found
