"""Eight batch features of an account."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

account = Entity(name="account", join_keys=["account"], value_type=ValueType.STRING)

history = FeatureView(
    name="history",
    entities=[account],
    ttl=timedelta(days=30),
    schema=[Field(name=f"habit_{number}", dtype=Float64) for number in range(8)],
    source=FileSource(
        name="history", path="data/history.parquet", timestamp_field="event_timestamp"
    ),
    description="What an account usually does",
)

standard = FeatureService(name="standard", features=[history])
