"""Predict each flight's arrival delay as `flight_delay` does, and from the weather at its origin.

The weather is a stream of its own, in a topic of its own, keyed by origin like the flights. Both
topics are read as one log, by event time.
"""

from datetime import datetime

from stream_infer import (
    Event,
    Label,
    Stream,
    Topology,
    ewm_mean,
    faust_app,
    feast_service,
    fields,
    last,
    maximum,
    since_last,
    total,
    weighted_mean,
)
from topologies.flight_delay import Arrival, Departure, by_carrier, by_origin, by_route


class Observation(Event, tag="observation"):
    """The weather at one airport, each hour."""

    origin: str
    at: datetime
    temperature_f: float | None = None
    dew_point_f: float | None = None
    humidity_percent: float | None = None
    wind_speed_mph: float | None = None
    gust_mph: float | None = None
    precipitation_in: float | None = None
    pressure_mb: float | None = None
    visibility_mi: float | None = None


weather = Stream("weather", Observation, key="origin", time="at", lateness="2h")

weather_at_origin = weather.view(
    "weather_at_origin",
    by=["origin"],
    features={
        "visibility": last("visibility_mi", over="6h"),
        "visibility_recent": ewm_mean("visibility_mi", half_life="2h"),
        "precipitation_3h": total("precipitation_in", over="3h"),
        "wind": last("wind_speed_mph", over="6h"),
        "wind_max_3h": maximum("wind_speed_mph", over="3h"),
        "gusts_max_3h": maximum("gust_mph", over="3h"),
        "humidity": last("humidity_percent", over="6h"),
        "temperature": last("temperature_f", over="6h"),
        "pressure": last("pressure_mb", over="6h"),
        "age_s": since_last(),
    },
)

topology = Topology(
    name="flight_weather",
    on=Departure,
    inputs=[
        fields(
            "departure_delay_min",
            "distance_mi",
            "scheduled_hour",
            "scheduled_weekday",
            "scheduled_duration_min",
        ),
        by_origin,
        by_carrier,
        by_route,
        weather_at_origin,
        feast_service("flight_delay"),
    ],
    graph=weighted_mean(["boosted_trees", "mlp", "linear"]),
    output="flight_weather.predictions",
    label=Label(of=Arrival, key="flight_id", value="arrival_delay_min"),
    keep_results="2d",
)

app = faust_app(topology)
"""For `faust -A topologies.flight_weather worker`; `stream-infer worker flight_weather` too."""
