"""The score sheet of a run: what was sent, what came back, and what it says."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from stream_infer.core.results import Outcome, Prediction
from stream_infer.demo.flights import FlightEvent
from stream_infer.demo.measures import Latencies, SquaredErrors

WAITING_MAX = 200_000
"""Flights whose prediction or landing is awaited at a time."""

Value = TypeVar("Value")

_decode_prediction = msgspec.json.Decoder(Prediction).decode
_decode_outcome = msgspec.json.Decoder(Outcome).decode


@dataclass(slots=True)
class Board:
    """Counts of one run; times are seconds of one monotonic clock.

    `live_from_us` is the event time from which errors and latencies count: what comes before only
    warms the state up.
    """

    mean_gain_min: float
    live_from_us: int
    sent: int = 0
    sent_warm_up: int = 0
    departures: int = 0
    acknowledged: int = 0
    refused: int = 0
    predictions: int = 0
    repeated: int = 0
    without_score: int = 0
    degraded: int = 0
    outcomes: int = 0
    dead_letters: int = 0
    first_prediction_s: float | None = None
    first_live_prediction_s: float | None = None
    event_time_us: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    errors: SquaredErrors = field(default_factory=SquaredErrors)
    seen_to: dict[int, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _sent_at_s: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _arrived: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def event_sent(self, event: FlightEvent, time_us: int, now_s: float) -> None:
        """Count an event handed to Kafka's client at `now_s`."""
        self.sent += 1
        self.event_time_us = time_us
        if event.arrival_delay_min is not None:
            _remember(
                self._arrived,
                event.flight_id,
                (event.departure_delay_min, event.arrival_delay_min),
            )
            return
        self.departures += 1
        if time_us >= self.live_from_us:
            _remember(self._sent_at_s, event.flight_id, now_s)

    def prediction_read(self, value: bytes, now_s: float) -> Prediction:
        """Count a prediction that was readable at `now_s`."""
        prediction = _decode_prediction(value)
        _, _, partition, offset = prediction.prediction_id.rsplit(":", 3)
        place = int(partition), int(offset)
        if place in self._seen:
            self.repeated += 1
            return prediction
        self._seen.add(place)
        self.seen_to[place[0]] = max(self.seen_to.get(place[0], 0), place[1] + 1)
        self.predictions += 1
        if self.first_prediction_s is None:
            self.first_prediction_s = now_s
            self.versions = dict(prediction.models)
        self.without_score += prediction.score is None
        self.degraded += bool(prediction.degraded)
        sent_s = self._sent_at_s.pop(prediction.key, None)
        if sent_s is not None:
            self.latencies.add((now_s - sent_s) * 1e3)
            if self.first_live_prediction_s is None:
                self.first_live_prediction_s = now_s
        return prediction

    def outcome_read(self, value: bytes) -> None:
        """Count a prediction that met its label, and compare it with what simpler rules say."""
        outcome = _decode_outcome(value)
        self.outcomes += 1
        delays = self._arrived.pop(outcome.key, None)
        if delays is None or outcome.predicted_for.timestamp() * 1e6 < self.live_from_us:
            return
        self.errors.add(outcome.score, outcome.label, delays[0], self.mean_gain_min)


def _remember(table: OrderedDict[str, Value], key: str, value: Value) -> None:
    table[key] = value
    if len(table) > WAITING_MAX:
        table.popitem(last=False)
