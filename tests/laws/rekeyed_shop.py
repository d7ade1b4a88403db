"""The shop with views across shops, and two stages of it driven by hand on a real Redis."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
import numpy as np
from redis.asyncio import Redis

from stream_infer import (
    Stream,
    Topology,
    count,
    distinct,
    ewm_mean,
    fields,
    last,
    maximum,
    since_last,
    std,
    total,
    weighted_mean,
)
from stream_infer.core.engine import Engine
from stream_infer.core.rekeyed import keyed_views
from stream_infer.core.rekeyed_state import Received, rekeyed_schema
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import Settings
from stream_infer.store.state import StateStore
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.processing import TP, OutgoingRecord, one_by_one
from stream_infer.stream.processor import TopologyProcessor
from stream_infer.stream.rekeyed import RekeyedStage
from stream_infer.stream.rekeying import Rekeying
from stream_infer.stream.runtime import Runtime
from stream_infer.stream.stages import Staged
from tests.laws.shop import T0_US, LogMaker, Record, Refund, Sale, shop_runtime

SOURCES = 4
REKEYED = 3
"""Another number of partitions, so that neither stage can take one for the other's."""


def rekeyed_topology(name: str) -> Topology:
    """Return the shop with a view of its own and three across shops, two of them by one key."""
    sales = Stream(
        f"{name}.sales",
        Sale | Refund,
        key="shop",
        time="at",
        lateness="2m",
        event_id="sale_id",
        duplicates_within="1h",
    )
    by_shop = sales.view("by_shop", by=["shop"], features={"sales_5m": count(over="5m", of=Sale)})
    by_item = sales.view(
        "by_item",
        by=["item"],
        rekey=True,
        features={
            "sales_5m": count(over="5m", of=Sale),
            "amount_1h": total("amount", over="1h"),
            "amount_std_5m": std("amount", over="5m"),
            "highest": maximum("amount", over="5m"),
            "since_s": since_last(over="2h"),
        },
    )
    item_trend = sales.view(
        "item_trend",
        by=["item"],
        rekey=True,
        features={"recent": ewm_mean("amount", half_life="3m", over="1h")},
    )
    by_sale = sales.view(
        "by_sale",
        by=["sale_id", "item"],
        rekey=True,
        features={"last": last("refunded", over="1h"), "shops": distinct("shop", over="1h")},
    )
    return Topology(
        name=name,
        on=Sale,
        inputs=[by_item, fields("amount"), by_shop, item_trend, by_sale],
        graph=weighted_mean({"sum": 0.75, "first": 0.25}),
        output=f"{name}.predictions",
    )


def logs(topology: Topology, seed: int, n: int, **rates: float) -> dict[TP, list[Record]]:
    """Return the source's partitions, each event in that of its shop."""
    tps = [TP(topology.stream.name, number) for number in range(SOURCES)]
    made: dict[TP, list[Record]] = {tp: [] for tp in tps}
    partitioner = Partitioner()
    for value in LogMaker(Random(seed), **rates).values(n):
        try:
            key = str(msgspec.json.decode(value)["shop"]).encode()
        except (msgspec.DecodeError, KeyError, TypeError):
            key = b"?"
        tp = tps[partitioner.partition(key, range(SOURCES))]
        log = made[tp]
        log.append(Record(*tp, len(log), T0_US // 1000 + 86_400_000, key, value))
    return {tp: log for tp, log in made.items() if log}


@dataclass
class Broker:
    """The rekeyed topic: what is sent on is appended as Kafka would."""

    topic: str
    logs: dict[TP, list[Record]] = field(default_factory=dict)
    _partitioner: Partitioner = field(default_factory=Partitioner)

    def __post_init__(self) -> None:
        self.logs = {TP(self.topic, number): [] for number in range(REKEYED)}

    def append(self, records: Iterable[OutgoingRecord]) -> None:
        for record in records:
            if record.topic != self.topic:
                continue
            number = self._partitioner.partition(record.key, range(REKEYED))
            log = self.logs[TP(self.topic, number)]
            log.append(
                Record(self.topic, number, len(log), 0, record.key, record.value, record.headers)
            )

    def from_(self, positions: dict[TP, int]) -> dict[TP, list[Record]]:
        found = {tp: log[positions.get(tp, 0) :] for tp, log in self.logs.items()}
        return {tp: log for tp, log in found.items() if log}


class TwoStages:
    """Both stages of one topology in one worker, with a clock that stands still."""

    def __init__(self, topology: Topology, redis: Redis, broker: Broker, **settings: Any) -> None:
        self.runtime: Runtime = shop_runtime(topology)
        self.topology, self.broker = topology, broker
        values = Settings(**{"flush_interval_s": 0.001, "state_rows_max": 1_000, **settings})
        self.counters = TopologyCounters()
        name, topic = topology.name, topology.rekeyed_events
        first = TopologyProcessor(
            self.runtime,
            redis,
            StateStore(redis, name, self.runtime.engine.schema, SOURCES),
            values,
            self.counters,
            wall_us=lambda: 1_400_000_000_000_000,
            rekeyed=Rekeying(topology, REKEYED, self.counters.rekeyed),
            broken=lambda error: None,
        )
        second = RekeyedStage(
            self.runtime.engine,
            redis,
            StateStore(redis, topic, rekeyed_schema(topology), REKEYED),
            values,
            self.counters.rekeyed,
            broken=lambda error: None,
        )
        self.processor = Staged(first, second, topic)
        self.sent: list[OutgoingRecord] = []
        self.sources = [TP(topology.stream.name, number) for number in range(SOURCES)]
        self.all = [*self.sources, *broker.logs]
        self.positions: dict[TP, int] = {}

    async def start(self) -> None:
        self.positions = dict(await self.processor.assign(self.all, dict.fromkeys(self.all)))

    async def consume(
        self, batch: dict[TP, list[Record]], *, delivered: bool = True, acknowledged: bool = True
    ) -> None:
        """Process; without `delivered`, what it publishes is lost with the worker."""
        outcome = await self.processor.process(batch)
        self.positions.update(outcome.positions)
        if delivered:
            for outgoing in outcome.results.values():
                records = one_by_one(outgoing)
                self.sent.extend(records)
                self.broker.append(records)
        if delivered and acknowledged:
            self.processor.acknowledged(outcome.positions)
            await self.processor.store()

    async def follow(self) -> None:
        """Let the second stage fold all that was sent on."""
        batch = self.broker.from_(self.positions)
        if batch:
            await self.consume(batch)

    async def stop(self) -> None:
        await self.processor.revoke(self.all)

    def predictions(self) -> list[dict[str, Any]]:
        topic = self.topology.output
        return [msgspec.json.decode(r.value) for r in self.sent if r.topic == topic and r.value]


async def rekeyed_rows(redis: Redis, topology: Topology) -> dict[bytes, bytes]:
    """Return all rows of the second stage, and its positions; not what differs between owners."""
    found: dict[bytes, bytes] = {}
    async for key in redis.scan_iter(f"si:{{{topology.rekeyed_events}:*"):
        short = key.split(b".rekeyed:", 1)[1]
        if key.endswith(b":meta"):
            found[short] = await redis.hget(key, "stream_time_us")
        else:
            found[short.replace(topology.name.encode(), b"T")] = await redis.get(key)
    return found


def received_of(engine: Engine, log: Sequence[tuple[str, int, bytes]]) -> Received:
    """Return (source, source offset, value) as received by each key that an event has."""
    keyed = keyed_views(engine.topology)
    values: list[bytes] = []
    names: list[str] = []
    sources: list[str] = []
    offsets: list[int] = []
    for source, offset, value in log:
        event = msgspec.json.decode(value)
        for views in keyed:
            if all(event.get(name) is not None for name in views.by):
                values.append(value)
                names.append(views.name)
                sources.append(source)
                offsets.append(offset)
    batch = engine.decode(values, np.arange(len(values), dtype=np.int64), None)
    return Received(batch, names, sources, np.array(offsets, np.int64))
