"""The standard job, declared as any user's: four windowed features, eight batch features, three
models. The name comes from the environment, so that runs on the same servers do not meet.
"""

import os
from datetime import datetime

from stream_infer import Event, Stream, Topology, count, feast_service, fields, total, weighted_mean

NAME = os.environ.get("BENCHMARK_TOPOLOGY", "standard")
EVENTS = os.environ.get("BENCHMARK_EVENTS", "standard.events")
"""Topic of the events: several runs may read the same log under names of their own."""


class Payment(Event, tag="payment"):
    """An account pays a merchant."""

    account: str
    at: datetime
    amount: float
    items: int
    merchant: str
    country: str
    via: str


payments = Stream(EVENTS, Payment, key="account", time="at", lateness="1m")

by_account = payments.view(
    "by_account",
    by=["account"],
    features={
        "payments_5m": count(over="5m"),
        "payments_1h": count(over="1h"),
        "spent_5m": total("amount", over="5m"),
        "spent_1h": total("amount", over="1h"),
    },
)

topology = Topology(
    name=NAME,
    on=Payment,
    inputs=[
        fields("amount", "items"),
        by_account,
        feast_service("standard", repo="benchmarks/features"),
    ],
    graph=weighted_mean({"trees": 0.6, "mlp": 0.3, "linear": 0.1}),
    output=f"{NAME}.predictions",
)
