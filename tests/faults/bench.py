"""The servers that scenarios share."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis as RedisClient

from tests.servers.kafka import Kafka
from tests.servers.redis import Redis


class Bench:
    """The servers that scenarios share; those that a scenario stops, it starts again."""

    away_s = 10.0
    """How long a server stays away."""
    steady_s = 60.0
    """How long the steady load lasts."""

    def __init__(self, kafka: Kafka, redis: Redis, directory: Path) -> None:
        self.kafka = kafka
        self.redis = redis
        self.directory = directory
        self.models = directory / "models"

    @classmethod
    @contextmanager
    def started(cls, directory: Path) -> Iterator["Bench"]:
        """Servers of this battery's own."""
        with ExitStack() as stack:
            kafka = Kafka(directory / "kafka")
            stack.callback(kafka.stop)
            # A file that is never rewritten can be set back to what it was.
            redis = Redis(directory / "redis", options={"auto-aof-rewrite-percentage": "0"})
            stack.callback(redis.stop)
            yield cls(kafka.start(), redis.start(), directory)

    def restore(self) -> None:
        """Start what a scenario left stopped."""
        if self.kafka.owned:
            self.kafka.start()
        if self.redis.owned:
            self.redis.start()

    def forget(self) -> None:
        """Remove all rows, so that many scenarios need no more memory than one."""
        with RedisClient.from_url(self.redis.url) as redis:
            redis.flushall()
            redis.bgrewriteaof()
