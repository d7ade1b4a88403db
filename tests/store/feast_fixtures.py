"""The repository of all types, applied and materialised into the run's Redis once."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stream_infer.store.feast_plan import ReadPlan
from stream_infer.store.feast_repo import _store, apply_and_materialize, load_plan
from tests.servers.redis import DATABASES, Redis
from tests.store.feast_types import DAYS, write_repository

_databases = itertools.count(DATABASES - 1, -1)


@dataclass(frozen=True)
class TypesStore:
    """An applied repository, the address of its Redis, and Feast's own store on both."""

    repo: Path
    redis_url: str
    feast: Any

    @property
    def plan(self) -> ReadPlan:
        """All of the service but its text."""
        return load_plan(self.repo, "everything", exclude=["users__text"])


@pytest.fixture(scope="module")
def types_store(
    tmp_path_factory: pytest.TempPathFactory, redis_server: Redis
) -> Iterator[TypesStore]:
    """Materialised up to the third of the three snapshots."""
    repo = write_repository(tmp_path_factory.mktemp("feast") / "repo")
    url = redis_server.database_url(next(_databases))
    apply_and_materialize(repo, DAYS[2], url)
    store = _store(repo, url)
    yield TypesStore(repo, url, store)
    store.teardown()
