"""The flight example's batch features: nothing from the future, and the same numbers everywhere."""

import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis

from features.prepare import (
    REPOSITORY,
    SNAPSHOTS,
    airport_rows,
    carriers,
    prepare,
    routes,
    snapshot_each,
)
from stream_infer.core.join import PRESENT, join
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.feast_repo import _store, apply_and_materialize, load_plan
from stream_infer.store.offline_features import OfflineFeatures
from topologies.flights_data import EventLog, Paths
from topologies.flights_source import source_path

OCTOBER = datetime(2013, 10, 1, tzinfo=UTC)
AIRPORTS = pd.read_csv(source_path("airports.csv"))
SUMMARIES = {
    "routes": routes,
    "carriers": carriers,
    "airports": partial(airport_rows, AIRPORTS),
}


@pytest.fixture(scope="module")
def arrivals(flight_events: Paths) -> pd.DataFrame:
    events = pd.read_parquet(flight_events.columns)
    return events[events["type"] == "arrival"]


@pytest.fixture(scope="module")
def repo(flight_events: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with its sources made."""
    folder = tmp_path_factory.mktemp("flights") / "features"
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    prepare(flight_events.columns.parent, folder)
    return folder


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("moment", [datetime(2013, 2, 1, tzinfo=UTC), OCTOBER])
def test_a_snapshot_does_not_change_with_what_arrives_after_it(
    arrivals: pd.DataFrame, summary: str, moment: datetime
) -> None:
    before = snapshot_each(arrivals, [moment], SUMMARIES[summary])
    altered = arrivals.copy()
    after = altered["at"] >= moment
    assert after.any()
    for name in ("gain_min", "departure_delay_min", "air_time_min"):
        altered.loc[after, name] = 1e6
    altered.loc[after, "dest"] = "BOS"
    altered = altered.drop(altered.index[after][::2])
    pd.testing.assert_frame_equal(before, snapshot_each(altered, [moment], SUMMARIES[summary]))


def test_a_snapshot_is_of_the_arrivals_before_it_and_no_others(arrivals: pd.DataFrame) -> None:
    moment = datetime(2013, 4, 1, tzinfo=UTC)
    rows = snapshot_each(arrivals, [moment], routes).set_index(["origin", "dest"])
    chosen = arrivals[
        (arrivals["at"] < moment) & (arrivals["origin"] == "JFK") & (arrivals["dest"] == "SFO")
    ]
    row = rows.loc[("JFK", "SFO")]
    assert row["flights_per_day"] == pytest.approx(len(chosen) / 90)
    assert len(chosen) > 1000
    assert row["gain_mean"] == pytest.approx(np.mean(chosen["gain_min"]))
    assert row["gain_std"] == pytest.approx(np.std(chosen["gain_min"], ddof=1))
    assert row["air_time_mean"] == pytest.approx(np.mean(chosen["air_time_min"]))


def test_sources_have_the_snapshots_of_january_to_october(repo: Path) -> None:
    for name in ("route", "airport", "carrier"):
        stamps = pd.read_parquet(repo / "data" / f"{name}.parquet")["event_timestamp"]
        first = 0 if name == "airport" else 1  # Before January nothing had arrived.
        assert sorted(stamps.unique()) == [pd.Timestamp(moment) for moment in SNAPSHOTS[first:]]
    planes = pd.read_parquet(repo / "data" / "plane.parquet")
    assert (planes["event_timestamp"] < pd.Timestamp(SNAPSHOTS[0])).all()
    assert planes["age_years"].isna().any()


def departures(flight_events: Paths, start: datetime, end: datetime) -> dict[str, Any]:
    columns = EventLog(flight_events).columns(start, end)
    left = columns["type"] == "departure"
    return {name: values[left] for name, values in columns.items()}


def test_serving_training_and_feast_read_the_same_numbers(
    repo: Path, flight_events: Paths, redis_url: str
) -> None:
    views = apply_and_materialize(repo, OCTOBER, redis_url)
    assert set(views) == {"plane", "route", "airport", "carrier"}
    plan = load_plan(repo, "flight_delay")
    events = departures(flight_events, OCTOBER, datetime(2014, 1, 5, tzinfo=UTC))
    columns = {field: events[field].tolist() for field in plan.fields}
    reader = BatchFeatureReader(plan)
    request = reader.request(columns)
    with redis.Redis.from_url(redis_url) as client:
        pipeline = client.pipeline(transaction=False)
        for command in request.commands:
            pipeline.execute_command(*command)
        online = reader.absorb(request, pipeline.execute())
    offline = OfflineFeatures(plan, repo).read(columns, events["at"])
    np.testing.assert_array_equal(online.values, offline.values)
    np.testing.assert_array_equal(online.timestamps_us, offline.timestamps_us)

    joined = join(online.values, online.timestamps_us, events["at"], plan.ttl_us, plan.view_of)
    present = (joined.state == PRESENT).mean(axis=0)
    assert present.min() > 0.8, present
    assert present[1:].min() > 0.99, present

    sample = np.random.default_rng(1).choice(len(events["at"]), 200, replace=False).tolist()
    sample = [row for row in sample if columns["tail_number"][row] is not None]
    store = _store(repo, redis_url)
    theirs = store.get_online_features(
        features=store.get_feature_service("flight_delay"),
        entity_rows=[{name: column[row] for name, column in columns.items()} for row in sample],
        full_feature_names=True,
    ).to_dict()
    for place, name in enumerate(plan.names):
        expected = [np.nan if value is None else float(value) for value in theirs[name]]
        np.testing.assert_array_equal(online.values[sample, place], expected, err_msg=name)


def test_the_service_has_the_columns_that_models_are_trained_on(repo: Path) -> None:
    assert load_plan(repo, "flight_delay").names == (
        *("plane__age_years", "plane__seats", "plane__engines"),
        *("route__gain_mean", "route__gain_std", "route__flights_per_day", "route__air_time_mean"),
        *("dest_airport__latitude", "dest_airport__longitude", "dest_airport__altitude_ft"),
        *("dest_airport__arrivals_gain_mean", "dest_airport__arrivals_per_day"),
        *("carrier__gain_mean", "carrier__delay_mean", "carrier__flights_per_day"),
    )
