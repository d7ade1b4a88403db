"""A small topology for the laws: sales and refunds by shop, a model one can compute by hand."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream_infer import (
    Event,
    Label,
    Stream,
    Topology,
    count,
    distinct,
    ewm_mean,
    fields,
    last,
    maximum,
    mean,
    ratio,
    since_last,
    std,
    total,
    weighted_mean,
)
from stream_infer.core.engine import Engine
from stream_infer.models.ensemble import ModelSet
from stream_infer.stream.runtime import Runtime

T0_US = 1_380_628_800_000_000
SECOND_US = 1_000_000


class Sale(Event, tag="sale"):
    sale_id: str
    shop: str
    at: datetime
    amount: float
    item: str | None = None


class Refund(Event, tag="refund"):
    sale_id: str
    shop: str
    at: datetime
    refunded: float
    item: str | None = None


def shop_topology(name: str) -> Topology:
    """Return the topology, under a name of the caller's."""
    sales = Stream(
        f"{name}.sales",
        Sale | Refund,
        key="shop",
        time="at",
        lateness="2m",
        event_id="sale_id",
        duplicates_within="1h",
    )
    by_shop = sales.view(
        "by_shop",
        by=["shop"],
        features={
            "sales_5m": count(over="5m", of=Sale),
            "amount_1h": total("amount", over="1h"),
            "amount_mean_5m": mean("amount", over="5m"),
            "amount_std_5m": std("amount", over="5m"),
            "refund_share": ratio("sales_5m", "amount_1h"),
            "recent": ewm_mean("amount", half_life="3m"),
            "items": distinct("item", over="1h"),
        },
    )
    by_item = sales.view(
        "by_item",
        by=["shop", "item"],
        features={
            "highest": maximum("amount", over="5m"),
            "last": last("amount"),
            "since_s": since_last(),
        },
    )
    return Topology(
        name=name,
        on=Sale,
        inputs=[fields("amount"), by_shop, by_item],
        graph=weighted_mean({"sum": 0.75, "first": 0.25}),
        output=f"{name}.predictions",
        label=Label(of=Refund, key="sale_id", value="refunded", within="1h"),
    )


class Sum:
    """A model: the sum of what is not missing."""

    def run(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        total = np.zeros(len(vectors))
        for column in np.nan_to_num(vectors.astype(np.float64)).T:
            total += column
        return total


@dataclass
class Blocks:
    """A model: the first input, but only once it is released."""

    entered: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    calls: int = 0

    def run(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        self.calls += 1
        self.entered.set()
        self.released.wait()
        return vectors[:, 0].astype(np.float64)


class First:
    """A model: the first input."""

    def run(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return vectors[:, 0].astype(np.float64)


def shop_runtime(topology: Topology, models: ModelSet | None = None) -> Runtime:
    """Return the topology with its two models, or others of the same names."""
    models = models or ModelSet({"sum": Sum(), "first": First()})
    versions = {"sum": "1", "first": "1"}
    return Runtime(topology, Engine(topology), None, models, topology.graph, versions)


class Record(NamedTuple):
    """A consumed record, as aiokafka would give it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class LogMaker:
    """Makes logs of random events; poison, duplicates and late events at the given rates."""

    random: Random
    poison: float = 0.0
    duplicates: float = 0.0
    late: float = 0.0
    made: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("poison",), 0))

    def values(self, n: int) -> list[bytes]:
        values: list[bytes] = []
        now_us = T0_US
        open_sales: list[tuple[str, str, str | None]] = []
        for i in range(n):
            now_us += self.random.randrange(0, 8 * SECOND_US)
            at_us = now_us - self.random.randrange(0, 100 * SECOND_US)
            if self.random.random() < self.late:
                at_us = now_us - 1000 * SECOND_US
            if values and self.random.random() < self.duplicates:
                values.append(self.random.choice(values[-20:]))
            elif self.random.random() < self.poison:
                self.made["poison"] += 1
                values.append(self.random.choice([b"{", b"", b'{"type":"gift"}', b"null"]))
            elif open_sales and self.random.random() < 0.3:
                sale_id, shop, item = open_sales.pop(self.random.randrange(len(open_sales)))
                values.append(self._refund(sale_id, shop, item, at_us))
            else:
                shop = self.random.choice("abc")
                item = self.random.choice(["x", "y", None])
                open_sales.append((f"s{i}", shop, item))
                values.append(self._sale(f"s{i}", shop, item, at_us))
        return values

    def _sale(self, sale_id: str, shop: str, item: str | None, at_us: int) -> bytes:
        amount = round(self.random.uniform(-50, 500), 2)
        at = datetime.fromtimestamp(at_us / 1e6, UTC)
        return msgspec.json.encode(
            Sale(sale_id=sale_id, shop=shop, item=item, at=at, amount=amount)
        )

    def _refund(self, sale_id: str, shop: str, item: str | None, at_us: int) -> bytes:
        refunded = round(self.random.uniform(0, 100), 2)
        at = datetime.fromtimestamp(at_us / 1e6, UTC)
        return msgspec.json.encode(
            Refund(sale_id=sale_id, shop=shop, item=item, at=at, refunded=refunded)
        )


def as_records(topic: str, partition: int, values: list[bytes]) -> list[Record]:
    """Return the log of one partition, broker timestamps an hour after T0 and later."""
    return [
        Record(topic, partition, offset, T0_US // 1000 + 3_600_000 + offset * 8_000, b"k", value)
        for offset, value in enumerate(values)
    ]
