"""The trees of an ONNX file that is a sum of regression trees, or of a column and these."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_infer.models.forest import Forest, Trees, plant
from stream_infer.models.wire import fields

FILE_BYTES_MAX = 1 << 20
"""Tables of more would be too large (`forest.TABLE_BYTES_MAX`); reading them takes long."""
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_CONSTANT, _GRAPH_INPUT, _GRAPH_OUTPUT, _VALUE_NAME = 1, 5, 11, 12, 1
_TENSOR_SHAPE, _TENSOR_KIND, _TENSOR_NAME, _TENSOR_BYTES = 1, 2, 8, 9
_TENSOR_KINDS: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8")}
_BASELINE = [b"Gather", b"IsNaN", b"Where", b"Add"]
"""How `training.export` adds a column: a number instead where it is missing."""
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_DOMAINS = {b"", b"ai.onnx", b"ai.onnx.ml"}
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
    """Return what evaluates a file; None where it has anything else than such trees, or many."""
    if len(content) > FILE_BYTES_MAX:
        return None
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
    if _all(content, _MODEL_FUNCTION) or not {node.domain for node in nodes} <= _DOMAINS:
        return None  # A function may have the name of an operator.
    rest = [node for node in nodes if node is not trees[0]]
    forest = _plant(trees[0].attributes())
    kinds = [node.kind for node in rest]
    if forest is None or (rest or trees)[-1].outputs != outputs:
        return None
    if not rest:
        return forest
    if kinds == [b"Identity"]:
        return forest if rest[0].inputs == trees[0].outputs else None
    if kinds != _BASELINE:
        return None
    baseline = _baseline(rest, inputs[0], dict(map(_constant, _all(graph, _GRAPH_CONSTANT))))
    if baseline is None or rest[-1].inputs[1:] != trees[0].outputs:
        return None
    return forest.on(*baseline)


def _baseline(
    nodes: Sequence["_Node"], given: bytes, constants: Mapping[bytes, npt.NDArray[Any]]
) -> tuple[int, np.float32] | None:
    """Return which column of `given` is added to, and what stands for it where it is missing."""
    gather, is_nan, where, add = nodes
    (column,), (missing,), (base,) = gather.outputs, is_nan.outputs, where.outputs
    wired = (gather.inputs[0], is_nan.inputs, where.inputs[0], where.inputs[2], add.inputs[0])
    if wired != (given, [column], missing, column, base) or gather.attributes() != {"axis": 1}:
        return None
    index, instead = constants[gather.inputs[1]], constants[where.inputs[1]]
    if index.dtype != np.int64 or index.shape != (1,) or index[0] < 0:
        return None
    if instead.dtype != np.float32 or instead.shape != ():
        return None
    return int(index[0]), np.float32(instead)


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
        missing_left=np.array([mark == 1 for mark in missing_left]),
        left=np.array(told["nodes_truenodeids"], np.int64),
        right=np.array(told["nodes_falsenodeids"], np.int64),
        weight=np.array([weight.get(node, 0.0) for node in nodes], np.float32),
        base=np.float32(base[0]),
    )
    lengths = {len(getattr(trees, name)) for name in Trees.__slots__ if name != "base"}
    return plant(trees) if lengths == {n} else None


def _constant(data: memoryview) -> tuple[bytes, npt.NDArray[Any]]:
    """Return a tensor's name and numbers; raises KeyError for another kind of tensor."""
    told: dict[int, Any] = dict(fields(data))
    shape: list[Any] = [value for number, value in fields(data) if number == _TENSOR_SHAPE]
    numbers = np.frombuffer(told[_TENSOR_BYTES], _TENSOR_KINDS[told[_TENSOR_KIND]])
    return bytes(told[_TENSOR_NAME]), numbers.reshape(shape)


class _Node:
    """What is needed of a node of the graph."""

    def __init__(self, data: memoryview) -> None:
        self._attributes = _all(data, _NODE_ATTRIBUTE)
        self.inputs = [name.tobytes() for name in _all(data, _NODE_INPUT)]
        self.outputs = [name.tobytes() for name in _all(data, _NODE_OUTPUT)]
        self.kind = _one(data, _NODE_TYPE).tobytes()
        self.domain = b"".join(_all(data, _NODE_DOMAIN))

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
    return name, found[-1] if number in (_INT, _BYTES) else found


def _all(data: memoryview, wanted: int) -> list[memoryview]:
    return [
        value
        for number, value in fields(data)
        if number == wanted and isinstance(value, memoryview)
    ]


def _one(data: memoryview, wanted: int) -> memoryview:
    (found,) = _all(data, wanted)
    return found
