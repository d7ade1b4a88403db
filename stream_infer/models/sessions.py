"""A model in memory: one ONNX session, checked against the vector that it will be given."""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from stream_infer.core.errors import ModelError, did_you_mean
from stream_infer.models.forest import Forest
from stream_infer.models.forest_file import read_forest
from stream_infer.models.repository import ModelArtifact
from stream_infer.models.validation import features_in
from stream_infer.models.wire import outline

Rows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

FOREST_ROWS_MIN = 257
"""Fewer rows, with its tables in no cache, may be scored sooner by the runtime."""
_FLOATS = ("tensor(float)", "tensor(double)")
_WARM_UP_ROWS = (1, 2, 16, 256, 2000)
_PROBE_ROWS = 331
_BLOCK_ROWS = (64, 1)


class OnnxModel:
    """A version of a model ready to score; raises ModelError when it does not fit.

    `features` are the names of the vector's columns, which must be the model's inputs, in order.
    A row's score has the same bits whatever batch it is in: `block_rows` is 0 where the runtime
    gives that by itself, else the fixed number of rows of each call to it. Threads: one session
    may run in several at once; each call stays on its caller's.
    """

    __slots__ = (
        "_forest",
        "_input",
        "_output",
        "_run",
        "block_rows",
        "features",
        "name",
        "version",
    )

    def __init__(self, artifact: ModelArtifact, features: Sequence[str]) -> None:
        manifest = artifact.manifest
        self.name, self.version, self.features = manifest.model, manifest.version, tuple(features)
        what = f"model {self.name!r} (version {self.version})"
        declared = features_in(outline(artifact.content, what).metadata, what)
        if declared is not None and declared != manifest.features:
            raise ModelError(f"{what}: its file and its manifest name different inputs")
        check_features(what, manifest.features, self.features)
        session = _open(artifact.content, what)
        self._input = _check_input(session, what, manifest.input, len(self.features))
        self._output = _check_output(session, what, manifest.output)
        # The public `run` looks for what only other devices need, which adds a fifth to one row's.
        self._run = getattr(session, "_sess", session).run
        self.block_rows = self._steady_block_rows(what)
        self._forest = None if self.block_rows else self._same_forest(artifact.content)
        self.warm_up()

    def uses_tables(self, n: int) -> bool:
        """Whether n rows are scored without the runtime, in less time than it would take."""
        return self._forest is not None and n >= FOREST_ROWS_MIN

    def run(self, vectors: Rows, stop: ort.RunOptions | None = None) -> Scores:
        """Return float64[n] from vectors float32[n, F]; raises what the runtime raises.

        Another thread may set `stop.terminate`: the call then ends before the graph's next
        operator, with an error. Many rows of a sum of trees are scored without the runtime, with
        the same bits; that is not stopped.
        """
        if self._forest is not None and self.uses_tables(len(vectors)):
            return self._forest(vectors).astype(np.float64)
        if self.block_rows:
            call = partial(self._call, stop=stop)
            return _in_blocks(call, vectors, block_rows=self.block_rows)
        return self._call(vectors, stop)

    def warm_up(self) -> float:
        """Run batches of several sizes; return the microseconds a row of the largest took."""
        seconds = 0.0
        for n in _WARM_UP_ROWS:
            vectors = np.zeros((n, len(self.features)), np.float32)
            started = time.perf_counter()
            self.run(vectors)
            seconds = time.perf_counter() - started
        return seconds * 1e6 / _WARM_UP_ROWS[-1]

    def _call(self, vectors: Rows, stop: ort.RunOptions | None = None) -> Scores:
        if not len(vectors):
            return np.zeros(0)
        found = self._run([self._output], {self._input: vectors}, stop)
        output: npt.NDArray[Any] = found[0]
        if output.size != len(vectors):
            raise ModelError(
                f"model {self.name!r} gave {output.size} scores for {len(vectors)} rows"
            )
        return output.reshape(-1).astype(np.float64)

    def _same_forest(self, content: bytes) -> Forest | None:
        """Return what gives the scores sooner, to the bit; None where nothing does."""
        forest = read_forest(content)
        if forest is None:
            return None
        probe = np.concatenate([_probe(len(self.features)), _edges(forest, len(self.features))])
        if forest(probe).astype(np.float64).tobytes() != self._call(probe).tobytes():
            return None
        return forest if is_sooner(forest, self._call, probe) else None

    def _steady_block_rows(self, what: str) -> int:
        """Find how the runtime must be called for a row's score not to depend on its batch.

        Kernels may sum in another order for other shapes; the replay law allows no such thing.
        """
        probe = _probe(len(self.features))
        alone = _in_blocks(self._call, probe, block_rows=1)
        together = self._call(probe)
        if not np.allclose(together, alone, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ModelError(f"{what}: a row's score depends on the other rows of its batch")
        if is_steady(self._call, probe):
            return 0
        for block_rows in _BLOCK_ROWS:
            if is_steady(partial(_in_blocks, self._call, block_rows=block_rows), probe):
                return block_rows
        raise ModelError(f"{what}: gives different scores for the same row")


def is_sooner(one: Callable[[Rows], Any], other: Callable[[Rows], Any], rows: Rows) -> bool:
    """Say whether `one` took less time than `other`, the best of three times each in turn."""
    took_s: dict[Callable[[Rows], Any], list[float]] = {one: [], other: []}
    for _ in range(3):
        for run, seconds in took_s.items():
            began_s = time.perf_counter()
            run(rows)
            seconds.append(time.perf_counter() - began_s)
    return min(took_s[one]) < min(took_s[other])


def is_steady(run: Callable[[Rows], Scores], rows: Rows) -> bool:
    """Say whether scores of `rows` have the same bits however they are cut and ordered."""
    whole = run(rows)
    for size in (1, 2, 3, 5, 8, 13, 17, 31, 64, 100, 129, 200):
        parts = [run(rows[at : at + size]) for at in range(0, len(rows), size)]
        if np.concatenate(parts).tobytes() != whole.tobytes():
            return False
    return run(np.ascontiguousarray(rows[::-1]))[::-1].tobytes() == whole.tobytes()


def check_features(what: str, takes: Sequence[str], given: Sequence[str]) -> None:
    """Raise ModelError, naming the first difference, unless a model takes what the vector gives."""
    if tuple(takes) == tuple(given):
        return
    count = "" if len(takes) == len(given) else f"takes {len(takes)} inputs, the vector has "
    count += "" if not count else f"{len(given)}; "
    pairs = zip(takes, given, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(takes), len(given)))
    if at == len(takes):
        raise ModelError(f"{what} {count}the vector's {given[at]!r} at position {at} is too much")
    expected = takes[at]
    if at == len(given):
        raise ModelError(f"{what} {count}its input {expected!r} at position {at} is not given")
    if expected in given:
        hint = f"; the vector has {expected!r} at position {list(given).index(expected)}"
    else:
        hint = f"; the vector has no {expected!r}{did_you_mean(expected, given)}"
    raise ModelError(
        f"{what} {count}takes {expected!r} at position {at}, where the vector has "
        f"{given[at]!r}{hint}"
    )


def _open(content: bytes, what: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common base of their own
        raise ModelError(f"{what} cannot be loaded: {error}") from error


def _check_input(session: Any, what: str, name: str, width: int) -> str:
    inputs = session.get_inputs()
    names = [node.name for node in inputs]
    if names != [name]:
        raise ModelError(
            f"{what} has inputs {json.dumps(names)}, its manifest says it has one, {name!r}"
        )
    node = inputs[0]
    if node.type != "tensor(float)":
        raise ModelError(f"{what}: input {name!r} is {node.type}; it must be tensor(float)")
    if len(node.shape) != 2 or isinstance(node.shape[0], int):
        raise ModelError(
            f"{what}: input {name!r} has shape {node.shape}; it must be [any number, {width}]"
        )
    if node.shape[1] != width:
        raise ModelError(
            f"{what}: input {name!r} has width {node.shape[1]}, the vector has {width} features"
        )
    return name


def _check_output(session: Any, what: str, name: str) -> str:
    outputs = {node.name: node for node in session.get_outputs()}
    if name not in outputs:
        raise ModelError(f"{what} has no output {name!r}{did_you_mean(name, outputs)}")
    node = outputs[name]
    if node.type not in _FLOATS:
        raise ModelError(f"{what}: output {name!r} is {node.type}; it must be one of {_FLOATS}")
    shape = list(node.shape)
    if len(shape) not in (1, 2) or isinstance(shape[0], int) or (len(shape) == 2 and shape[1] != 1):
        raise ModelError(f"{what}: output {name!r} has shape {shape}; it must be [n] or [n, 1]")
    return name


def _in_blocks(call: Callable[[Rows], Scores], rows: Rows, *, block_rows: int) -> Scores:
    n, width = rows.shape
    scores = np.empty(n)
    block = np.zeros((block_rows, width), np.float32)
    for at in range(0, n, block_rows):
        part = rows[at : at + block_rows]
        block[: len(part)] = part
        scores[at : at + len(part)] = call(block)[: len(part)]
    return scores


def _edges(forest: Forest, width: int) -> Rows:
    """Return float32[n, F] of thresholds, and of the numbers next to them."""
    rng = np.random.default_rng(20130101)
    rows = rng.normal(size=(_PROBE_ROWS, width)).astype(np.float32)
    for feature, thresholds in forest.thresholds.items():
        rows[:, feature] = rng.choice(thresholds, _PROBE_ROWS)
    beyond = np.float32(np.inf)
    return np.concatenate([rows, np.nextafter(rows, beyond), np.nextafter(rows, -beyond)])


def _probe(width: int) -> Rows:
    """Return float32[n, F] of many magnitudes, some of it missing; the same at each start."""
    rng = np.random.default_rng(20130101)
    probe = rng.normal(size=(_PROBE_ROWS, width)) * 10.0 ** rng.integers(-2, 4, (1, width))
    probe[rng.random(probe.shape) < 0.1] = np.nan
    return probe.astype(np.float32)
