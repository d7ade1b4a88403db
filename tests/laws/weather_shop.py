"""The shop of the laws, with a second stream: the weather at each shop, folded beside its sales."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

import msgspec

from stream_infer import (
    Event,
    Label,
    Stream,
    Topology,
    count,
    fields,
    last,
    maximum,
    since_last,
    std,
    total,
    weighted_mean,
)
from stream_infer.core.merging import Merge, event_times
from stream_infer.stream.processing import MergedRecords
from tests.laws.shop import SECOND_US, T0_US, LogMaker, Record, Refund, Sale, as_records


class Weather(Event, tag="weather"):
    """How the sky is at one shop."""

    report_id: str
    shop: str
    seen_at: datetime
    rain_mm: float | None = None
    gust: float | None = None


def weather_topology(name: str) -> Topology:
    """Return the topology, under a name of the caller's; the weather is declared second."""
    sales = Stream(
        f"{name}.sales",
        Sale | Refund,
        key="shop",
        time="at",
        lateness="2m",
        event_id="sale_id",
    )
    weather = Stream(
        f"{name}.weather",
        Weather,
        key="shop",
        time="seen_at",
        lateness="10m",
        event_id="report_id",
        duplicates_within="2h",
    )
    by_shop = sales.view("by_shop", by=["shop"], features={"sales_5m": count(over="5m", of=Sale)})
    sky = weather.view(
        "sky",
        by=["shop"],
        features={
            "rain_10m": total("rain_mm", over="10m"),
            "rain_std_1h": std("rain_mm", over="1h"),
            "gust_max_10m": maximum("gust", over="10m"),
            "gust": last("gust"),
            "reports_10m": count(over="10m"),
            "age_s": since_last(),
        },
    )
    return Topology(
        name=name,
        on=Sale,
        inputs=[fields("amount"), by_shop, sky],
        graph=weighted_mean({"sum": 0.75, "first": 0.25}),
        output=f"{name}.predictions",
        label=Label(of=Refund, key="sale_id", value="refunded", within="1h"),
    )


@dataclass
class WeatherMaker:
    """Makes logs of weather reports; poison, duplicates and late reports at the given rates."""

    random: Random
    poison: float = 0.0
    duplicates: float = 0.0
    late: float = 0.0
    pace_s: int = 30
    made: list[bytes] = field(default_factory=list)

    def values(self, n: int) -> list[bytes]:
        """Return n values, in the order of their log."""
        now_us = T0_US
        for i in range(n):
            now_us += self.random.randrange(0, self.pace_s * SECOND_US)
            at_us = now_us - self.random.choice([0, 0, 100, 400]) * SECOND_US
            if self.random.random() < self.late:
                at_us = now_us - 3000 * SECOND_US
            if self.made and self.random.random() < self.duplicates:
                self.made.append(self.random.choice(self.made[-20:]))
            elif self.random.random() < self.poison:
                self.made.append(self.random.choice([b"{", b"", b'{"type":"sale"}', b"null"]))
            else:
                self.made.append(self._report(i, at_us))
        return self.made

    def _report(self, i: int, at_us: int) -> bytes:
        report = Weather(
            report_id=f"w{i}",
            shop=self.random.choice("abc"),
            seen_at=datetime.fromtimestamp(at_us / 1e6, UTC),
            rain_mm=self.random.choice([None, round(self.random.uniform(0, 9), 1)]),
            gust=self.random.choice([None, round(self.random.uniform(0, 90), 1)]),
        )
        return msgspec.json.encode(report)


def logs(topology: Topology, seed: int, sales: int, reports: int) -> tuple[list[Record], ...]:
    """Return the log of partition 0 of each of the topology's topics."""
    rates = {"poison": 0.02, "duplicates": 0.04, "late": 0.02}
    of_sales = LogMaker(Random(seed), **rates).values(sales)
    of_weather = WeatherMaker(Random(seed + 1), **rates).values(reports)
    topics = [stream.name for stream in topology.streams]
    return as_records(topics[0], 0, of_sales), as_records(topics[1], 0, of_weather)


def merged(topology: Topology, records: tuple[list[Record], ...]) -> MergedRecords:
    """Return whole logs as one."""
    merge = Merge[Record](len(records))
    for number, (stream, log) in enumerate(zip(topology.streams, records, strict=True)):
        times = event_times(stream)([r.value for r in log], [r.timestamp for r in log])
        merge.put(number, log, times)
    result = MergedRecords()
    while (number := merge.next()) is not None:
        result.append(merge.pop(number))
        result.sources.append(number)
    return result
