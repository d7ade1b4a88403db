"""Point-in-time features equal Feast's historical ones, and those that serving would read."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from stream_infer.core.errors import DeclarationError
from stream_infer.core.join import MISSING, join
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.feast_plan import JoinKey, PlanFeature, PlanSource, PlanView, ReadPlan
from stream_infer.store.feast_repo import apply_and_materialize
from stream_infer.store.offline_features import OfflineFeatures
from tests.store.feast_fixtures import TypesStore, types_store
from tests.store.feast_types import DAYS, SHOPS, USERS, write_repository

__all__ = ["types_store"]  # The fixture is used by name.

# Feast warns of on-demand views, which the repository has so that they are refused.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning")


def microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def events() -> list[dict[str, Any]]:
    """Every entity at moments before, at, between and long after the snapshots."""
    shops = [*SHOPS, "nowhere"]
    offsets = [timedelta(hours=h) for h in (-30, -1, 0, 1, 23, 24, 25, 72, 96, 121, 800)]
    return [
        {
            "user_id": user,
            "target": shops[i % 5],
            "shop_name": shops[(i + 2) % 5],
            "at": DAYS[0] + o,
        }
        for user in [*USERS, 99]
        for i, o in enumerate(offsets)
    ]


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {field: [row[field] for row in rows] for field in ("user_id", "target", "shop_name")}


def test_offline_features_equal_feasts_historical_ones(types_store: TypesStore) -> None:
    plan, rows = types_store.plan, events()
    times = np.array([microseconds(row["at"]) for row in rows])
    found = OfflineFeatures(plan, types_store.repo).read(columns_of(rows), times)
    ours = join(found.values, found.timestamps_us, times, plan.ttl_us, plan.view_of).values
    frame = pd.DataFrame(rows).rename(columns={"at": "event_timestamp"})
    frame["row"] = range(len(rows))
    job = types_store.feast.get_historical_features(
        entity_df=frame,
        features=types_store.feast.get_feature_service("everything"),
        full_feature_names=True,
    )
    theirs = job.to_df()
    # Feast's file store loses events for which some view has only rows that may not be used.
    assert len(theirs) > len(rows) / 2
    ours = ours[theirs["row"].to_numpy()]
    for place, name in enumerate(plan.names):
        expected = pd.to_numeric(theirs[name].astype(object)).to_numpy(np.float64)
        np.testing.assert_allclose(ours[:, place], expected, rtol=1e-7, err_msg=name)
        assert np.isfinite(expected).any(), name


@pytest.mark.parametrize("day", range(len(DAYS)))
def test_offline_equals_online_after_materialising_at_that_time(
    tmp_path: Path, redis_url: str, day: int
) -> None:
    repo = write_repository(tmp_path / "repo")
    apply_and_materialize(repo, DAYS[day], redis_url)
    from stream_infer.store.feast_repo import load_plan

    plan = load_plan(repo, "everything", exclude=["users__text"])
    columns = columns_of(events())
    reader = BatchFeatureReader(plan)
    request = reader.request(columns)
    with redis.Redis.from_url(redis_url) as client:
        pipeline = client.pipeline(transaction=False)
        for command in request.commands:
            pipeline.execute_command(*command)
        online = reader.absorb(request, pipeline.execute())
    n = len(events())
    at = OfflineFeatures(plan, repo).read(columns, np.full(n, microseconds(DAYS[day])))
    late = OfflineFeatures(plan, repo, until=DAYS[day]).read(columns, np.full(n, 2**62))
    for offline in (at, late):
        np.testing.assert_array_equal(offline.values, online.values)
        np.testing.assert_array_equal(offline.timestamps_us, online.timestamps_us)


KEY = (JoinKey("k", "k", "STRING"),)


def one_view(dtype: str) -> ReadPlan:
    source = PlanSource("s.parquet", "t")
    return ReadPlan("p", "s", (PlanView("v", "v", KEY, (PlanFeature("x", dtype),), 0, source),))


def test_each_event_sees_the_latest_row_not_after_it(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    keys, stamps = random.integers(0, 5, 60).astype(str), random.integers(0, 40, 60)
    table = pa.table(
        {"k": keys, "t": pa.array(stamps, pa.timestamp("ms", "UTC")), "x": np.arange(60)}
    )
    pq.write_table(table, tmp_path / "s.parquet")
    asked, times = random.integers(0, 6, 500).astype(str), random.integers(-5, 50, 500) * 1000
    found = OfflineFeatures(one_view("INT64"), tmp_path).read({"k": asked.tolist()}, times)
    for i in range(500):
        rows = np.flatnonzero((keys == asked[i]) & (stamps * 1000 <= times[i]))
        if len(rows) == 0:
            assert np.isnan(found.values[i, 0])
            assert found.timestamps_us[i, 0] == MISSING
        else:
            latest = stamps[rows].max()
            assert found.timestamps_us[i, 0] == latest * 1000
            assert found.values[i, 0] == rows[stamps[rows] == latest].max()


def test_null_keys_find_nothing_even_where_the_source_has_them(tmp_path: Path) -> None:
    table = pa.table(
        {"k": [None, "a"], "t": pa.array([0, 0], pa.timestamp("us", "UTC")), "x": [1.5, None]}
    )
    pq.write_table(table, tmp_path / "s.parquet")
    times = np.array([9, 9])
    found = OfflineFeatures(one_view("DOUBLE"), tmp_path).read({"k": [None, "a"]}, times)
    assert found.timestamps_us[:, 0].tolist() == [MISSING, 0]
    assert np.isnan(found.values).all()


def test_a_source_that_does_not_fit_is_named(tmp_path: Path) -> None:
    plan = one_view("DOUBLE")
    with pytest.raises(DeclarationError, match=r"view 'v': source s\.parquet"):
        OfflineFeatures(plan, tmp_path)
    pq.write_table(pa.table({"k": ["a"], "t": [0], "xx": [1.0]}), tmp_path / "s.parquet")
    with pytest.raises(DeclarationError, match="no column 'x'"):
        OfflineFeatures(plan, tmp_path)
    views = tuple(msgspec.structs.replace(view, source=None) for view in plan.views)
    with pytest.raises(DeclarationError, match="no Parquet file"):
        OfflineFeatures(msgspec.structs.replace(plan, views=views), tmp_path)
