"""The topology under test: sales and refunds; each of its models shows one feature as its score.

The environment names it: STREAM_INFER_TEST_TOPOLOGY, and STREAM_INFER_TEST_SOURCE its topic. With
STREAM_INFER_TEST_FIXED it accepts long notes, too; with STREAM_INFER_TEST_REKEY it has views across
shops, of which no model takes anything; with STREAM_INFER_TEST_REPORTS, the name of a topic, also
a view of that second stream, whose features have models too.
"""

import os
from datetime import datetime
from typing import Annotated

from msgspec import Meta

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
from tests.faults import hooks

hooks.arm()
NOTE_MAX = 1_000 if os.environ.get("STREAM_INFER_TEST_FIXED") else 8
Note = Annotated[str, Meta(max_length=NOTE_MAX)]


class Sale(Event, tag="sale"):
    sale_id: str
    shop: str
    at: datetime
    amount: float
    item: str | None = None
    note: Note = ""


class Refund(Event, tag="refund"):
    sale_id: str
    shop: str
    at: datetime
    refunded: float
    item: str | None = None


class Report(Event, tag="report"):
    shop: str
    seen_at: datetime
    rain_mm: float | None = None
    gust: float | None = None


NAME = os.environ.get("STREAM_INFER_TEST_TOPOLOGY", "shop")
REPORTS = os.environ.get("STREAM_INFER_TEST_REPORTS", "")
LATENESS_S = 120
REPORTS_LATENESS_S = 60
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

# Across shops: the rows of the first two do not depend on the order of the shops' events.
of_item = sales.view(
    "of_item",
    by=["item"],
    rekey=True,
    features={
        "sales_5m": count(over="5m", of=Sale),
        "amount_1h": total("amount", over="1h"),
        "highest": maximum("amount", over="5m"),
    },
)
of_sale = sales.view(
    "of_sale",
    by=["sale_id"],
    rekey=True,
    features={"events_1h": count(over="1h"), "refunded_1h": total("refunded", over="1h")},
)
item_trend = sales.view(
    "item_trend",
    by=["item"],
    rekey=True,
    features={"recent": ewm_mean("amount", half_life="3m")},
)
ACROSS = (of_item, of_sale, item_trend)
VECTOR_ACROSS = (*VECTOR, *(name for view in ACROSS for name in view.feature_names))

# A second stream, merged with the first by event time; of equal times, the sales come first.
# Without event ids: what is folded twice counts twice.
reports = Stream(
    REPORTS or "reports",
    Report,
    key="shop",
    time="seen_at",
    lateness=f"{REPORTS_LATENESS_S}s",
)
sky = reports.view(
    "sky",
    by=["shop"],
    features={
        "reports_5m": count(over="5m"),
        "rain_10m": total("rain_mm", over="10m"),
        "gust_max_5m": maximum("gust", over="5m"),
        "gust": last("gust"),
        "age_s": since_last(),
    },
)
VECTOR_SKY = (*VECTOR, *sky.feature_names)

topology = Topology(
    name=NAME,
    on=Sale,
    inputs=[
        fields("amount"),
        by_shop,
        by_item,
        *(ACROSS if os.environ.get("STREAM_INFER_TEST_REKEY") else ()),
        *([sky] if REPORTS else ()),
    ],
    graph=weighted_mean(dict.fromkeys(VECTOR_SKY if REPORTS else VECTOR, 1.0)),
    output=f"{NAME}.predictions",
    label=Label(of=Refund, key="sale_id", value="refunded", within=f"{HORIZON_S}s"),
)
