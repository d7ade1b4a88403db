"""What is published: predictions, outcomes, and their ids."""

from datetime import UTC, datetime

import msgspec


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One scored event.

    `prediction_id` is a pure function of topology, topic, partition and offset, so that a repeat
    is recognisable. `score` and each of `scores` is null where no finite number came out.
    `latency_ms` runs from the record's broker timestamp to `predicted_at`; `feature_age_s` is the
    age, at the event's time, of the oldest batch feature in use; `degraded` names each input that
    was missing, stale or failed.
    """

    prediction_id: str
    topology: str
    key: str
    score: float | None
    scores: dict[str, float | None]
    models: dict[str, str]
    event_time: datetime
    predicted_at: datetime
    latency_ms: float | None = None
    feature_age_s: float | None = None
    degraded: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction together with what turned out; `error` is score − label."""

    outcome_id: str
    prediction_id: str
    topology: str
    key: str
    score: float
    label: float
    error: float
    predicted_for: datetime
    labelled_at: datetime


def record_id(topology: str, topic: str, partition: int, offset: int | str) -> str:
    """Return the id of what a topology makes of one record.

    >>> record_id("flight_delay", "flights", 3, 17)
    'flight_delay:flights:3:17'
    """
    return f"{topology}:{topic}:{partition}:{offset}"


def moment(time_us: int) -> datetime:
    """Return microseconds since the epoch as an aware UTC datetime."""
    return datetime.fromtimestamp(time_us / 1e6, UTC)


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""JSON bytes of a Prediction or an Outcome; NaN becomes null."""
encode_lines = _encoder.encode_lines
"""What `encode` gives for each of a list, every one ended by a line end."""
