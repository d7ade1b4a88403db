"""What to read from a Feast store for one feature service: all that a worker needs, without Feast.

Feast costs seconds to import, so the plan is made once (`stream_infer.store.feast_repo`) and kept
in a file beside the registry, for as long as the registry and its configuration stay the same.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_infer.core.errors import DeclarationError
from stream_infer.core.inputs import BatchLayout

FORMAT = 1
CONFIGURATION = "feature_store.yaml"
NUMERIC = frozenset({"DOUBLE", "FLOAT", "INT64", "INT32", "BOOL"})
KEY_TYPES = frozenset({"STRING", "INT64", "INT32"})


class JoinKey(msgspec.Struct, frozen=True):
    """One part of an entity's key: Feast's name, the event field it is read from, Feast's type."""

    name: str
    field: str
    dtype: str


class PlanFeature(msgspec.Struct, frozen=True):
    """A feature's name within its view and its Feast type (`DOUBLE`, `INT64`, ...)."""

    name: str
    dtype: str


class PlanSource(msgspec.Struct, frozen=True):
    """A view's Parquet source: path as declared (relative to the repository) and time column."""

    path: str
    timestamp_field: str


class PlanView(msgspec.Struct, frozen=True):
    """A view of the service: stored `name`, `alias` in vectors, keys in Feast's sorted order.

    `ttl_us` is 0 for no limit. `source` is None where the view's batch source is no Parquet file.
    """

    name: str
    alias: str
    join_keys: tuple[JoinKey, ...]
    features: tuple[PlanFeature, ...]
    ttl_us: int
    source: PlanSource | None = None


class ReadPlan(msgspec.Struct, frozen=True):
    """The views of one feature service, in its order; columns, `alias__feature`, in that order."""

    project: str
    service: str
    views: tuple[PlanView, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F columns."""
        return tuple(f"{view.alias}__{feature.name}" for view, feature in self._features())

    @property
    def fields(self) -> tuple[str, ...]:
        """The event fields that entity keys are read from, each once."""
        return tuple(dict.fromkeys(key.field for view in self.views for key in view.join_keys))

    @property
    def view_of(self) -> NDArray[np.int64]:
        """int64[F]: the view that each column belongs to."""
        counts = [len(view.features) for view in self.views]
        return np.repeat(np.arange(len(self.views)), counts)

    @property
    def ttl_us(self) -> NDArray[np.int64]:
        """int64[V]: each view's time to live, 0 for no limit."""
        return np.array([view.ttl_us for view in self.views], np.int64)

    def layout(self) -> BatchLayout:
        """Return the columns as the core sees them."""
        return BatchLayout(
            feature_names=self.names,
            views=tuple(view.alias for view in self.views),
            view_of_feature=self.view_of,
            ttl_us=self.ttl_us,
            join_fields=tuple(tuple(key.field for key in view.join_keys) for view in self.views),
            join_types=tuple(
                tuple("text" if key.dtype == "STRING" else "whole" for key in view.join_keys)
                for view in self.views
            ),
        )

    def without(self, excluded: Collection[str]) -> "ReadPlan":
        """Return the plan less the columns named; views left without columns are dropped.

        Raises DeclarationError where a name is no column of this service.
        """
        for name in excluded:
            if name not in self.names:
                raise DeclarationError(
                    f"feature service {self.service!r}",
                    f"has no feature {name!r} to exclude",
                    name=name,
                    choices=self.names,
                )
        views = []
        for view in self.views:
            kept = [f for f in view.features if f"{view.alias}__{f.name}" not in excluded]
            if kept:
                views.append(msgspec.structs.replace(view, features=tuple(kept)))
        return msgspec.structs.replace(self, views=tuple(views))

    def checked(self) -> "ReadPlan":
        """Return the plan itself, if models can use every column of it.

        Raises DeclarationError naming the features that are no numbers, or names met twice.
        """
        culprit = f"feature service {self.service!r}"
        others = [
            f"{view.alias}__{feature.name} ({feature.dtype})"
            for view, feature in self._features()
            if feature.dtype not in NUMERIC
        ]
        if others:
            raise DeclarationError(
                culprit,
                f"not numeric: {', '.join(others)}; leave them out of the service or exclude them",
            )
        if len(set(self.names)) < len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise DeclarationError(
                culprit, f"two features are called {', '.join(twice)}; name the views apart"
            )
        return self

    def _features(self) -> Iterator[tuple[PlanView, PlanFeature]]:
        return ((view, feature) for view in self.views for feature in view.features)


class _Stored(msgspec.Struct, frozen=True):
    fingerprint: str
    plan: ReadPlan


def stored_plan(repo: Path, service: str) -> ReadPlan | None:
    """Return the plan kept for a service, or None where there is none or the registry changed.

    Raises DeclarationError where `repo` is no Feast repository.
    """
    registry = registry_path(repo)
    if registry is None or not registry.exists():
        return None
    try:
        stored = msgspec.json.decode(_plan_path(registry, service).read_bytes(), type=_Stored)
    except (OSError, msgspec.MsgspecError):
        return None
    return stored.plan if stored.fingerprint == _fingerprint(repo, registry) else None


def store_plan(repo: Path, plan: ReadPlan) -> None:
    """Keep a plan beside the registry; a registry that is not a local file keeps none."""
    registry = registry_path(repo)
    if registry is None or not registry.exists():
        return
    path = _plan_path(registry, plan.service)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    text = msgspec.json.encode(_Stored(_fingerprint(repo, registry), plan))
    # A directory that cannot be written to only costs the next start its time.
    with suppress(OSError):
        part.write_bytes(text)
        os.replace(part, path)


def configuration(repo: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of `feature_store.yaml` with its variables filled in, and its content.

    Raises DeclarationError where it is absent or is not a mapping.
    """
    import yaml  # Late: of all the reading side only this needs it.

    path = Path(repo) / CONFIGURATION
    try:
        text = os.path.expandvars(path.read_text(encoding="utf-8"))
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DeclarationError(f"Feast repository {repo}", f"{path.name}: {error}") from error
    if not isinstance(content, dict):
        raise DeclarationError(f"Feast repository {repo}", f"{path.name} is not a mapping")
    return text, content


def registry_path(repo: Path) -> Path | None:
    """Where the repository's registry file is; None where its registry is not a local file."""
    declared = configuration(repo)[1].get("registry", "data/registry.db")
    if isinstance(declared, dict):
        if declared.get("registry_type", "file") != "file":
            return None
        declared = declared.get("path", "")
    return None if "://" in str(declared) else Path(repo) / str(declared)


def _plan_path(registry: Path, service: str) -> Path:
    return registry.with_name(f"{registry.stem}.{service}.plan.json")


def _fingerprint(repo: Path, registry: Path) -> str:
    digest = hashlib.sha256(f"{FORMAT}\n{configuration(repo)[0]}\n".encode())
    digest.update(registry.read_bytes())
    return digest.hexdigest()
