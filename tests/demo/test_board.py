"""The score sheet counts each prediction once, and errors only from October on."""

from datetime import UTC, datetime, timedelta

import pytest

from stream_infer.core.results import Outcome, Prediction, encode
from stream_infer.demo.board import Board
from stream_infer.demo.flights import LIVE_FROM, FlightEvent, microseconds

BEFORE, AFTER = LIVE_FROM - timedelta(days=1), LIVE_FROM + timedelta(days=1)


def board() -> Board:
    return Board(mean_gain_min=-5.0, live_from_us=microseconds(LIVE_FROM))


def prediction(key: str, offset: int, moment: datetime = AFTER) -> bytes:
    return encode(
        Prediction(
            prediction_id=f"flight_delay:flights:2:{offset}",
            topology="flight_delay",
            key=key,
            score=3.0,
            scores={"linear": 3.0},
            models={"linear": "1"},
            event_time=moment,
            predicted_at=datetime.now(UTC),
        )
    )


def outcome(key: str, score: float, label: float, moment: datetime) -> bytes:
    return encode(
        Outcome(
            outcome_id="o",
            prediction_id="p",
            topology="flight_delay",
            key=key,
            score=score,
            label=label,
            error=score - label,
            predicted_for=moment,
            labelled_at=moment,
        )
    )


def test_latency_runs_from_the_event_to_its_prediction() -> None:
    sheet = board()
    sheet.event_sent(FlightEvent("a", 1.0), microseconds(AFTER), 10.0)
    sheet.prediction_read(prediction("a", 7), 10.25)
    assert sheet.latencies.n == 1
    assert sheet.latencies.percentile_ms(50) == pytest.approx(250.0, rel=0.02)
    assert sheet.seen_to == {2: 8}


def test_a_repeated_prediction_is_counted_apart() -> None:
    sheet = board()
    for _ in range(2):
        sheet.prediction_read(prediction("a", 7), 1.0)
    assert (sheet.predictions, sheet.repeated) == (1, 1)


def test_the_warm_up_has_neither_latency_nor_error() -> None:
    sheet = board()
    sheet.event_sent(FlightEvent("a", 4.0), microseconds(BEFORE), 1.0)
    sheet.prediction_read(prediction("a", 0, BEFORE), 2.0)
    sheet.event_sent(FlightEvent("a", 4.0, 2.0), microseconds(AFTER), 3.0)
    sheet.outcome_read(outcome("a", 5.0, 2.0, BEFORE))
    assert sheet.latencies.n == 0
    assert (sheet.outcomes, sheet.errors.labelled) == (1, 0)


def test_errors_are_of_flights_that_left_from_october_on() -> None:
    sheet = board()
    sheet.event_sent(FlightEvent("a", 4.0), microseconds(AFTER), 1.0)
    sheet.event_sent(FlightEvent("a", 4.0, 2.0), microseconds(AFTER), 3.0)
    sheet.outcome_read(outcome("a", 5.0, 2.0, AFTER))
    assert sheet.errors.rmse() == {
        "model": 3.0,
        "schedule": 2.0,
        "departure_plus_gain": 3.0,
        "labelled": 1,
    }
