"""Trees evaluated many rows at once give the runtime's scores, to the bit; other graphs do not."""

import threading
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from stream_infer.models import sessions
from stream_infer.models.calling import TimedCaller
from stream_infer.models.forest import LEAVES_MAX, Trees, _Column, _Places, plant
from stream_infer.models.forest_file import read_forest
from stream_infer.models.sessions import FOREST_ROWS_MIN, OnnxModel
from stream_infer.training.export import (
    TREE_NODE,
    Baseline,
    Scaling,
    export_network,
    export_trees,
)
from tests.models import tiny

WIDTH = 3
FEATURES = [f"f{number}" for number in range(WIDTH)]
THRESHOLDS = [-np.inf, -2.0, -0.0, 0.0, 1e-40, 0.5, 0.1, 3.0, 1e30, np.inf]
numbers = st.sampled_from(THRESHOLDS)


def grown(random: np.random.Generator, leaves: int) -> np.ndarray:
    """A tree of some shape with so many leaves, its nodes in no particular order but the root."""
    nodes = np.zeros(2 * leaves - 1, TREE_NODE)
    nodes["is_leaf"] = 1
    ends, made = [0], 1
    while made < len(nodes):
        node = ends.pop(int(random.integers(len(ends))))
        nodes["is_leaf"][node] = 0
        nodes["left"][node], nodes["right"][node] = made, made + 1
        ends += [made, made + 1]
        made += 2
    nodes["value"] = random.normal(size=len(nodes))
    nodes["feature_idx"] = random.integers(0, WIDTH, len(nodes))
    nodes["num_threshold"] = random.choice(THRESHOLDS, len(nodes))
    nodes["missing_go_to_left"] = random.integers(0, 2, len(nodes))
    return nodes


def file_of(
    seed: int, sizes: list[int], constant: float = 0.0, baseline: Baseline | None = None
) -> bytes:
    random = np.random.default_rng(seed)
    return export_trees([grown(random, size) for size in sizes], constant, baseline, FEATURES)


def by_the_runtime(content: bytes, rows: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # as `OnnxModel` has it: several add in another order
    session = ort.InferenceSession(content, options)
    return session.run(None, {"features": rows})[0].reshape(-1)


@settings(deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    sizes=st.lists(st.integers(1, LEAVES_MAX), min_size=1, max_size=12),
    constant=st.sampled_from([0.0, 0.1, -7.0]),
    baseline=st.none() | st.builds(Baseline, st.integers(0, WIDTH - 1), st.just(0.3)),
    rows=st.lists(st.lists(numbers | st.just(np.nan), min_size=WIDTH, max_size=WIDTH), min_size=1),
)
def test_scores_are_those_of_the_runtime_to_the_bit(seed, sizes, constant, baseline, rows):
    content = file_of(seed, [2, *sizes], constant, baseline)
    forest = read_forest(content)
    asked = np.array(rows, np.float32)
    assert forest(asked).tobytes() == by_the_runtime(content, asked).tobytes()


anything = st.floats(width=32, allow_nan=False)
close = st.floats(1.0, 1.0000100135803223, width=32)


@settings(deadline=None)
@given(
    thresholds=st.lists(
        st.lists(anything | close, min_size=1, max_size=60), min_size=1, max_size=3
    ),
    others=st.lists(anything | close, max_size=9),
)
def test_a_place_is_the_number_of_thresholds_below_a_value(thresholds, others):
    """However close they are, or far apart; also at and next to them."""
    of_features = [np.unique(np.array(own, np.float32)) for own in thresholds]
    columns = [
        _Column(2 * number, own, np.zeros((len(own) + 2, 1), np.uint32))
        for number, own in enumerate(of_features)
    ]
    at = np.concatenate([*of_features, np.array([*others, np.inf, -np.inf], np.float32)])
    with np.errstate(over="ignore"):
        values = np.concatenate([at, np.nextafter(at, np.float32(np.inf)), -at])
    rows = np.repeat(values[:, np.newaxis], 2 * len(columns), axis=1)
    found = _Places(columns).of(np.vstack([rows, np.full_like(rows[:1], np.nan)]))
    start = 0
    for own, places in zip(of_features, found, strict=True):
        wanted = [*(start + own.searchsorted(values)).tolist(), start + len(own) + 1]
        assert places.tolist() == wanted
        start += len(own) + 2


def test_many_rows_are_scored_in_pieces():
    content = file_of(1, [LEAVES_MAX] * 20)
    rows = np.random.default_rng(2).normal(size=(1_111, WIDTH)).astype(np.float32)
    assert read_forest(content)(rows).tobytes() == by_the_runtime(content, rows).tobytes()
    assert len(read_forest(content)(rows[:0])) == 0


@pytest.fixture
def any_speed(monkeypatch):
    """Use tables however fast they are."""
    monkeypatch.setattr(sessions, "is_sooner", lambda one, other, rows: True)


def test_tables_are_used_where_they_take_less_time():
    now = {"s": 0.0}
    seconds = {"fast": 1.0, "slow": 2.0}

    def takes(name):
        def run(rows):
            now["s"] += seconds[name]

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions.time, "perf_counter", lambda: now["s"])
        rows = np.zeros((1, WIDTH), np.float32)
        assert sessions.is_sooner(takes("fast"), takes("slow"), rows)
        assert not sessions.is_sooner(takes("slow"), takes("fast"), rows)


def test_tables_that_take_more_time_are_not_used(monkeypatch):
    monkeypatch.setattr(sessions, "is_sooner", lambda one, other, rows: False)
    proto = onnx.load_from_string(file_of(3, [8] * 10))
    assert not OnnxModel(tiny.artifact(proto, features=FEATURES), FEATURES).uses_tables(10_000)


@pytest.mark.usefixtures("any_speed")
def test_a_model_of_trees_has_the_same_scores_however_its_rows_are_cut():
    proto = onnx.load_from_string(file_of(3, [8] * 10))
    model = OnnxModel(tiny.artifact(proto, features=FEATURES), FEATURES)
    assert model.uses_tables(FOREST_ROWS_MIN)
    assert not model.uses_tables(FOREST_ROWS_MIN - 1)
    rows = np.random.default_rng(4).normal(size=(2 * FOREST_ROWS_MIN + 7, WIDTH))
    whole = model.run(rows.astype(np.float32))
    for size in (1, 100, FOREST_ROWS_MIN - 1, FOREST_ROWS_MIN, FOREST_ROWS_MIN + 1):
        parts = [
            model.run(rows[at : at + size].astype(np.float32)) for at in range(0, len(rows), size)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.usefixtures("any_speed")
def test_tables_that_differ_from_the_runtime_are_not_used(monkeypatch):
    proto = onnx.load_from_string(file_of(3, [8] * 10))
    another = read_forest(file_of(3, [8] * 10, constant=1e-6))
    monkeypatch.setattr(sessions, "read_forest", lambda content: another)
    model = OnnxModel(tiny.artifact(proto, features=FEATURES), FEATURES)
    assert not model.uses_tables(10_000)


@pytest.mark.usefixtures("any_speed")
def test_many_rows_are_scored_where_they_are_waited_for_and_few_while_in_doubt_are_not(
    monkeypatch,
):
    proto = onnx.load_from_string(file_of(3, [8] * 10))
    model = OnnxModel(tiny.artifact(proto, features=FEATURES), FEATURES)
    threads = []
    run = OnnxModel.run

    def noted(self, *arguments):
        threads.append(threading.get_ident())
        return run(self, *arguments)

    monkeypatch.setattr(OnnxModel, "run", noted)
    call = TimedCaller(timeout_s=60)
    rows = np.zeros((FOREST_ROWS_MIN, WIDTH), np.float32)
    (begun,) = call({"trees": model}, rows)
    assert not threads
    assert begun().tobytes() == model.run(rows).tobytes()
    call._distrust = 1
    (begun,) = call({"trees": model}, rows[:3])
    assert len(begun()) == 3
    assert [thread == threading.get_ident() for thread in threads] == [True, True, False]


def test_trees_may_be_the_whole_graph():
    model = onnx.load_from_string(file_of(10, [5, 6]))
    trees, _ = model.graph.node
    trees.output[0] = model.graph.output[0].name
    del model.graph.node[1]
    content = model.SerializeToString()
    rows = np.random.default_rng(2).normal(size=(50, WIDTH)).astype(np.float32)
    assert read_forest(content)(rows).tobytes() == by_the_runtime(content, rows).tobytes()


def changed(content: bytes, **attributes: object) -> bytes:
    """Return a file whose trees have other attributes; None takes one away."""
    model = onnx.load_from_string(content)
    node = model.graph.node[0]
    told = {a.name: helper.get_attribute_value(a) for a in node.attribute} | attributes
    del node.attribute[:]
    node.attribute.extend(
        helper.make_attribute(name, value) for name, value in told.items() if value is not None
    )
    return model.SerializeToString()


def without_the_last_weight(content: bytes) -> dict[str, object]:
    node = onnx.load_from_string(content).graph.node[0]
    told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: told[name][:-1] for name in told if name.startswith("target_")}


def of_domain(content: bytes, domain: str) -> bytes:
    model = onnx.load_from_string(content)
    model.graph.node[1].domain = domain
    return model.SerializeToString()


def test_what_is_not_a_plain_sum_of_trees_is_left_to_the_runtime():
    content = file_of(5, [4, 3])
    assert read_forest(content) is not None
    assert read_forest(changed(content, nodes_missing_value_tracks_true=None)) is not None
    based = onnx.load_from_string(file_of(5, [4], baseline=Baseline(1, 0.0)))
    based.graph.node[1].attribute[0].i = 0
    elsewhere = onnx.load_from_string(file_of(5, [4], baseline=Baseline(1, 0.0)))
    elsewhere.graph.node[4].input[0] = elsewhere.graph.node[1].output[0]
    scaling = Scaling(np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32), 5.0)
    modes = ["BRANCH_LT" if n == 0 else "LEAF" for n in range(3)]
    others = {
        "another aggregate": changed(content, aggregate_function="AVERAGE"),
        "a transformation": changed(content, post_transform="LOGISTIC"),
        "several targets": changed(content, n_targets=2),
        "another question": changed(file_of(5, [2]), nodes_modes=modes),
        "another attribute": changed(content, something=1),
        "a leaf without weight": changed(content, **without_the_last_weight(content)),
        "a file of more than a megabyte": changed(content, nodes_hitrates=[1.0] * 300_000),
        "an operator of somebody else's": of_domain(content, "mine"),
        "another column": based.SerializeToString(),
        "a column with what is missing": elsewhere.SerializeToString(),
        "a network": export_network(scaling, [np.ones((WIDTH, 1))], [np.zeros(1)], None, FEATURES),
        "a tree with more leaves": file_of(7, [LEAVES_MAX + 1]),
        "no question": file_of(8, [1, 1]),
        "larger tables": file_of(9, [LEAVES_MAX] * 200),
        "no model": b"\x00\x01",
        "half a model": content[: len(content) // 2],
    }
    for what, other in others.items():
        assert read_forest(other) is None, what


def table(**columns: object) -> Trees:
    """One question, and two leaves."""
    of = {
        "tree": [0, 0, 0],
        "node": [0, 1, 2],
        "is_leaf": [False, True, True],
        "feature": [0, 0, 0],
        "threshold": [1.0, 0.0, 0.0],
        "missing_left": [False, False, False],
        "left": [1, 0, 0],
        "right": [2, 0, 0],
        "weight": [0.0, 5.0, 7.0],
    }
    kinds = {"is_leaf": bool, "missing_left": bool, "threshold": np.float32, "weight": np.float32}
    arrays = {name: np.array(value, kinds.get(name, np.int64)) for name, value in of.items()}
    trees = Trees(**arrays, base=np.float32(0.5))
    return replace(trees, **{name: np.array(value) for name, value in columns.items()})


@pytest.mark.parametrize(
    "columns",
    [
        {"left": [3, 0, 0]},  # nowhere
        {"left": [2, 0, 0]},  # to the same leaf twice
        {"left": [0, 0, 0]},  # to itself
        {"node": [0, 1, 1]},  # twice the same
        {"node": [1, 0, 2], "left": [0, 0, 0]},  # the root first, whatever its number
    ],
)
def test_what_is_no_tree_is_left_to_the_runtime(columns):
    rows = np.array([[1.0], [1.5], [np.nan]], np.float32)
    assert plant(table())(rows).tolist() == [5.5, 7.5, 7.5]
    forest = plant(table(**columns))
    if columns == {"node": [1, 0, 2], "left": [0, 0, 0]}:
        assert forest(rows).tolist() == [5.5, 7.5, 7.5]
    else:
        assert forest is None
