"""A small Feast repository with every type, nulls, several join keys, aliases, and code in it."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

CONFIGURATION = """
project: types
provider: local
registry: data/registry.db
offline_store: {type: file}
online_store: {type: redis, connection_string: "localhost:1"}
entity_key_serialization_version: 3
auth: {type: no_auth}
"""

DEFINITIONS = """
from datetime import timedelta
import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Bool, Float32, Float64, Int32, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop_name"], value_type=ValueType.STRING)


def source(name):
    return FileSource(name=name, path=f"data/{name}.parquet", timestamp_field="event_timestamp")


users = FeatureView(
    name="users", entities=[user], ttl=timedelta(days=2), source=source("users"),
    schema=[
        Field(name="double", dtype=Float64), Field(name="float", dtype=Float32),
        Field(name="long", dtype=Int64), Field(name="int", dtype=Int32),
        Field(name="flag", dtype=Bool), Field(name="text", dtype=String),
    ],
)
visits = FeatureView(
    name="visits", entities=[user, shop], ttl=timedelta(days=30), source=source("visits"),
    schema=[Field(name="count", dtype=Int64), Field(name="rate", dtype=Float64)],
)
shops = FeatureView(
    name="shops", entities=[shop], ttl=timedelta(0), source=source("shops"),
    schema=[Field(name="rating", dtype=Float32), Field(name="open", dtype=Bool)],
)
more = FeatureView(
    name="more", entities=[user], ttl=timedelta(days=30), source=source("more"),
    schema=[Field(name="spare", dtype=Float64)],
)


@on_demand_feature_view(
    sources=[users], schema=[Field(name="twice", dtype=Float64)], mode="pandas"
)
def computed(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"twice": inputs["double"] * 2})


everything = FeatureService(
    name="everything",
    features=[
        users,
        visits.with_name("visits_there").with_join_key_map({"shop_name": "target"}),
        shops,
        more,
    ],
)
with_code = FeatureService(name="with_code", features=[users, computed])
"""

DAYS = [datetime(2024, 5, day, tzinfo=UTC) for day in (1, 2, 4)]
USERS = [1, 2, -3, 2**62, 0]
SHOPS = ["north", "süd", "", "a" * 300]


def write_repository(folder: Path) -> Path:
    """Write the repository and three snapshots of its sources; not yet applied."""
    (folder / "data").mkdir(parents=True)
    # A project of its own: tests may share a Redis.
    project = f"types_{uuid.uuid4().hex}"
    (folder / "feature_store.yaml").write_text(CONFIGURATION.replace("types", project))
    (folder / "definitions.py").write_text(DEFINITIONS)
    random = np.random.default_rng(7)
    tables = {
        "users": pd.concat([_users(random, day) for day in DAYS]),
        "visits": pd.concat([_visits(random, day) for day in DAYS]),
        "shops": pd.concat([_shops(random, day) for day in DAYS]),
        "more": pd.concat([_more(random, day) for day in DAYS[:2]]),
    }
    for name, table in tables.items():
        table.to_parquet(folder / "data" / f"{name}.parquet", index=False)
    return folder


def _users(random: np.random.Generator, day: datetime) -> pd.DataFrame:
    # The last user is not in every snapshot, so that the views' rows are of several ages.
    users = USERS if day == DAYS[0] else USERS[:-1]
    n = len(users)
    table = pd.DataFrame(
        {
            "user_id": np.array(users, np.int64),
            "double": np.r_[-0.0, random.normal(size=n - 1)],
            "float": random.normal(size=n).astype(np.float32),
            "long": pd.array(random.integers(-(2**50), 2**50, n), "Int64"),
            "int": pd.array(random.integers(-(2**31), 2**31, n), "Int32"),
            "flag": pd.array(random.random(n) < 0.5, "boolean"),
            "text": ["x", None, "", "ü", "z"][:n],
            "event_timestamp": pd.Timestamp(day).as_unit("us"),
        }
    )
    for place, name in enumerate(["double", "float", "long", "int", "flag"]):
        table.loc[place % n, name] = None
    return table


def _visits(random: np.random.Generator, day: datetime) -> pd.DataFrame:
    pairs = [(user, shop) for user in USERS[:3] for shop in SHOPS if random.random() < 0.8]
    return pd.DataFrame(
        {
            "user_id": np.array([user for user, _ in pairs], np.int64),
            "shop_name": [shop for _, shop in pairs],
            "count": random.integers(0, 1000, len(pairs)),
            "rate": random.random(len(pairs)),
            "event_timestamp": pd.Timestamp(day).as_unit("us"),
        }
    )


def _shops(random: np.random.Generator, day: datetime) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "shop_name": SHOPS,
            "rating": random.random(len(SHOPS)),
            "open": random.random(len(SHOPS)) < 0.5,
            "event_timestamp": pd.Timestamp(day).as_unit("us"),
        }
    )


def _more(random: np.random.Generator, day: datetime) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": np.array(USERS[1:3], np.int64),
            "spare": random.random(2),
            "event_timestamp": pd.Timestamp(day).as_unit("us"),
        }
    )
