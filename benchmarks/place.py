"""Where benchmarks run: a real Kafka and a real Redis on this machine, and a folder."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from redis import Redis as RedisClient

from benchmarks import batch_features
from benchmarks.models import save_models
from benchmarks.standard import by_account
from stream_infer.processes import wait_until
from stream_infer.store.feast_plan import ReadPlan
from tests.servers.kafka import Kafka
from tests.servers.redis import Redis

PARTITIONS = 4
REWRITE_MAX_S = 120.0
ROOT = Path(__file__).parents[1]
# As Kafka's own start script has them: a broker at its full speed, unlike that of the tests.
_JVM = [
    "-server",
    "-Xms1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
]


@dataclass
class Place:
    """Servers, batch features of accounts up to `accounts`, and the models of the standard job."""

    kafka: Kafka
    redis: Redis
    folder: Path
    redis_url: str
    accounts: int = 0
    _plan: ReadPlan | None = None

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator["Place"]:
        """Servers of this run's own."""
        with ExitStack() as stack:
            kafka = Kafka(folder / "kafka", heap="1g", jvm=_JVM)
            stack.callback(kafka.stop)
            # Its file is rewritten between measurements, never during one.
            redis = Redis(folder / "redis", options={"auto-aof-rewrite-percentage": "0"})
            stack.callback(redis.stop)
            yield cls(kafka.start(), redis.start(), folder, redis.url)

    @property
    def repo(self) -> Path:
        """The Feast repository, which the topology finds from the folder."""
        return self.folder / "benchmarks" / "features"

    @property
    def models(self) -> Path:
        """The model repository."""
        return self.folder / "models"

    def plan(self, accounts: int) -> ReadPlan:
        """Return the read plan, once the batch features of that many accounts are in Redis."""
        # Of yesterday: no event is older than its batch features.
        yesterday = datetime.now(UTC) - timedelta(days=1)
        if self._plan is None:
            self.accounts = max(accounts, batch_features.BY_FEAST)
            self._plan = batch_features.prepare(
                self.repo, self.redis_url, self.accounts, yesterday.replace(microsecond=0)
            )
        if accounts > self.accounts:
            with RedisClient.from_url(self.redis_url) as redis:
                batch_features.write_rows(redis, self._plan, self.accounts, accounts, yesterday)
            self.accounts = accounts
        return self._plan

    def job(self, accounts: int) -> str:
        """Make topics and models of a new topology of its own; return its name."""
        plan = self.plan(accounts)
        name = f"standard_{uuid.uuid4().hex[:8]}"
        save_models(self.models, name, vector_names(plan))
        kinds = ("predictions", "dead_letters")
        self.create({f"{name}.{kind}": PARTITIONS for kind in kinds})
        return name

    def create(self, topics: Mapping[str, int]) -> None:
        """Create topics that keep everything."""
        self.kafka.create_topics(topics, **{"retention.ms": "-1"})

    def forget(self, name: str) -> None:
        """Remove the topics and the stored state of a topology."""
        mine = [topic for topic in self.kafka.topics() if topic.startswith(f"{name}.")]
        if mine:
            self.kafka.delete_topics(mine)
        with RedisClient.from_url(self.redis_url) as redis:
            found: list[bytes] = []
            for key in redis.scan_iter(match=f"si:{{{name}:*", count=10_000):
                found.append(key)
                if len(found) == 10_000:
                    redis.unlink(*found)
                    found.clear()
            if found:
                redis.unlink(*found)
            if self.redis.owned:
                redis.bgrewriteaof()
                wait_until(
                    lambda: not redis.info("persistence")["aof_rewrite_in_progress"],
                    timeout_s=REWRITE_MAX_S,
                    interval_s=0.05,
                )

    def records(self, topic: str) -> int:
        """Records that a topic has."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "unused"})
        try:
            ends = [
                consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
                for number in range(PARTITIONS)
            ]
        finally:
            consumer.close()
        return sum(high - low for low, high in ends)

    def redis_bytes(self) -> int:
        """Memory that Redis uses for its data."""
        with RedisClient.from_url(self.redis_url) as redis:
            return int(redis.info("memory")["used_memory_dataset"])

    @property
    def kafka_pid(self) -> int | None:
        """Process id of Kafka, where it is ours."""
        return self.kafka.pid if self.kafka.owned else None

    @property
    def redis_pid(self) -> int | None:
        """Process id of Redis, where it is ours."""
        if not self.redis.owned:
            return None
        with RedisClient.from_url(self.redis_url) as redis:
            return int(redis.info("server")["process_id"])


def vector_names(plan: ReadPlan) -> tuple[str, ...]:
    """The models' fourteen inputs, in the topology's order."""
    return ("amount", "items", *by_account.feature_names, *plan.names)
