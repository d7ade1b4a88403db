"""Flights and the weather at their origin, two streams of one topology: live as offline."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from stream_infer import Label, Stream, Topology, fields, weighted_mean
from stream_infer.core.engine import Engine
from stream_infer.core.inputs import FieldsInput
from stream_infer.models.ensemble import ModelSet
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import load
from stream_infer.stream.log_reader import LogReader
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.runtime import Runtime
from stream_infer.stream.service import faust_app
from stream_infer.training.replay import Replay, read_lines
from tests.laws.shop import First, Sum
from tests.servers.kafka import Kafka
from tests.stream.kafka_tools import eventually, ordered_producer, running
from topologies import flight_weather
from topologies.flight_delay import Arrival, Departure
from topologies.flight_delay import topology as flight_delay
from topologies.flight_weather import Observation
from topologies.flights_data import EventLog, Paths
from topologies.weather_data import REPORTED_AFTER_MIN, prepare, read_weather, reports

PARTITIONS = 3
SLICE = (datetime(2013, 9, 30, tzinfo=UTC), datetime(2013, 10, 3, tzinfo=UTC))


@pytest.fixture(scope="session")
def weather_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("weather"))


def between(path: Path, start: datetime, end: datetime) -> list[tuple[str, bytes]]:
    first, last = (moment.isoformat().replace("+00:00", "Z") for moment in (start, end))
    lines = read_lines(str(path), "origin")
    return [(key, line) for key, line in lines if first <= json.loads(line)["at"] < last]


def test_reports_are_acceptable_events_in_order_of_time(weather_lines: Path) -> None:
    decode = msgspec.json.Decoder(Observation).decode
    events = [decode(line) for line in weather_lines.read_bytes().splitlines()]
    assert len(events) == 26_115
    assert {event.origin for event in events} == {"EWR", "JFK", "LGA"}
    times = [event.at for event in events]
    assert times == sorted(times)
    assert {moment.minute for moment in times} == {REPORTED_AFTER_MIN}
    winds = [event.wind_speed_mph for event in events if event.wind_speed_mph is not None]
    assert max(winds) < 100


def test_the_hour_of_a_report_is_in_utc() -> None:
    """It is warmest in New York in the afternoon, which is the evening in UTC."""
    july = read_weather()
    july = july[july["month"] == 7]
    hours = july["time_hour"].str.slice(11, 13).astype(int)
    by_hour = july["temp"].groupby(hours).mean()
    assert 17 <= by_hour.idxmax() <= 20
    assert 8 <= by_hour.idxmin() <= 11


def test_what_the_table_lacks_is_null() -> None:
    table = read_weather()
    events = reports(table)
    missing = int(table["wind_gust"].isna().sum())
    nulls = sum(event["gust_mph"] is None for event in events)
    assert (
        missing <= nulls <= missing + 1
    )  # the wind of 1,048 mph has a gust beyond all bounds, too
    assert all(event["visibility_mi"] is not None for event in events)


def test_the_topology_is_flight_delays_with_the_weather() -> None:
    both, plain = flight_weather.topology, flight_delay
    others = [item for item in both.inputs if item is not flight_weather.weather_at_origin]
    assert others == list(plain.inputs)
    assert [stream.name for stream in both.streams] == ["flights", "weather"]


def renamed(name: str) -> Topology:
    """The example's topology on topics of its own, without batch features, which need a store."""
    flights, weather = flight_weather.topology.streams
    streams = {
        flights.name: Stream(
            f"{name}.flights",
            Departure | Arrival,
            key="origin",
            time="at",
            event_id="flight_id",
            duplicates_within="1d",
        ),
        weather.name: Stream(
            f"{name}.weather", Observation, key="origin", time="at", lateness="2h"
        ),
    }
    (numbers,) = (i for i in flight_weather.topology.inputs if isinstance(i, FieldsInput))
    views = [
        streams[view.stream.name].view(view.name, by=view.by, features=view.features)
        for view in flight_weather.topology.views
    ]
    return Topology(
        name=name,
        on=Departure,
        inputs=[fields(*numbers.names), *views],
        graph=weighted_mean({"sum": 0.75, "first": 0.25}),
        output=f"{name}.predictions",
        label=Label(of=Arrival, key="flight_id", value="arrival_delay_min"),
    )


@pytest.mark.kafka
@pytest.mark.redis
async def test_live_predictions_equal_the_offline_replay_exactly(
    kafka_server: Kafka, redis_url: str, unique: str, flight_events: Paths, weather_lines: Path
) -> None:
    topology = renamed(unique)
    logs = [list(EventLog(flight_events).events_between(*SLICE)), between(weather_lines, *SLICE)]
    assert len(logs[0]) > 4_000
    assert len(logs[1]) > 200
    names = [stream.name for stream in topology.streams]
    written = [topology.output, topology.outcomes, topology.dead_letters]
    kafka_server.create_topics(dict.fromkeys([*names, *written], PARTITIONS))
    producer = ordered_producer(kafka_server.bootstrap)
    for name, log in zip(names, logs, strict=True):
        for key, value in log:
            producer.produce(name, value, key.encode())
    assert producer.flush(60) == 0

    models = ModelSet({"sum": Sum(), "first": First()})
    versions = {"sum": "1", "first": "1"}
    runtime = Runtime(topology, Engine(topology), None, models, topology.graph, versions)
    ends = TopologyCounters()
    settings = load({}, broker=kafka_server.bootstrap, redis=redis_url, merge_wait_ms=60_000)
    app = faust_app(topology, settings, runtime=runtime, ends=ends)
    async with running(app):
        await eventually(lambda: ends.ends.consumed == sum(map(len, logs)), 120)
    async with LogReader(kafka_server.bootstrap) as reader:
        spans = await reader.spans(topology.output)
        found = [
            msgspec.json.decode(record.value)
            async for record in reader.records(topology.output, spans)
        ]
    live: dict[str, Any] = {said["key"]: said["scores"] for said in found}
    assert len(live) == len(found)

    choose, places = Partitioner(), range(PARTITIONS)
    replay = Replay(
        Engine(topology), None, lambda key: choose.partition(key, places), runtime.score
    )
    table = await asyncio.to_thread(replay.run_streams, logs)
    offline = {
        key: dict(zip(("sum", "first"), each, strict=True))
        for key, each in zip(table.keys, table.each.tolist(), strict=True)
    }
    assert live == offline
    weather = [i for i, name in enumerate(table.names) if name == "weather_at_origin__visibility"]
    assert (~np.isnan(table.values[:, weather])).mean() > 0.9
