"""The event log of real flights: every flight once, in order, in UTC."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stream_infer.core.errors import SettingsError
from topologies import flights_source
from topologies.flights_data import EventLog, Paths, prepare

YEAR = (datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 2, 1, tzinfo=UTC))
DEPARTURE_FIELDS = {
    *("type", "flight_id", "origin", "dest", "carrier", "tail_number", "at", "scheduled_at"),
    *("departure_delay_min", "distance_mi", "scheduled_hour", "scheduled_weekday"),
    "scheduled_duration_min",
}
ARRIVAL_FIELDS = {
    *("type", "flight_id", "origin", "dest", "carrier", "tail_number", "at"),
    *("departure_delay_min", "arrival_delay_min", "gain_min"),
}


@pytest.fixture(scope="module")
def log(flight_events: Paths) -> EventLog:
    return EventLog(flight_events)


@pytest.fixture(scope="module")
def columns(log: EventLog) -> dict[str, Any]:
    return log.columns(*YEAR)


def test_flights_that_left_depart_once_and_those_that_landed_arrive_once(
    columns: dict[str, Any],
) -> None:
    departures = columns["flight_id"][columns["type"] == "departure"]
    arrivals = columns["flight_id"][columns["type"] == "arrival"]
    assert (len(departures), len(arrivals)) == (328_521, 327_346)
    assert len(set(departures)) == len(departures)
    assert len(set(arrivals)) == len(arrivals)
    assert set(arrivals) < set(departures)


def test_events_are_in_order_of_time_then_flight(columns: dict[str, Any]) -> None:
    at = columns["at"]
    assert (np.diff(at) >= 0).all()
    flight = columns["flight_id"].astype("U")
    tied = np.diff(at) == 0
    assert tied.any()
    assert (flight[:-1][tied] <= flight[1:][tied]).all()


def test_a_known_flight_is_told_as_it_was(log: EventLog) -> None:
    first_day = (datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 2, tzinfo=UTC))
    told = [
        (key, json.loads(line))
        for key, line in log.events_between(*first_day)
        if b"UA1545-EWR-2013-01-01" in line
    ]
    flight = {
        "flight_id": "UA1545-EWR-2013-01-01",
        "origin": "EWR",
        "dest": "IAH",
        "carrier": "UA",
        "tail_number": "N14228",
        "departure_delay_min": 2.0,
    }
    departure = {
        **flight,
        "type": "departure",
        "at": "2013-01-01T10:17:00Z",
        "scheduled_at": "2013-01-01T10:15:00Z",
        "distance_mi": 1400.0,
        "scheduled_hour": 5,
        "scheduled_weekday": 1,
        "scheduled_duration_min": 244.0,  # from 05:15 in New York to 08:19 in Houston
    }
    arrival = {
        **flight,
        "type": "arrival",
        "at": "2013-01-01T14:24:00Z",
        "arrival_delay_min": 11.0,
        "gain_min": 9.0,
    }
    assert told == [("EWR", departure), ("EWR", arrival)]


def test_lines_and_columns_tell_the_same(log: EventLog) -> None:
    # A week with the change to daylight saving time in it.
    week = (datetime(2013, 3, 7, tzinfo=UTC), datetime(2013, 3, 14, tzinfo=UTC))
    columns = log.columns(*week)
    lines = list(log.events_between(*week))
    assert len(lines) == len(columns["at"]) > 10_000
    np.testing.assert_array_equal(log.times_us(*week), columns["at"])
    assert all(week[0].timestamp() * 1e6 <= at < week[1].timestamp() * 1e6 for at in columns["at"])
    for row, (key, line) in enumerate(lines):
        event = json.loads(line)
        expected = ARRIVAL_FIELDS if event["type"] == "arrival" else DEPARTURE_FIELDS
        assert event.keys() == expected
        assert key == event["origin"]
        for name, value in event.items():
            kept = columns[name][row]
            if name in ("at", "scheduled_at"):
                value = datetime.fromisoformat(value).timestamp() * 1e6
            assert kept == value, (name, event)


def test_scheduled_times_agree_with_new_york_clocks(columns: dict[str, Any]) -> None:
    local = pd.to_datetime(columns["scheduled_at"], unit="us", utc=True).tz_convert(
        "America/New_York"
    )
    np.testing.assert_array_equal(local.hour, columns["scheduled_hour"])
    np.testing.assert_array_equal(local.weekday, columns["scheduled_weekday"])
    named = np.array([flight[-10:] for flight in columns["flight_id"]], "datetime64[D]")
    np.testing.assert_array_equal(named, local.tz_localize(None).to_numpy().astype("datetime64[D]"))


def test_scheduled_durations_are_near_the_time_in_the_air(columns: dict[str, Any]) -> None:
    spare = columns["scheduled_duration_min"] - columns["air_time_min"]
    landed = columns["type"] == "arrival"
    assert np.quantile(spare[landed], [0.005, 0.995]).tolist() == pytest.approx([40, 40], abs=45)


def test_times_and_delays_agree(columns: dict[str, Any]) -> None:
    left = columns["type"] == "departure"
    delay_us = columns["at"] - columns["scheduled_at"]
    np.testing.assert_array_equal(delay_us[left], columns["departure_delay_min"][left] * 60_000_000)
    gain = columns["arrival_delay_min"] - columns["departure_delay_min"]
    np.testing.assert_array_equal(gain, columns["gain_min"])
    assert np.isfinite(gain[~left]).all()
    assert np.isnan(gain[left]).all()


def test_ranges_are_half_open_and_may_be_empty(log: EventLog) -> None:
    day, next_day = datetime(2013, 6, 1, tzinfo=UTC), datetime(2013, 6, 2, tzinfo=UTC)
    later = datetime(2013, 6, 3, tzinfo=UTC)
    joined = [*log.events_between(day, next_day), *log.events_between(next_day, later)]
    assert joined == list(log.events_between(day, later))
    assert list(log.events_between(day, day)) == []
    assert list(log.events_between(later, day)) == []
    assert len(log) == 655_867


def test_prepared_events_are_not_prepared_again(flight_events: Paths) -> None:
    changed = flight_events.lines.stat().st_mtime_ns
    stages: list[str] = []
    assert prepare(flight_events.lines.parent, lambda stage, part: stages.append(stage)) == (
        flight_events
    )
    assert flight_events.lines.stat().st_mtime_ns == changed
    assert stages == []
    assert not list(flight_events.lines.parent.glob("*.part"))


def test_two_flights_of_one_number_and_day_are_told_apart() -> None:
    flights = pd.read_csv(flights_source.source_path("flights.csv.zip"), nrows=3)
    flights = pd.concat([flights, flights.iloc[[0]]], ignore_index=True)
    ids = flights_source.clean(flights)["flight_id"].tolist()
    assert ids[0] == "UA1545-EWR-2013-01-01"
    assert ids[3] == "UA1545-EWR-2013-01-01-2"


def test_missing_data_is_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights_source, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install"):
        prepare(tmp_path)
