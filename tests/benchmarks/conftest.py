"""Servers of the run, the standard job's features and models on them: made once for all tests."""

import pytest

from benchmarks.place import Place
from tests.servers.kafka import Kafka
from tests.servers.redis import DATABASES, Redis


@pytest.fixture(scope="session")
def place(
    kafka_server: Kafka, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """Few accounts, on the servers that the other tests use too."""
    folder = tmp_path_factory.mktemp("benchmarks")
    return Place(kafka_server, redis_server, folder, redis_server.database_url(DATABASES - 100))
