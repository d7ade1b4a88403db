"""The reader equals Feast's own SDK; its cache is bounded in size and age."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pytest
import redis
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_infer.core.errors import DeclarationError, SettingsError
from stream_infer.core.join import ABSENT, MISSING, PRESENT, STALE, join
from stream_infer.store.batch_features import BatchFeatureReader, BatchFeatures, FeatureRequest
from stream_infer.store.commands import Commands
from stream_infer.store.feast_plan import (
    JoinKey,
    PlanFeature,
    PlanView,
    ReadPlan,
)
from tests.store.feast_fixtures import TypesStore, types_store
from tests.store.feast_types import DAYS, SHOPS, USERS

__all__ = ["types_store"]  # The fixture is used by name.

# Feast warns of on-demand views, which the repository has so that they are refused.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning")

STRANGERS = [99, -(2**63)]
ENTITIES = [
    # The SDK lets the last column win where one join key is used both plainly and mapped.
    {"user_id": user, "shop_name": other, "target": shop}
    for user in [*USERS, *STRANGERS]
    for shop, other in zip([*SHOPS, "nowhere"], ["nowhere", *SHOPS], strict=True)
]


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {field: [row[field] for row in rows] for field in ("user_id", "target", "shop_name")}


def microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def ask(client: redis.Redis, request: FeatureRequest) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command in request.commands:
        pipeline.execute_command(*command)
    return list(pipeline.execute())


@pytest.fixture
def client(types_store: TypesStore) -> Any:
    with redis.Redis.from_url(types_store.redis_url) as connected:
        yield connected


def read(client: redis.Redis, reader: BatchFeatureReader, columns: dict[str, Any]) -> BatchFeatures:
    request = reader.request(columns)
    return reader.absorb(request, ask(client, request))


def test_the_reader_equals_feasts_sdk(types_store: TypesStore, client: redis.Redis) -> None:
    plan = types_store.plan
    ours = read(client, BatchFeatureReader(plan), columns_of(ENTITIES))
    service = types_store.feast.get_feature_service("everything")
    theirs = types_store.feast.get_online_features(
        features=service, entity_rows=ENTITIES, full_feature_names=True
    ).to_dict()
    for place, name in enumerate(plan.names):
        expected = [math.nan if value is None else float(value) for value in theirs[name]]
        np.testing.assert_array_equal(ours.values[:, place], expected, err_msg=name)
        assert np.isfinite(expected).any(), name
    nulls = np.isnan(ours.values) & (ours.timestamps_us != MISSING)[:, plan.view_of]
    assert nulls[:, :5].any(axis=0).all()


def test_timestamps_are_those_of_the_latest_snapshot_of_each_entity(
    types_store: TypesStore, client: redis.Redis
) -> None:
    ours = read(client, BatchFeatureReader(types_store.plan), columns_of(ENTITIES))
    of_user = dict(zip([row["user_id"] for row in ENTITIES], ours.timestamps_us[:, 0], strict=True))
    first, _, last = map(microseconds, DAYS)
    expected = dict.fromkeys(USERS, last) | {USERS[-1]: first}
    assert of_user == expected | dict.fromkeys(STRANGERS, MISSING)


def test_time_to_live_is_judged_at_the_events_time(
    types_store: TypesStore, client: redis.Redis
) -> None:
    plan = types_store.plan
    users = [USERS[0], USERS[-1], USERS[0], 99]
    rows = [{"user_id": user, "target": "nowhere", "shop_name": "north"} for user in users]
    ours = read(client, BatchFeatureReader(plan), columns_of(rows))
    times = np.array([microseconds(DAYS[2])] * 4) + np.array([0, 0, 2 * 86_400_000_001, 0])
    joined = join(ours.values, ours.timestamps_us, times, plan.ttl_us, plan.view_of)
    assert joined.state[:, 0].tolist() == [PRESENT, STALE, STALE, ABSENT]
    assert joined.state[:, 2].tolist() == [PRESENT] * 4
    assert np.isnan(joined.values[1:, :5]).all()


def test_views_of_the_same_entity_share_one_command(types_store: TypesStore) -> None:
    request = BatchFeatureReader(types_store.plan).request(columns_of([ENTITIES[0]] * 10))
    assert len(request.commands) == 3  # users with more, visits, shops


async def test_reading_in_one_round_trip_equals_request_and_absorb(
    types_store: TypesStore, client: redis.Redis
) -> None:
    expected = read(client, BatchFeatureReader(types_store.plan), columns_of(ENTITIES))
    reader = BatchFeatureReader(types_store.plan)
    async with redis.asyncio.Redis.from_url(types_store.redis_url) as connected:
        for _ in range(2):  # The second time from the cache.
            found = await reader.read(Commands(connected, timeout_s=5), columns_of(ENTITIES))
            np.testing.assert_array_equal(found.values, expected.values)
            np.testing.assert_array_equal(found.timestamps_us, expected.timestamps_us)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*ENTITIES, None]), max_size=12), max_size=6),
    st.integers(1, 6),
    st.sampled_from([0.0, 1.0, 100.0]),
)
def test_features_do_not_depend_on_cache_or_batches(
    types_store: TypesStore,
    batches: list[list[dict[str, Any] | None]],
    cache_rows: int,
    max_age_s: float,
) -> None:
    nobody = {"user_id": None, "target": None, "shop_name": None}
    clock = iter(range(10_000))
    reader = BatchFeatureReader(types_store.plan, cache_rows, max_age_s, lambda: next(clock))
    with redis.Redis.from_url(types_store.redis_url) as client:
        for batch in batches:
            columns = columns_of([nobody if row is None else row for row in batch])
            found = read(client, reader, columns)
            plain = read(client, BatchFeatureReader(types_store.plan, 1000, 0.0), columns)
            np.testing.assert_array_equal(found.values, plain.values)
            np.testing.assert_array_equal(found.timestamps_us, plain.timestamps_us)
            assert reader.cached_rows <= 3 * cache_rows


# The cache alone, without a server: one view of one number by `name`.


@dataclass
class Clock:
    """Seconds that pass when told."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


PLAN = ReadPlan(
    "demo",
    "service",
    (PlanView("v", "v", (JoinKey("name", "name", "STRING"),), (PlanFeature("x", "BOOL"),), 0),),
)
YES = [b"\x38\x01", b"\x08\x05"]


def absorbed(reader: BatchFeatureReader, names: list[str | None]) -> tuple[int, list[float]]:
    request = reader.request({"name": names})
    found = reader.absorb(request, [YES] * len(request.commands))
    return len(request.commands), found.values[:, 0].tolist()


def test_no_row_is_used_beyond_its_age() -> None:
    clock = Clock()
    reader = BatchFeatureReader(PLAN, cache_max_age_s=10.0, clock=clock)
    assert absorbed(reader, ["a", "a", "b"]) == (2, [1.0, 1.0, 1.0])
    clock.now = 10.0
    assert absorbed(reader, ["a", "c"]) == (1, [1.0, 1.0])
    clock.now = 10.5
    assert absorbed(reader, ["a", "b", "c"]) == (2, [1.0, 1.0, 1.0])


def test_age_counts_from_the_request_not_from_its_reply() -> None:
    clock = Clock()
    reader = BatchFeatureReader(PLAN, cache_max_age_s=10.0, clock=clock)
    request = reader.request({"name": ["a"]})
    clock.now = 8.0
    reader.absorb(request, [YES])
    clock.now = 11.0
    assert absorbed(reader, ["a"])[0] == 1


def test_the_cache_never_exceeds_its_rows() -> None:
    reader = BatchFeatureReader(PLAN, cache_rows=4, cache_max_age_s=10.0, clock=Clock())
    for start in range(10):
        names: list[str | None] = [str(start + i) for i in range(7)]
        assert absorbed(reader, names)[1] == [1.0] * 7
        assert reader.cached_rows == 4


def test_rows_evicted_while_a_request_is_open_still_reach_it() -> None:
    reader = BatchFeatureReader(PLAN, cache_rows=1, cache_max_age_s=10.0, clock=Clock())
    absorbed(reader, ["a"])
    request = reader.request({"name": ["a", "b"]})
    absorbed(reader, ["c"])
    assert reader.absorb(request, [YES]).values[:, 0].tolist() == [1.0, 1.0]


def test_an_event_without_a_key_asks_for_nothing_and_is_missing() -> None:
    reader = BatchFeatureReader(PLAN)
    request = reader.request({"name": [None, "\ud800", None]})
    assert request.commands == []
    found = reader.absorb(request, [])
    assert np.isnan(found.values).all()
    assert (found.timestamps_us == MISSING).all()


def test_missing_entities_are_cached_too() -> None:
    reader = BatchFeatureReader(PLAN, cache_max_age_s=10.0, clock=Clock())
    request = reader.request({"name": ["a"]})
    found = reader.absorb(request, [[None, None]])
    assert found.timestamps_us.tolist() == [[MISSING]]
    assert reader.request({"name": ["a"]}).commands == []


def test_replies_that_do_not_fit_the_commands_are_refused() -> None:
    reader = BatchFeatureReader(PLAN)
    with pytest.raises(ValueError, match="1 replies to 2 commands"):
        reader.absorb(reader.request({"name": ["a", "b"]}), [YES])


def test_settings_out_of_bounds_are_refused() -> None:
    with pytest.raises(SettingsError, match="cache_rows"):
        BatchFeatureReader(PLAN, cache_rows=0)
    with pytest.raises(SettingsError, match="cache_max_age_s"):
        BatchFeatureReader(PLAN, cache_max_age_s=-1)


def test_a_plan_with_text_is_refused() -> None:
    view = PlanView("v", "v", (JoinKey("k", "k", "STRING"),), (PlanFeature("t", "STRING"),), 0)
    with pytest.raises(DeclarationError, match="v__t"):
        BatchFeatureReader(ReadPlan("p", "s", (view,)))
