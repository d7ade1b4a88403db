"""The flight example with views across origins: what the whole network says of a flight.

All inputs of `flight_delay`, and those of its destination, its airline and its plane over all three
origins. Their keys lack the topic's key (`origin`), so they are rekeyed (docs/how-to/rekey.md).
"""

from stream_infer import (
    Label,
    Topology,
    count,
    ewm_mean,
    faust_app,
    feast_service,
    fields,
    last,
    mean,
    since_last,
    weighted_mean,
)
from topologies.flight_delay import Arrival, Departure, by_carrier, by_origin, by_route, flights

by_dest = flights.view(
    "by_dest",
    by=["dest"],
    rekey=True,
    features={
        "arrivals_1h": count(over="1h", of=Arrival),
        "gain_mean_1h": mean("gain_min", over="1h", of=Arrival),
        "gain_mean_3h": mean("gain_min", over="3h", of=Arrival),
        "gain_mean_24h": mean("gain_min", over="24h", of=Arrival),
        "delay_mean_3h": mean("departure_delay_min", over="3h", of=Departure),
        "gain_recent": ewm_mean("gain_min", half_life="1h", of=Arrival),
    },
)

by_airline = flights.view(
    "by_airline",
    by=["carrier"],
    rekey=True,
    features={
        "gain_mean_1h": mean("gain_min", over="1h", of=Arrival),
        "gain_mean_24h": mean("gain_min", over="24h", of=Arrival),
        "delay_mean_3h": mean("departure_delay_min", over="3h", of=Departure),
        "gain_recent": ewm_mean("gain_min", half_life="2h", of=Arrival),
    },
)

by_tail = flights.view(
    "by_tail",
    by=["tail_number"],
    rekey=True,
    features={
        "last_arrival_delay": last("arrival_delay_min", over="24h", of=Arrival),
        "since_arrival_s": since_last(over="24h", of=Arrival),
        "delay_mean_24h": mean("departure_delay_min", over="24h", of=Departure),
        "gain_recent": ewm_mean("gain_min", half_life="5d", of=Arrival),
    },
)

topology = Topology(
    name="flight_network",
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
        by_dest,
        by_airline,
        by_tail,
        feast_service("flight_delay"),
    ],
    graph=weighted_mean(["boosted_trees", "mlp", "linear"]),
    output="flight_network.predictions",
    label=Label(of=Arrival, key="flight_id", value="arrival_delay_min"),
    keep_results="2d",
)

app = faust_app(topology)
"""For `faust -A topologies.flight_network worker`; `stream-infer worker flight_network` does it."""
