"""The fingerprint of stored rows."""

from datetime import datetime

from stream_infer.core.combiners import weighted_mean
from stream_infer.core.engine import Engine
from stream_infer.core.events import Event
from stream_infer.core.features import count
from stream_infer.core.stream import Stream
from stream_infer.core.topology import Topology


class Sale(Event, tag="sale"):
    shop: str
    item: str
    at: datetime


def schema(*, stream: str = "sales", view: str = "by_shop", by: str = "shop item") -> str:
    sales = Stream(stream, Sale, key="shop", time="at")
    features = {"sales_1h": count(over="1h")}
    return Engine(
        Topology(
            name="sold",
            on=Sale,
            inputs=[sales.view(view, by=by.split(), features=features)],
            graph=weighted_mean({"model": 1.0}),
            output="sold.predictions",
        )
    ).schema


def test_rows_of_another_log_view_or_key_are_told_apart() -> None:
    assert schema() == schema()
    others = [schema(stream="returns"), schema(view="by_place"), schema(by="shop")]
    assert len({schema(), *others}) == 4
