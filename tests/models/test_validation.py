"""A model file is refused before it can do harm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from stream_infer.core.errors import ModelError
from stream_infer.models.repository import ModelRepository
from stream_infer.models.validation import ValidationLimits, Validator, validate_model
from stream_infer.models.wire import outline
from tests.models import tiny


def external(name: str = "secret", location: str = "/etc/hostname") -> Any:
    """Return a tensor whose data lies elsewhere."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3, 1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_initializer() -> Any:
    proto = tiny.linear()
    proto.graph.initializer[0].CopyFrom(external("w"))
    return proto


def in_attribute() -> Any:
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.append(helper.make_attribute("value", external()))
    matmul = helper.make_node("MatMul", ["features", "w"], ["score"])
    return tiny.model([node, matmul], [])


def in_subgraph() -> Any:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["secret"], ["y"])], "inner", [], [], [external()]
    )
    proto = tiny.linear()
    node = proto.graph.node.add(op_type="If")
    node.attribute.append(helper.make_attribute("then_branch", inner))
    return proto


def in_function() -> Any:
    proto = tiny.linear()
    node = proto.functions.add(name="f", domain="d").node.add(op_type="Constant")
    node.attribute.append(helper.make_attribute("value", external()))
    return proto


def in_sparse_initializer() -> Any:
    proto = tiny.linear()
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external())
    return proto


def in_training_info() -> Any:
    proto = tiny.linear()
    proto.training_info.add().initialization.initializer.append(external())
    return proto


def in_memory_address() -> Any:
    proto = tiny.linear()
    proto.graph.initializer[0].CopyFrom(external("w", "*/_ORT_MEM_ADDR_/*"))
    return proto


def without_location_flag() -> Any:
    proto = in_initializer()
    proto.graph.initializer[0].ClearField("data_location")
    return proto


@pytest.mark.parametrize(
    "craft",
    [
        in_initializer,
        in_attribute,
        in_subgraph,
        in_function,
        in_sparse_initializer,
        in_training_info,
        in_memory_address,
        without_location_flag,
    ],
)
def test_external_data_is_refused_wherever_it_hides(craft: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(craft().SerializeToString())
    with pytest.raises(ModelError, match=r"tensor '(w|secret)' has external data, which is refu"):
        validate_model(path)


def test_a_field_tag_that_other_parsers_read_otherwise_is_refused() -> None:
    content = tiny.linear().SerializeToString()
    # Field 7 (the graph), its tag written with a bit above the 32nd.
    hidden = b"\xba\x80\x80\x80\x10" + b"\x00"
    with pytest.raises(ModelError, match="is no field's tag"):
        outline(content + hidden, "it")


def test_the_runtimes_own_format_is_refused() -> None:
    with pytest.raises(ModelError, match="onnxruntime's own format"):
        outline(b"\x00\x00\x00\x00ORTM" + b"\x00" * 20, "it")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04K\x01.", bytes(1000), b"\xff" * 64])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not an ONNX file"):
        validate_model(path)


def test_every_cut_of_a_file_is_refused_or_read_without_a_crash() -> None:
    content = tiny.linear().SerializeToString()
    for end in range(len(content)):
        try:
            outline(content[:end], "it")
        except ModelError:
            continue


def test_deep_nesting_is_refused_and_not_recursed_into() -> None:
    def inside(field: int, content: bytes) -> bytes:
        size = len(content)
        return (
            bytes([field << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content
        )

    content = b""
    for _ in range(200):  # a graph in an attribute of a node of a graph
        content = inside(1, inside(5, inside(6, content)))
    with pytest.raises(ModelError, match="nested deeper than 64"):
        outline(inside(7, content), "it")


def test_a_report_says_what_a_model_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.linear().SerializeToString())
    report = validate_model(path)
    assert report.features == tiny.NAMES
    assert [(t.name, t.type, t.shape) for t in report.inputs] == [
        ("features", "tensor(float)", ("n", 3))
    ]
    assert [(t.name, t.shape) for t in report.outputs] == [("score", ("n", 1))]
    assert report.size_bytes == path.stat().st_size
    assert report.us_per_row is not None
    assert report.us_per_row > 0


def test_a_model_the_runtime_rejects_is_refused_with_its_words(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("NoSuchOperator", ["features"], ["score"])]
    path.write_bytes(tiny.model(nodes, []).SerializeToString())
    with pytest.raises(ModelError, match=r"cannot be loaded: .*NoSuchOperator"):
        validate_model(path)


def test_a_model_that_wants_too_much_memory_meets_the_childs_limit(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 13]), "shape")  # 32 GiB of float32
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"]),
        helper.make_node("Add", ["features", "sum"], ["wide"]),
        helper.make_node("ReduceSum", ["wide", "axis"], ["score"]),
    ]
    axis = numpy_helper.from_array(np.array([1]), "axis")
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.model(nodes, [shape, axis]).SerializeToString())
    with pytest.raises(ModelError, match=r"cannot be loaded|ended the process that tried it"):
        validate_model(path, ValidationLimits(memory_bytes_max=2 * 1024**3))


def test_a_model_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Identity", ["v_in"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["", "go", "features"], ["looped"], body=body),
        helper.make_node("ReduceSum", ["looped", "axis"], ["score"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(True), "go"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.model(nodes, constants).SerializeToString())
    with pytest.raises(ModelError, match=r"ended the process that tried it \(signal"):
        validate_model(path, ValidationLimits(cpu_s_max=1))
    with pytest.raises(ModelError, match=r"was not loaded and tried within 1\.0 s"):
        validate_model(path, ValidationLimits(wall_s_max=1.0))


def test_a_checksum_is_validated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    module = "stream_infer.models.validation"
    monkeypatch.setattr(
        f"{module}.validate_content", lambda content, what, limits: tried.append(what)
    )
    repository = ModelRepository(tmp_path)
    stored = tiny.save(repository, tiny.linear())
    other = tiny.save(repository, tiny.linear((0, 0, 1)))
    for validator in (Validator(tmp_path / ".validated"), Validator(tmp_path / ".validated")):
        validator.ensure(stored)
        validator.ensure(other)
    assert tried == ["model 'tiny' version 1", "model 'tiny' version 2"]
    Validator(None).ensure(stored)
    assert len(tried) == 3


def test_a_repository_that_cannot_be_written_is_still_validated(tmp_path: Path) -> None:
    stored = tiny.save(ModelRepository(tmp_path), tiny.linear())
    Validator(stored.path / "no-folder").ensure(stored)
