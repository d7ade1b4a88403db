"""A model is checked against the vector it will be given; a row's score is its own."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from stream_infer.core.errors import ModelError
from stream_infer.models.sessions import OnnxModel, is_steady
from tests.models import tiny

AXIS = numpy_helper.from_array(np.array([1]), "axis")


def test_scores_are_float64_of_each_row() -> None:
    model = OnnxModel(tiny.artifact(tiny.linear()), tiny.NAMES)
    vectors = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    scores = model.run(vectors)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, [14.0, 32.0])
    assert model.run(vectors[:0]).shape == (0,)
    assert (model.name, model.version, model.block_rows) == ("tiny", 3, 0)
    assert model.warm_up() > 0


def test_a_flat_output_is_taken_too() -> None:
    model = OnnxModel(tiny.artifact(tiny.linear(output_shape=("n",))), tiny.NAMES)
    np.testing.assert_array_equal(model.run(np.ones((1, 3), np.float32)), [6.0])


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (
            ("distance", "delay", "hour"),
            "model 'tiny' (version 3) takes 'delay' at position 0, where the vector has "
            "'distance'; the vector has 'delay' at position 1",
        ),
        (
            ("delay", "distances", "hour"),
            "model 'tiny' (version 3) takes 'distance' at position 1, where the vector has "
            "'distances'; the vector has no 'distance'; did you mean 'distances'?",
        ),
        (
            ("delay", "distance"),
            "model 'tiny' (version 3) takes 3 inputs, the vector has 2; its input 'hour' at "
            "position 2 is not given",
        ),
        (
            ("delay", "distance", "hour", "day"),
            "model 'tiny' (version 3) takes 3 inputs, the vector has 4; the vector's 'day' at "
            "position 3 is too much",
        ),
        (
            ("delay", "seats", "distance", "hour"),
            "model 'tiny' (version 3) takes 3 inputs, the vector has 4; takes 'distance' at "
            "position 1, where the vector has 'seats'; the vector has 'distance' at position 2",
        ),
    ],
)
def test_a_vector_that_differs_is_refused_at_its_first_difference(
    vector: Sequence[str], message: str
) -> None:
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        OnnxModel(tiny.artifact(tiny.linear()), vector)


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (tiny.linear((1, 2)), "input 'features' has width 2, the vector has 3 features"),
        (tiny.linear(rows=1), "has shape [1, 3]; it must be [any number, 3]"),
        (tiny.linear(kind=TensorProto.DOUBLE), "is tensor(double); it must be tensor(float)"),
        (
            tiny.linear(metadata=("delay", "hour", "distance")),
            "its file and its manifest name different inputs",
        ),
        (
            tiny.model(
                [helper.make_node("Relu", ["features"], ["score"])], [], output_shape=("n", 3)
            ),
            "output 'score' has shape ['n', 3]; it must be [n] or [n, 1]",
        ),
        (
            tiny.model(
                [
                    helper.make_node("ReduceMean", ["features", "rows"], ["mean"], keepdims=1),
                    helper.make_node("Sub", ["features", "mean"], ["centred"]),
                    helper.make_node("ReduceSum", ["centred", "axis"], ["score"]),
                ],
                [numpy_helper.from_array(np.array([0]), "rows"), AXIS],
            ),
            "a row's score depends on the other rows of its batch",
        ),
    ],
)
def test_a_model_that_cannot_serve_is_refused(proto: tiny.Proto, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        OnnxModel(tiny.artifact(proto), tiny.NAMES)


def test_a_model_without_metadata_is_taken_at_its_manifests_word() -> None:
    OnnxModel(tiny.artifact(tiny.linear(metadata=None)), tiny.NAMES)


def test_other_inputs_and_outputs_than_the_manifests_are_named() -> None:
    proto = tiny.linear()
    proto.graph.node[0].output[0] = proto.graph.output[0].name = "scores"
    with pytest.raises(ModelError, match="has no output 'score'; did you mean 'scores'"):
        OnnxModel(tiny.artifact(proto), tiny.NAMES)
    proto = tiny.linear()
    proto.graph.node[0].input[0] = proto.graph.input[0].name = "x"
    with pytest.raises(ModelError, match=r'has inputs \["x"\], its manifest says .* \'features\''):
        OnnxModel(tiny.artifact(proto), tiny.NAMES)


def test_a_model_whose_rounding_depends_on_the_batch_is_run_in_blocks() -> None:
    nodes = [
        helper.make_node("Shape", ["features"], ["shape"], end=1),
        helper.make_node("Cast", ["shape"], ["rows"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["rows", "little"], ["noise"]),
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"]),
        helper.make_node("Add", ["sum", "noise"], ["score"]),
    ]
    little = numpy_helper.from_array(np.array([1e-6], np.float32), "little")
    model = OnnxModel(tiny.artifact(tiny.model(nodes, [AXIS, little])), tiny.NAMES)
    assert model.block_rows == 64
    vectors = np.random.default_rng(4).normal(size=(500, 3)).astype(np.float32)
    assert not is_steady(model._call, vectors)
    assert is_steady(model.run, vectors)
    np.testing.assert_allclose(model.run(vectors), vectors.sum(axis=1), atol=1e-3)
