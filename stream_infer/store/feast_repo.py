"""A Feast repository, through Feast itself: apply its definitions, materialise, make read plans.

Feast is imported inside the functions here and nowhere else: importing it takes seconds, and a
worker whose plan is stored does without.
"""

import contextlib
import importlib.util
import io
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from stream_infer.core.errors import DeclarationError, SettingsError
from stream_infer.store.connection import cluster_address, is_cluster
from stream_infer.store.feast_plan import (
    KEY_TYPES,
    JoinKey,
    PlanFeature,
    PlanSource,
    PlanView,
    ReadPlan,
    configuration,
    store_plan,
    stored_plan,
)

Progress = Callable[[str, float], None]
"""Called with what is being done and the part of it that is done, 0 to 1."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = 1_000_000


def load_plan(repo: Path, service: str, exclude: Collection[str] = ()) -> ReadPlan:
    """Return the read plan of a feature service, from its file or else through Feast.

    `exclude` names columns (`alias__feature`) to leave out. Raises DeclarationError where the
    repository or service does not exist, or the service has what cannot be read: on-demand views,
    features that are no numbers, keys of unusual types.
    """
    plan = stored_plan(repo, service)
    if plan is None:
        plan = _plan_of(_store(repo), Path(repo), service)
        store_plan(repo, plan)
    return plan.without(exclude).checked()


def apply(repo: Path, redis_url: str | None = None) -> list[str]:
    """Make the registry hold what the repository defines; returns the names of its services."""
    with _quietly():
        return _apply(_store(repo, redis_url), Path(repo))


def apply_and_materialize(
    repo: Path,
    end: datetime,
    redis_url: str | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Apply the repository, write each view's latest rows up to `end` to Redis, keep the plans.

    `redis_url` (`redis://...`) replaces the address in `feature_store.yaml`. Rows past their time
    to live are written too: readers judge age by the event. Returns the names of the views.
    Feast's own output is withheld, for the whole process while this runs. Raises SettingsError
    where nothing answers at the address.
    """
    report = progress or (lambda stage, part: None)
    report("loading Feast", 0.0)
    store = _store(repo, redis_url)
    _require_answer(store.config.online_store.connection_string)
    report("applying the feature repository", 0.1)
    with _quietly():
        services = _apply(store, Path(repo))
    views = [view.name for view in store.list_feature_views() if view.online]
    for done, view in enumerate(views):
        report(f"materialising {view}", 0.2 + 0.8 * done / len(views))
        with _quietly():
            store.materialize(EPOCH, end, feature_views=[view])
    store.refresh_registry()
    for service in services:
        # A service that cannot be read is reported to whom asks for it, not to whom applies.
        with contextlib.suppress(DeclarationError):
            store_plan(repo, _plan_of(store, Path(repo), service))
    report("features ready", 1.0)
    return tuple(views)


def connection_string(redis_url: str) -> str:
    """Return Feast's spelling of a Redis URL.

    >>> connection_string("redis://:secret@127.0.0.1:6380/2")
    '127.0.0.1:6380,db=2,password=secret'
    >>> connection_string("redis+cluster://127.0.0.1:7000,127.0.0.1:7001")
    '127.0.0.1:7000,127.0.0.1:7001'

    Raises SettingsError for other schemes, and where Feast has no spelling for the password.
    """
    if is_cluster(redis_url):
        address = cluster_address(redis_url)
        pieces = [f"{host}:{port}" for host, port in address.nodes]
        login, tls = (address.username, address.password), address.tls
    else:
        parts = urlsplit(redis_url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise SettingsError("Redis URL: write redis://[user:password@]host[:port][/database]")
        pieces = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
        login = unquote(parts.username or "") or None, unquote(parts.password or "") or None
        tls = parts.scheme == "rediss"
    for name, value in zip(("username", "password"), login, strict=True):
        if value and "," in value:
            raise SettingsError(f"Redis URL: Feast cannot be given a {name} with a comma")
        if value:
            pieces.append(f"{name}={value}")
    if tls:
        pieces.append("ssl=true")
    return ",".join(pieces)


def _require_answer(connection: str) -> None:
    """Feast would try for a quarter of a minute, and end in a trace."""
    places = [piece for piece in connection.split(",") if "=" not in piece]
    problem = ""
    for place in places:
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            problem = problem or f"no answer at {place}: {error}"
        else:
            return
    raise SettingsError(f"Redis for features: {problem}")


def _store(repo: Path, redis_url: str | None = None) -> Any:
    content = configuration(repo)[1]
    online = content.get("online_store")
    if not isinstance(online, dict) or online.get("type") != "redis":
        raise DeclarationError(f"Feast repository {repo}", "its online store must be of type redis")
    import feast

    store = feast.FeatureStore(repo_path=str(repo))
    if store.config.entity_key_serialization_version != 3:
        raise DeclarationError(
            f"Feast repository {repo}", "set entity_key_serialization_version: 3"
        )
    if redis_url is not None:
        online_store = store.config.online_store
        online_store.connection_string = connection_string(redis_url)
        online_store.redis_type = "redis_cluster" if is_cluster(redis_url) else "redis"
    return store


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Feast prints to standard output and draws its own bars: neither may mix with ours."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _apply(store: Any, repo: Path) -> list[str]:
    defined = list(_definitions(repo))
    names = {(type(item).__name__, item.name) for item in defined}
    listed = [
        *store.list_feature_services(),
        *store.list_all_feature_views(),
        *(entity for entity in store.list_entities() if not entity.name.startswith("__dummy")),
    ]
    gone = [item for item in listed if (type(item).__name__, item.name) not in names]
    store.apply(defined, objects_to_delete=gone, partial=False)
    return [service.name for service in store.list_feature_services()]


def _definitions(repo: Path) -> Iterable[Any]:
    """Every Feast object at the top of the repository's files, each once."""
    from feast import Entity, FeatureService, Project
    from feast.base_feature_view import BaseFeatureView
    from feast.data_source import DataSource
    from feast.repo_operations import get_repo_files

    kinds = (Project, Entity, DataSource, BaseFeatureView, FeatureService)
    found: dict[int, Any] = {}
    sys.path.insert(0, str(repo))
    try:
        for path in get_repo_files(Path(repo).resolve()):
            # Feast's own loader wants the repository as the working directory.
            spec = importlib.util.spec_from_file_location(f"feast_repository_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            found.update((id(x), x) for x in vars(module).values() if isinstance(x, kinds))
    finally:
        sys.path.remove(str(repo))
    return found.values()


def _plan_of(store: Any, repo: Path, name: str) -> ReadPlan:
    from feast import FeatureView, OnDemandFeatureView

    culprit = f"feature service {name!r}"
    services = {service.name: service for service in store.list_feature_services()}
    if name not in services:
        hint = "" if services else " (nothing is applied yet: `stream-infer features materialize`)"
        raise DeclarationError(culprit, f"unknown in {repo}{hint}", name=name, choices=services)
    views = []
    for projection in services[name].feature_view_projections:
        view = store.registry.get_any_feature_view(projection.name, store.project)
        if isinstance(view, OnDemandFeatureView):
            raise DeclarationError(
                culprit,
                f"on-demand view {view.name!r} runs code from the registry and is refused; "
                "compute it in a batch view or in the model",
            )
        if not isinstance(view, FeatureView):
            raise DeclarationError(culprit, f"view {view.name!r} is of a kind that is not served")
        views.append(_view_plan(store, culprit, projection, view))
    return ReadPlan(project=store.project, service=name, views=tuple(views))


def _view_plan(store: Any, culprit: str, projection: Any, view: Any) -> PlanView:
    from feast.infra.online_stores.helpers import compute_versioned_name

    types = {column.name: column.dtype.to_value_type().name for column in view.entity_columns}
    keys = []
    for key in sorted(view.join_keys):
        dtype = types.get(key, "UNKNOWN")
        if dtype not in KEY_TYPES:
            raise DeclarationError(
                culprit, f"view {view.name!r}: join key {key!r} of type {dtype} is not supported"
            )
        keys.append(JoinKey(key, projection.join_key_map.get(key, key), dtype))
    ttl_us = 0 if view.ttl is None else round(view.ttl.total_seconds() * MICROSECOND)
    versioned = store.config.registry.enable_online_feature_view_versioning
    return PlanView(
        name=compute_versioned_name(view, versioned),
        alias=projection.name_to_use(),
        join_keys=tuple(keys),
        features=tuple(
            PlanFeature(feature.name, feature.dtype.to_value_type().name)
            for feature in projection.features
        ),
        ttl_us=ttl_us,
        source=_source_plan(view.batch_source),
    )


def _source_plan(source: Any) -> PlanSource | None:
    from feast import FileSource

    if not isinstance(source, FileSource) or source.field_mapping:
        return None
    return PlanSource(source.path, source.timestamp_field)
