"""Predictions in columns say what one `Prediction` an event says."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np

from stream_infer.core.predictions import Predictions
from stream_infer.core.results import Prediction, encode

NOW = datetime(2026, 11, 1, 12, 0, 0, 125_000, UTC)


def columns(latency_ms: list[float] | None) -> Predictions:
    return Predictions(
        topology="shop",
        versions={"linear": "1", "boosted-trees": "7"},
        models=("linear", "boosted-trees"),
        ids=["shop:sales:0:1", "shop:sales:0:2", "shop:sales:0:3"],
        keys=["a", 'quoted "b"\n', ""],
        score=np.array([0.1, np.nan, 3.0]),
        scores=np.array([[0.1, 0.2], [np.nan, np.inf], [3.0, -np.inf]]),
        event_times=[NOW, NOW + timedelta(microseconds=1), NOW],
        predicted_at=NOW,
        latency_ms=None if latency_ms is None else np.array(latency_ms),
        age_s=np.array([np.nan, 0.0, 1.5]),
        degraded=[(), ("missing:by_shop",), ("model:linear", "stale:plane")],
    )


def test_the_columns_are_written_as_single_predictions_are() -> None:
    table = columns([0.12345, 12.0, -3.0])
    one_by_one = [
        Prediction(
            prediction_id=table.ids[i],
            topology="shop",
            key=table.keys[i],
            score=score,
            scores=dict(zip(table.models, scores, strict=True)),
            models=dict(table.versions),
            event_time=table.event_times[i],
            predicted_at=NOW,
            latency_ms=latency,
            feature_age_s=age,
            degraded=table.degraded[i],
        )
        for i, (score, scores, latency, age) in enumerate(
            [
                (0.1, (0.1, 0.2), 0.123, None),
                (None, (None, None), 12.0, 0.0),
                (3.0, (3.0, None), -3.0, 1.5),
            ]
        )
    ]
    assert table.encoded() == [encode(prediction) for prediction in one_by_one]
    assert table.objects() == one_by_one


def test_a_prediction_without_a_record_has_no_latency() -> None:
    assert [msgspec.json.decode(line)["latency_ms"] for line in columns(None).encoded()] == [
        None
    ] * 3


def test_no_events_make_no_predictions() -> None:
    table = columns(None)
    empty = Predictions(
        "shop", {}, table.models, [], [], np.zeros(0), np.zeros((0, 2)), [], NOW, None,
        np.zeros(0), [],
    )  # fmt: skip
    assert empty.encoded() == []
