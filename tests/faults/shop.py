"""The topology under test: sales and refunds; each of its models shows one feature as its score.

The environment names it: STREAM_INFER_TEST_TOPOLOGY, and STREAM_INFER_TEST_SOURCE its topic.
"""

import os
from datetime import datetime

from stream_infer import (
    Event,
    Label,
    Stream,
    Topology,
    count,
    ewm_mean,
    fields,
    last,
    maximum,
    since_last,
    std,
    total,
    weighted_mean,
)


class Sale(Event, tag="sale"):
    sale_id: str
    shop: str
    at: datetime
    amount: float
    item: str | None = None


class Refund(Event, tag="refund"):
    sale_id: str
    shop: str
    at: datetime
    refunded: float
    item: str | None = None


NAME = os.environ.get("STREAM_INFER_TEST_TOPOLOGY", "shop")
LATENESS_S = 120
HORIZON_S = 3600

sales = Stream(
    os.environ.get("STREAM_INFER_TEST_SOURCE", "sales"),
    Sale | Refund,
    key="shop",
    time="at",
    lateness=f"{LATENESS_S}s",
    event_id="sale_id",
    duplicates_within=f"{HORIZON_S}s",
)
by_shop = sales.view(
    "by_shop",
    by=["shop"],
    features={
        "sales_5m": count(over="5m", of=Sale),
        "amount_1h": total("amount", over="1h"),
        "amount_std_5m": std("amount", over="5m"),
        "recent": ewm_mean("amount", half_life="3m"),
    },
)
by_item = sales.view(
    "by_item",
    by=["shop", "item"],
    features={
        "highest": maximum("amount", over="5m"),
        "last": last("amount"),
        "since_s": since_last(),
    },
)
VECTOR = ("amount", *by_shop.feature_names, *by_item.feature_names)

topology = Topology(
    name=NAME,
    on=Sale,
    inputs=[fields("amount"), by_shop, by_item],
    graph=weighted_mean(dict.fromkeys(VECTOR, 1.0)),
    output=f"{NAME}.predictions",
    label=Label(of=Refund, key="sale_id", value="refunded", within=f"{HORIZON_S}s"),
)
