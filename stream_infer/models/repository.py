"""The model repository: versions of ONNX models on disk, each with its manifest and checksum.

`ROOT/TOPOLOGY/MODEL/VERSION/{model.onnx,manifest.json}` and `ROOT/TOPOLOGY/ensemble.json`. A
version is a whole number, never changed once it is there; the highest is the latest.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from stream_infer.core.errors import ModelError, did_you_mean
from stream_infer.models.manifest import Ensemble, Manifest

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
ENSEMBLE_FILE = "ensemble.json"
MODEL_BYTES_MAX = 64 * 1024 * 1024
_JSON_BYTES_MAX = 4 * 1024 * 1024
# No dots and no separators: a name never leaves its folder, nor meets a file or a hidden folder.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelArtifact:
    """The bytes of a model, whose checksum is the manifest's, and where they came from."""

    manifest: Manifest
    content: bytes
    path: Path


class ModelRepository:
    """Reads and writes models below `root`; nothing is read at construction."""

    def __init__(self, root: Path | str, *, model_bytes_max: int = MODEL_BYTES_MAX) -> None:
        self.root = Path(root)
        self.model_bytes_max = model_bytes_max

    def models(self, topology: str) -> list[str]:
        """Return the names of a topology's models that have a version."""
        return sorted(
            name
            for name in _entries(self._topology(topology), _NAME)
            if self.versions(topology, name)
        )

    def versions(self, topology: str, model: str) -> list[int]:
        """Return the versions of a model, ascending; empty where there is none."""
        return sorted(int(name) for name in _entries(self._model(topology, model), _VERSION))

    def resolve(self, topology: str, model: str, version: int | None = None) -> int:
        """Return `version`, or the latest for None; raises ModelError when it is not there."""
        versions = self.versions(topology, model)
        if not versions:
            raise ModelError(
                f"model {model!r} of topology {topology!r} has no version in {self.root}; "
                f"train it first{did_you_mean(model, self.models(topology))}"
            )
        if version is None:
            return versions[-1]
        if version not in versions:
            known = ", ".join(map(str, versions))
            raise ModelError(f"model {model!r} has no version {version}; there are: {known}")
        return version

    def load(self, topology: str, model: str, version: int | None = None) -> ModelArtifact:
        """Return a version of a model (None: the latest), its checksum verified.

        Raises ModelError when it is missing, larger than `model_bytes_max`, or damaged.
        """
        number = self.resolve(topology, model, version)
        folder = self._model(topology, model) / str(number)
        what = f"model {model!r} version {number}"
        manifest = _read_json(folder / MANIFEST_FILE, Manifest, what)
        if (manifest.model, manifest.version) != (model, number):
            raise ModelError(
                f"{what}: its manifest is of {manifest.model!r} version {manifest.version}"
            )
        path = folder / MODEL_FILE
        content = read_bounded(path, self.model_bytes_max, what)
        found = hashlib.sha256(content).hexdigest()
        if found != manifest.sha256:
            raise ModelError(
                f"{what}: {path} has checksum {found[:12]}…, its manifest says "
                f"{manifest.sha256[:12]}…; the file was changed or damaged, store it again"
            )
        return ModelArtifact(manifest, content, path)

    def save(
        self, topology: str, model: str, content: bytes, manifest: Callable[[int, str], Manifest]
    ) -> ModelArtifact:
        """Store a new version, whole or not at all; `manifest(version, sha256)` describes it.

        Raises ModelError when `content` is larger than `model_bytes_max`.
        """
        if len(content) > self.model_bytes_max:
            raise ModelError(_too_large(f"model {model!r}", len(content), self.model_bytes_max))
        parent = self._model(topology, model)
        parent.mkdir(parents=True, exist_ok=True)
        sha256 = hashlib.sha256(content).hexdigest()
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
        try:
            staging.chmod(0o755)
            _write(staging / MODEL_FILE, content)
            version = max(self.versions(topology, model), default=0)
            while True:
                version += 1
                described = manifest(version, sha256)
                _write(staging / MANIFEST_FILE, _json(described))
                _sync_folder(staging)
                try:
                    # Onto a folder that is not empty this fails: somebody else took the number.
                    staging.rename(parent / str(version))
                except OSError:
                    if not (parent / str(version)).exists():
                        raise
                    continue
                break
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        _sync_folder(parent)
        return ModelArtifact(described, content, parent / str(version) / MODEL_FILE)

    def ensemble(self, topology: str) -> Ensemble:
        """Return the topology's ensemble; raises ModelError when it was never trained."""
        path = self._topology(topology) / ENSEMBLE_FILE
        what = f"ensemble of topology {topology!r}"
        if not path.exists():
            raise ModelError(f"{what} is not in {self.root}; train it first")
        return _read_json(path, Ensemble, what)

    def save_ensemble(self, topology: str, ensemble: Ensemble) -> None:
        """Replace the topology's ensemble in one step."""
        folder = self._topology(topology)
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=folder)
        os.close(handle)
        try:
            _write(Path(name), _json(ensemble))
            Path(name).chmod(0o644)
            Path(name).replace(folder / ENSEMBLE_FILE)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(folder)

    def _topology(self, topology: str) -> Path:
        return self.root / _checked(topology, "topology")

    def _model(self, topology: str, model: str) -> Path:
        return self._topology(topology) / _checked(model, "model")


def read_bounded(path: Path, bytes_max: int, what: str) -> bytes:
    """Return a file's bytes; raises ModelError when it is missing or has more than `bytes_max`."""
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
            if len(content) > bytes_max:
                size = os.fstat(file.fileno()).st_size
                raise ModelError(_too_large(what, size, bytes_max))
    except OSError as error:
        raise ModelError(f"{what}: cannot read {path}: {error.strerror}") from error
    return content


def _too_large(what: str, size: int, bytes_max: int) -> str:
    return f"{what} has {size} bytes, above the limit model_bytes_max = {bytes_max}"


def _checked(name: str, kind: str) -> str:
    if not _NAME.fullmatch(name):
        raise ModelError(f"{kind} name {name!r} may only have letters, digits, '_' and '-'")
    return name


def _entries(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    if not folder.is_dir():
        return []
    return [
        entry.name for entry in folder.iterdir() if entry.is_dir() and pattern.fullmatch(entry.name)
    ]


def _read_json(path: Path, kind: type[T], what: str) -> T:
    content = read_bounded(path, _JSON_BYTES_MAX, what)
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ModelError(f"{what}: {path} is not valid: {error}") from error


def _json(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
