"""Predict each flight's arrival delay at the moment it leaves its gate.

Departures and arrivals of New York's airports travel in one topic, keyed by origin. Recent delays
and gains (arrival delay − departure delay) of the same origin, carrier and route say how the sky
is today; plane, route, destination and carrier come from Feast.
"""

from datetime import datetime

from stream_infer import (
    Event,
    Label,
    Stream,
    Topology,
    count,
    ewm_mean,
    faust_app,
    feast_service,
    fields,
    mean,
    ratio,
    since_last,
    std,
    weighted_mean,
)


class Departure(Event, tag="departure"):
    """A flight left the gate."""

    flight_id: str
    origin: str
    dest: str
    carrier: str
    at: datetime
    scheduled_at: datetime
    departure_delay_min: float
    distance_mi: float
    scheduled_hour: int
    scheduled_weekday: int
    scheduled_duration_min: float
    tail_number: str | None = None


class Arrival(Event, tag="arrival"):
    """A flight reached its destination."""

    flight_id: str
    origin: str
    dest: str
    carrier: str
    at: datetime
    departure_delay_min: float
    arrival_delay_min: float
    gain_min: float
    tail_number: str | None = None


flights = Stream(
    "flights",
    Departure | Arrival,
    key="origin",
    time="at",
    lateness="10m",
    event_id="flight_id",
    duplicates_within="1d",
)

by_origin = flights.view(
    "by_origin",
    by=["origin"],
    features={
        "departures_30m": count(over="30m", of=Departure),
        "departures_24h": count(over="24h", of=Departure),
        "busy": ratio("departures_30m", "departures_24h"),
        "delay_mean_30m": mean("departure_delay_min", over="30m", of=Departure),
        "delay_mean_3h": mean("departure_delay_min", over="3h", of=Departure),
        "gain_mean_1h": mean("gain_min", over="1h", of=Arrival),
        "gain_mean_3h": mean("gain_min", over="3h", of=Arrival),
        "gain_mean_24h": mean("gain_min", over="24h", of=Arrival),
        "gain_std_3h": std("gain_min", over="3h", of=Arrival),
        "gain_recent": ewm_mean("gain_min", half_life="30m", of=Arrival),
    },
)

by_carrier = flights.view(
    "by_carrier",
    by=["origin", "carrier"],
    features={
        "delay_mean_3h": mean("departure_delay_min", over="3h", of=Departure),
        "gain_mean_3h": mean("gain_min", over="3h", of=Arrival),
        "gain_mean_24h": mean("gain_min", over="24h", of=Arrival),
        "gain_recent": ewm_mean("gain_min", half_life="2h", of=Arrival),
    },
)

by_route = flights.view(
    "by_route",
    by=["origin", "dest"],
    features={
        "gain_mean_3h": mean("gain_min", over="3h", of=Arrival),
        "gain_mean_24h": mean("gain_min", over="24h", of=Arrival),
        "gain_recent": ewm_mean("gain_min", half_life="6h", of=Arrival),
        "since_last_s": since_last(of=Arrival),
    },
)

topology = Topology(
    name="flight_delay",
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
        feast_service("flight_delay"),
    ],
    graph=weighted_mean(["boosted_trees", "mlp", "linear"]),
    output="flight_delay.predictions",
    label=Label(of=Arrival, key="flight_id", value="arrival_delay_min"),
    keep_results="2d",
)

app = faust_app(topology)
"""For `faust -A topologies.flight_delay worker`; `stream-infer worker flight_delay` is the same."""
