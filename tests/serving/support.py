"""A server of the shop topology on a real Redis, with doubles for Kafka's side."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import httpx
import msgspec

from stream_infer.core.stream import Stream
from stream_infer.core.topology import Topology
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.serving.app import create_app
from stream_infer.serving.direct import Direct
from stream_infer.serving.protocol import Config
from stream_infer.serving.publishing import Published
from stream_infer.serving.server import bind, make_server
from stream_infer.serving.services import Services, build_services
from stream_infer.settings import Settings
from stream_infer.store.connection import connect
from stream_infer.store.state import StateStore
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.processing import TP, OutgoingRecord, one_by_one
from stream_infer.stream.processor import TopologyProcessor
from stream_infer.stream.runtime import Runtime
from tests.laws.shop import T0_US, Record, shop_runtime, shop_topology

PARTITIONS = 4


@dataclass
class FakePublisher:
    """Acknowledges events as Kafka would, or raises what it is told to."""

    published: list[tuple[str, str | None, bytes]] = field(default_factory=list)
    error: Exception | None = None

    async def publish(
        self, stream: Stream, keys: Sequence[str | None], values: Sequence[bytes]
    ) -> list[Published]:
        if self.error is not None:
            raise self.error
        start = len(self.published)
        for key, value in zip(keys, values, strict=True):
            self.published.append((stream.name, key, value))
        return [Published(stream.name, 0, start + i) for i in range(len(values))]

    async def close(self) -> None:
        pass


@dataclass
class FakeReader:
    """Stands for the follower of result topics: a test publishes to the hub itself."""

    problem: str | None = None

    async def run(self) -> None:
        await asyncio.Event().wait()


def event(kind: str = "sale", **changes: Any) -> dict[str, Any]:
    """Return an acceptable event as JSON types."""
    values: dict[str, Any] = {
        "type": kind,
        "sale_id": "s-1",
        "shop": "a",
        "item": "x",
        "at": datetime.fromtimestamp(T0_US / 1e6, UTC).isoformat(),
        **({"amount": 12.0} if kind == "sale" else {"refunded": 3.0}),
        **changes,
    }
    return {name: value for name, value in values.items() if value is not ...}


def shop_services(
    name: str, redis_url: str, *, runtime: Any = None, **settings: Any
) -> tuple[Services, FakePublisher, FakeReader]:
    """Return the services of a shop topology, its models warm."""
    publisher, reader = FakePublisher(), FakeReader()
    values = {"redis": redis_url, "partitions": PARTITIONS, "request_timeout_s": 5.0}
    values |= {"http_wait_max_ms": 60_000, **settings}  # a busy machine is no reason to refuse
    services = build_services(
        [runtime or shop_runtime(shop_topology(name))],
        Settings(**values),
        publisher=publisher,
        reader=reader,
    )
    services.warm_up()
    return services, publisher, reader


@asynccontextmanager
async def client_of(services: Services, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client that calls the application without a network."""
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
    async with (
        services.running(),
        httpx.AsyncClient(
            transport=transport, base_url="http://localhost:8080", **options
        ) as client,
    ):
        yield client


async def consume(
    redis_url: str, topology: Topology, values: list[bytes], runtime: Runtime | None = None
) -> list[OutgoingRecord]:
    """Let a worker's processor take a log, each event in its key's partition; return its results.

    All rows are stored on return.
    """
    redis = connect(redis_url, timeout_s=5)
    runtime = runtime or shop_runtime(topology)
    store = StateStore(redis, topology.name, runtime.engine.schema, PARTITIONS)
    settings = Settings(flush_interval_s=0.001, state_rows_max=1_000)
    processor = TopologyProcessor(runtime, redis, store, settings, TopologyCounters())
    tps = [TP(topology.stream.name, partition) for partition in range(PARTITIONS)]
    await processor.assign(tps, dict.fromkeys(tps))
    logs: dict[TP, list[Record]] = {tp: [] for tp in tps}
    partitioner = Partitioner()
    for value in values:
        key = msgspec.json.decode(value)[topology.stream.key].encode()
        log = logs[tps[partitioner.partition(key, range(PARTITIONS))]]
        tp = tps[partitioner.partition(key, range(PARTITIONS))]
        log.append(Record(*tp, len(log), T0_US // 1000 + 3_600_000, key, value))
    outcome = await processor.process({tp: log for tp, log in logs.items() if log})
    processor.acknowledged(outcome.positions)
    await processor.store()
    await processor.revoke(tps)
    await redis.aclose()
    return one_by_one(outcome.outgoing)


class ThreadedServer:
    """A real server in a thread, on a free port; `call` runs a function in its loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._server = make_server(services)
        self._listener = bind(services.settings)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        async with self._services.running():
            await self._server.serve(sockets=[self._listener])

    @property
    def direct(self) -> Direct:
        """The server's short way."""
        config = self._server.config
        assert isinstance(config, Config)
        return config.direct

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        assert self._loop is not None

        async def run() -> Any:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def stop(self) -> None:
        if self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
