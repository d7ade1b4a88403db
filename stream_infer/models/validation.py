"""Trying a model file where it can do no harm: in a child process with limits.

Models are files from elsewhere. Before the service's own process loads one, its bytes are read for
external data (`models.wire`) and a child loads and runs it under limits of memory, time and files.
"""

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stream_infer.core.errors import ModelError
from stream_infer.models.repository import MODEL_BYTES_MAX, ModelArtifact, read_bounded
from stream_infer.models.wire import outline

FEATURES_KEY = "stream_infer.features"
"""Metadata property of an ONNX file: a JSON list of the names of its inputs in order."""

_CHILD = Path(__file__).with_name("validation_child.py")
_ROWS = (1, 2, 1000)


@dataclass(frozen=True, slots=True)
class ValidationLimits:
    """Bounds of the child process."""

    model_bytes_max: int = MODEL_BYTES_MAX
    memory_bytes_max: int = 4 * 1024**3
    cpu_s_max: int = 30
    wall_s_max: float = 60.0


class Tensor(msgspec.Struct, frozen=True):
    """An input or output as the runtime sees it; None or text in `shape` is a free dimension."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file is. `us_per_row` is of its last trial batch; None where none ran."""

    sha256: str
    size_bytes: int
    features: tuple[str, ...] | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: int
    load_ms: float
    us_per_row: float | None


def validate_model(path: Path | str, limits: ValidationLimits | None = None) -> ModelReport:
    """Return what the model file is; raises ModelError, saying why, when it must not be loaded."""
    limits = limits or ValidationLimits()
    what = f"model file {str(path)!r}"
    return validate_content(read_bounded(Path(path), limits.model_bytes_max, what), what, limits)


def validate_content(content: bytes, what: str, limits: ValidationLimits) -> ModelReport:
    """Return what a model file's bytes are; `what` names them in errors."""
    seen = outline(content, what)
    found = _run_child(content, what, limits)
    if "error" in found:
        raise ModelError(f"{what} cannot be loaded: {found['error']}")
    return ModelReport(
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        features=features_in(seen.metadata, what),
        inputs=_tensors(found["inputs"]),
        outputs=_tensors(found["outputs"]),
        nodes=seen.nodes,
        load_ms=found["load_ms"],
        us_per_row=found.get("us_per_row"),
    )


def features_in(metadata: dict[str, str], what: str) -> tuple[str, ...] | None:
    """Return the inputs' names that a file's metadata gives, None where it gives none."""
    text = metadata.get(FEATURES_KEY)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except msgspec.MsgspecError as error:
        raise ModelError(f"{what}: metadata {FEATURES_KEY} is no list of names: {error}") from error


class Validator:
    """Validates each checksum once; `seen` is a folder where that is remembered, None: nowhere.

    Whoever can write to `seen` can also pass a file for validated: it belongs to those who may
    write the repository itself.
    """

    def __init__(self, seen: Path | None, limits: ValidationLimits | None = None) -> None:
        self.seen = seen
        self.limits = limits or ValidationLimits()

    def ensure(self, artifact: ModelArtifact) -> None:
        """Raise ModelError when the artifact must not be loaded into this process."""
        import onnxruntime  # late: half a second that listing models does not need

        manifest = artifact.manifest
        name = f"{manifest.sha256}-{onnxruntime.__version__}.json"
        if self.seen is not None and (self.seen / name).exists():
            return
        what = f"model {manifest.model!r} version {manifest.version}"
        report = validate_content(artifact.content, what, self.limits)
        if self.seen is not None:
            # A repository that cannot be written is validated at each start instead.
            with contextlib.suppress(OSError):
                self.seen.mkdir(parents=True, exist_ok=True)
                (self.seen / name).write_bytes(msgspec.json.encode(report))


def _run_child(content: bytes, what: str, limits: ValidationLimits) -> dict[str, Any]:
    request = {
        "path": sys.path,
        "memory_bytes_max": limits.memory_bytes_max,
        "cpu_s_max": limits.cpu_s_max,
        "rows": _ROWS,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_CHILD)],
            input=json.dumps(request).encode() + b"\n" + content,
            capture_output=True,
            timeout=limits.wall_s_max,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{what} was not loaded and tried within {limits.wall_s_max} s") from None
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        end = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise ModelError(
            f"{what} ended the process that tried it ({end}); it needs more than "
            f"{limits.memory_bytes_max} bytes of memory or {limits.cpu_s_max} s, or breaks the "
            "runtime"
        ) from None
    return found


def _tensors(found: Sequence[Sequence[Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, kind, tuple(shape)) for name, kind, shape in found)
