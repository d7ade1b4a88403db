"""Entities, batch views and the feature service of the flight example."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Float64, Int32, Int64

tail_number = Entity(
    name="tail_number",
    join_keys=["tail_number"],
    value_type=ValueType.STRING,
    description="A plane, by its registration",
)
origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
dest = Entity(name="dest", join_keys=["dest"], value_type=ValueType.STRING)
airport_code = Entity(
    name="airport_code",
    join_keys=["airport"],
    value_type=ValueType.STRING,
    description="An airport, by its three-letter code",
)
carrier_code = Entity(
    name="carrier_code",
    join_keys=["carrier"],
    value_type=ValueType.STRING,
    description="An airline, by its two-letter code",
)


def source(name: str) -> FileSource:
    """The Parquet file of monthly snapshots that `features/prepare.py` writes for a view."""
    return FileSource(
        name=f"{name}_snapshots", path=f"data/{name}.parquet", timestamp_field="event_timestamp"
    )


plane = FeatureView(
    name="plane",
    entities=[tail_number],
    ttl=timedelta(days=400),
    schema=[
        Field(name="age_years", dtype=Float32),
        Field(name="seats", dtype=Int64),
        Field(name="engines", dtype=Int32),
    ],
    source=source("plane"),
    description="What is known of a plane; it does not change within the year",
)

route = FeatureView(
    name="route",
    entities=[origin, dest],
    ttl=timedelta(days=120),
    schema=[
        Field(name="gain_mean", dtype=Float64),
        Field(name="gain_std", dtype=Float64),
        Field(name="flights_per_day", dtype=Float64),
        Field(name="air_time_mean", dtype=Float64),
    ],
    source=source("route"),
    description="Arrivals of a route so far: minutes of delay gained in the air, and time there",
)

airport = FeatureView(
    name="airport",
    entities=[airport_code],
    ttl=timedelta(days=120),
    schema=[
        Field(name="latitude", dtype=Float64),
        Field(name="longitude", dtype=Float64),
        Field(name="altitude_ft", dtype=Int32),
        Field(name="arrivals_gain_mean", dtype=Float64),
        Field(name="arrivals_per_day", dtype=Float64),
    ],
    source=source("airport"),
    description="Where an airport is, and the arrivals there so far",
)

carrier = FeatureView(
    name="carrier",
    entities=[carrier_code],
    ttl=timedelta(days=120),
    schema=[
        Field(name="gain_mean", dtype=Float64),
        Field(name="delay_mean", dtype=Float64),
        Field(name="flights_per_day", dtype=Float64),
    ],
    source=source("carrier"),
    description="Arrivals of an airline so far: minutes gained, and delay at departure",
)

flight_delay = FeatureService(
    name="flight_delay",
    features=[
        plane,
        route,
        airport.with_name("dest_airport").with_join_key_map({"airport": "dest"}),
        carrier,
    ],
    description="Batch features of a departure; the airport is the one it flies to",
)
