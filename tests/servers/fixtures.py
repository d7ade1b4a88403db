"""pytest fixtures: a real Kafka and a real Redis for the whole run, and names of a test's own.

`STREAM_INFER_TEST_KAFKA=host:port` and `STREAM_INFER_TEST_REDIS=redis://host:port/0` use running
servers instead. A test that stops or kills a server makes one of its own: `Kafka(tmp_path)`.
"""

import itertools
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis as RedisClient

from tests.servers.jars import MissingProgramError
from tests.servers.kafka import Kafka
from tests.servers.redis import DATABASES, Redis

_databases = itertools.cycle(range(1, DATABASES))


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """The run's Kafka. Topics are not created by use: `kafka_server.create_topics({name: n})`."""
    address = os.environ.get("STREAM_INFER_TEST_KAFKA")
    if address:
        yield Kafka.running(address)
        return
    kafka = Kafka(tmp_path_factory.mktemp("kafka"))
    try:
        kafka.start()
    except MissingProgramError as missing:
        # Not a skip: a run without the broker has not tested what matters.
        pytest.exit(str(missing), returncode=1)
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """The run's Redis; what a test writes stays, so use `redis_url` or names made with `unique`."""
    url = os.environ.get("STREAM_INFER_TEST_REDIS")
    if url:
        yield Redis.running(url)
        return
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """Address of a Redis database that no other test of the run uses."""
    return redis_server.database_url(next(_databases))


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    """A client of that database."""
    async with RedisClient.from_url(redis_url) as client:
        yield client


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A name that no other test or run uses: a prefix for topics, groups and topologies."""
    test = re.sub(r"\W+", "_", request.node.name.removeprefix("test_"))[:40].strip("_")
    return f"{test}_{uuid.uuid4().hex[:8]}"
