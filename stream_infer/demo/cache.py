"""Remembering what was prepared, and from what, so that a second start skips it."""

import hashlib
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec


def fingerprint(paths: Iterable[Path], libraries: Iterable[str] = (), *more: str) -> str:
    """Return a digest of files (folders: their Python files), versions of libraries, and texts."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            digest.update(f"{file.name}\0".encode())
            digest.update(file.read_bytes())
    for name in libraries:
        digest.update(f"{name}={version(name)}\0".encode())
    for text in more:
        digest.update(f"{text}\0".encode())
    return digest.hexdigest()[:20]


class Stamps:
    """What each step was made from (`value` a fingerprint) with what it found, in one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict)
        except (OSError, msgspec.MsgspecError):
            self._known = {}

    def get(self, step: str, made_from: str) -> Any:
        """Return what the step found, None where it was not made, or from something else."""
        known = self._known.get(step, {})
        return known.get("found") if known.get("made_from") == made_from else None

    def put(self, step: str, made_from: str, found: Any) -> None:
        """Remember that the step was made; written at once and whole."""
        self._known[step] = {"made_from": made_from, "found": found}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(self._known)))
        os.replace(part, self._path)
