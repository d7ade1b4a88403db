"""What the routes work with: each topology's scorer and store, and what the server shares."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, cast

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import RedisError

from stream_infer.core.stream import Stream
from stream_infer.core.topology import Topology
from stream_infer.monitoring.exposition import StreamInferCollector, registry
from stream_infer.monitoring.metrics import HttpMetrics
from stream_infer.serving.batcher import Batcher
from stream_infer.serving.bodies import Body
from stream_infer.serving.errors import NotFoundError
from stream_infer.serving.following import ResultReader, result_topics
from stream_infer.serving.limits import (
    BATCH_EVENTS_MAX,
    CHECK_TIMEOUT_S,
    LIVE_QUEUE_EVENTS_MAX,
    PARTITIONS_REFRESH_S,
    WAITING_EVENTS_MAX,
)
from stream_infer.serving.live import Hub
from stream_infer.serving.publishing import Published, Publisher
from stream_infer.serving.scoring import Scorer
from stream_infer.settings import Settings
from stream_infer.store.connection import UNREACHABLE, connect
from stream_infer.store.key_feed import KeyFeed
from stream_infer.store.state import StateStore, partition_prefix
from stream_infer.stream.rekeyed_reader import RekeyedReader
from stream_infer.stream.runtime import Runtime

log = logging.getLogger("stream_infer.serving")
REDIS_CONNECTIONS_MAX = 32


class Publishes(Protocol):
    """What publishes events (`serving.publishing.Publisher`)."""

    async def publish(
        self, stream: Stream, keys: Sequence[str | None], values: Sequence[bytes]
    ) -> list[Published]: ...
    async def close(self) -> None: ...


class Follows(Protocol):
    """What follows the result topics (`serving.following.ResultReader`)."""

    @property
    def problem(self) -> str | None: ...
    async def run(self) -> None: ...


@dataclass
class Served:
    """One topology as it is served."""

    runtime: Runtime
    scorer: Scorer
    batcher: Batcher[Body, list[bytes]]
    store: StateStore
    feed: KeyFeed | None = None

    @property
    def topology(self) -> Topology:
        """Its declaration."""
        return self.runtime.topology


@dataclass
class Services:
    """Everything of one server; `running` starts and ends what works in the background."""

    settings: Settings
    redis: Redis
    served: dict[str, Served]
    hub: Hub
    reader: Follows
    publisher: Publishes
    metrics: HttpMetrics
    registry: CollectorRegistry
    warm: bool = False

    def topology(self, name: str) -> Served:
        """Return a topology by name; raises NotFoundError, naming the nearest."""
        if name not in self.served:
            raise NotFoundError.named("topology", name, tuple(self.served), "path")
        return self.served[name]

    def stream(self, name: str) -> Served:
        """Return a topology that reads a stream; raises NotFoundError, naming the nearest."""
        by_stream = {
            stream.name: one for one in self.served.values() for stream in one.topology.streams
        }
        if name not in by_stream:
            raise NotFoundError.named("stream", name, tuple(by_stream), "path")
        return by_stream[name]

    async def ready(self) -> dict[str, str | None]:
        """Return what is wrong with each thing that answers depend on, None where it is well."""
        redis = None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await cast(Awaitable[bool], self.redis.ping())
        except (RedisError, *UNREACHABLE) as error:
            redis = f"does not answer ({type(error).__name__})"
        return {
            "redis": redis,
            "models": None if self.warm else "not warm yet",
            "follower": self.reader.problem,
        }

    def warm_up(self) -> None:
        """Run every model once, so that the first caller does not wait for that."""
        for one in self.served.values():
            one.scorer.warm_up()
        self.warm = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow results, sum them up, and keep the numbers of partitions current."""
        work = (self.reader.run(), self._tick(), self._watch_partitions())
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        feeds = [one.feed for one in self.served.values() if one.feed is not None]
        for feed in feeds:
            feed.start()
        try:
            yield
        finally:
            self.hub.close()
            await _end(tasks)
            for feed in feeds:
                await feed.close()
            await self.publisher.close()
            for one in self.served.values():
                one.scorer.close()
            await self.redis.aclose()

    async def refresh_partitions(self) -> None:
        """Take over the partition counts and schemas that the stored state was made with."""
        for name, one in self.served.items():
            key = partition_prefix(name, 0) + "meta"
            asked = self.redis.hmget(key, ["partitions", "schema"])
            stored, schema = await cast(Awaitable[list[bytes | None]], asked)
            one.scorer.stored_schema = None if schema is None else schema.decode()
            if stored is not None and int(stored) != one.scorer.partitions:
                one.scorer.partitions = int(stored)
                one.store = StateStore(self.redis, name, "", int(stored))
            if one.scorer.rekeyed is not None:
                await self._refresh_rekeyed(one.topology, one.scorer, one.scorer.rekeyed)

    async def _refresh_rekeyed(
        self, topology: Topology, scorer: Scorer, reader: RekeyedReader
    ) -> None:
        key = partition_prefix(topology.rekeyed_events, 0) + "meta"
        asked = self.redis.hmget(key, ["partitions", "schema"])
        stored, schema = await cast(Awaitable[list[bytes | None]], asked)
        scorer.stored_rekeyed_schema = None if schema is None else schema.decode()
        if stored is not None:
            reader.partitions = int(stored)

    async def _watch_partitions(self) -> None:
        problem = False
        while True:
            try:
                await self.refresh_partitions()
                if problem:
                    log.info("Redis answers again")
                problem = False
            except (RedisError, *UNREACHABLE) as error:
                if not problem:
                    log.warning("Redis does not answer (%s); trying again", type(error).__name__)
                problem = True
            await asyncio.sleep(PARTITIONS_REFRESH_S)

    async def _tick(self) -> None:
        while True:
            await self.hub.someone()
            await asyncio.sleep(1.0)
            self.hub.tick()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end: a client library may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)


def build_services(
    runtimes: Sequence[Runtime],
    settings: Settings,
    *,
    publisher: Publishes | None = None,
    reader: Follows | None = None,
) -> Services:
    """Put a server's parts together; nothing connects yet."""
    redis = connect(
        settings.redis,
        timeout_s=settings.request_timeout_s,
        retries=1,
        connections_max=REDIS_CONNECTIONS_MAX,
    )
    metrics = HttpMetrics()
    hub = Hub(
        tuple(runtime.topology.name for runtime in runtimes),
        clients_max=settings.sse_clients_max,
        queue_max=LIVE_QUEUE_EVENTS_MAX,
        metrics=metrics,
    )
    topics = result_topics(runtime.topology for runtime in runtimes)
    return Services(
        settings=settings,
        redis=redis,
        served={
            runtime.topology.name: _served(runtime, redis, settings, metrics)
            for runtime in runtimes
        },
        hub=hub,
        reader=reader or ResultReader(topics, settings, hub),
        publisher=publisher or Publisher(settings),
        metrics=metrics,
        registry=registry(StreamInferCollector(http=metrics)),
    )


def _served(runtime: Runtime, redis: Redis, settings: Settings, metrics: HttpMetrics) -> Served:
    reader = runtime.reader(settings)
    scorer = Scorer(
        runtime,
        redis,
        settings.partitions,
        timeout_s=settings.request_timeout_s,
        reader=reader,
        metrics=metrics,
    )
    batcher = Batcher[Body, list[bytes]](
        scorer.predict,
        lambda body: len(body.events),
        batch_max=BATCH_EVENTS_MAX,
        waiting_max=WAITING_EVENTS_MAX,
        wait_max_s=settings.http_wait_max_ms / 1e3,
        timeout_s=settings.request_timeout_s,
    )
    store = StateStore(redis, runtime.topology.name, "", settings.partitions)
    return Served(runtime, scorer, batcher, store, runtime.feed(reader, redis, settings))
