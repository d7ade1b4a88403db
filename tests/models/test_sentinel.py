"""ONNX graphs run in their caller's thread, and are stopped there when they take too long."""

import gc
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from stream_infer.models.calling import DISTRUSTED_CALLS, ROWS_IN_TURN, TimedCaller
from stream_infer.models.ensemble import ModelSet
from stream_infer.models.sentinel import Sentinel
from stream_infer.models.sessions import OnnxModel, Rows, Scores
from tests.models import tiny

FOR_EVER = 12_345.0
WELL = np.ones((2, 3), np.float32)
HANGS = np.full((2, 3), FOR_EVER, np.float32)
AMPLE_S = 30.0
SHORT_S = 0.1


def looping() -> OnnxModel:
    """A model that sums up, and never comes to an end where an input is FOR_EVER."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("Add", ["value", "nothing"], ["same"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 1]),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, ["n", 1]),
        ],
    )
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"]),
        helper.make_node("Equal", ["features", "evil"], ["found"]),
        helper.make_node("Cast", ["found"], ["counts"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["counts"], ["count"], keepdims=0),
        helper.make_node("Mul", ["count", "many"], ["turns"]),
        helper.make_node("Loop", ["turns", "true", "sum"], ["score"], body=body),
    ]
    constants = [
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array(FOR_EVER, np.float32), "evil"),
        numpy_helper.from_array(np.array(1 << 50), "many"),
        numpy_helper.from_array(np.array(True), "true"),
        numpy_helper.from_array(np.array(0, np.float32), "nothing"),
    ]
    return OnnxModel(tiny.artifact(tiny.model(nodes, constants)), tiny.NAMES)


def linear() -> OnnxModel:
    return OnnxModel(tiny.artifact(tiny.linear()), tiny.NAMES)


@pytest.fixture
def where(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which graphs ran, in order."""
    threads: list[int] = []
    run = OnnxModel.run

    def noted(model: OnnxModel, vectors: Rows, stop: object = None) -> Scores:
        threads.append(threading.get_ident())
        return run(model, vectors, stop)

    monkeypatch.setattr(OnnxModel, "run", noted)
    return threads


def test_graphs_of_a_small_batch_run_in_the_callers_thread(where: list[int]) -> None:
    models = ModelSet({"a": linear(), "b": linear()}, TimedCaller(AMPLE_S))
    where.clear()
    np.testing.assert_array_equal(models.run(WELL).scores, np.full((2, 2), 6.0))
    assert set(where) == {threading.get_ident()}
    models.run(np.ones((ROWS_IN_TURN + 1, 3), np.float32))
    assert threading.get_ident() not in where[2:]


def test_a_graph_without_end_is_stopped_and_the_others_answer() -> None:
    models = ModelSet(
        {"before": linear(), "hangs": looping(), "after": linear()}, TimedCaller(SHORT_S)
    )
    assert models.run(WELL).failures == {}
    result = models.run(HANGS)
    assert result.failures == {"hangs": "model:hangs:timeout"}
    assert "not done within 100 ms" in result.details["hangs"]
    assert np.isnan(result.scores[:, 1]).all()
    np.testing.assert_array_equal(result.scores[:, [0, 2]], np.full((2, 2), 6 * FOR_EVER))


def test_models_are_called_in_other_threads_for_a_while_after_one_was_overdue(
    where: list[int],
) -> None:
    call = TimedCaller(SHORT_S)
    models = ModelSet({"a": linear(), "hangs": looping()}, call)
    models.run(HANGS)
    where.clear()
    call.timeout_s = AMPLE_S
    for _ in range(DISTRUSTED_CALLS):
        assert models.run(WELL).failures == {}
    assert threading.get_ident() not in where
    models.run(WELL)
    assert where[-2:] == [threading.get_ident()] * 2


def test_what_a_graph_raises_is_no_timeout() -> None:
    model = linear()
    with pytest.raises(Exception, match="Got invalid dimensions"):
        Sentinel(AMPLE_S).run(model, np.ones((2, 7), np.float32))


def test_only_what_is_overdue_is_stopped() -> None:
    sentinel = Sentinel(AMPLE_S)
    sentinel.look()
    assert sentinel.run(linear(), WELL).tolist() == [6.0, 6.0]


def test_a_thread_without_a_call_is_not_overdue() -> None:
    sentinel, model = Sentinel(AMPLE_S), linear()
    sentinel.run(model, WELL)
    sentinel.timeout_s = 0.0
    sentinel.look()
    sentinel.timeout_s = AMPLE_S
    assert sentinel.run(model, WELL).tolist() == [6.0, 6.0]


def test_what_stopped_a_call_does_not_stop_the_next_one() -> None:
    sentinel, model = Sentinel(SHORT_S), looping()
    with pytest.raises(TimeoutError, match="not done within 100 ms"):
        sentinel.run(model, HANGS)
    assert sentinel.run(model, WELL).tolist() == [3.0, 3.0]


def test_the_sentinels_thread_ends_with_it() -> None:
    model, before = linear(), set(threading.enumerate())
    sentinel = Sentinel(SHORT_S)
    sentinel.run(model, WELL)
    (thread,) = set(threading.enumerate()) - before
    del sentinel
    gc.collect()
    thread.join(AMPLE_S)
    assert not thread.is_alive()
