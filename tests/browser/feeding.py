"""Results as a worker would publish them, made up, for the live page."""

import math
from datetime import UTC, datetime, timedelta
from random import Random

from stream_infer.core.results import Outcome, Prediction, encode
from stream_infer.serving.live import OUTCOME, PREDICTION, Hub

BEGIN = datetime(2013, 10, 1, 12, tzinfo=UTC)
MODELS = ("boosted_trees", "mlp", "linear")


def prediction(topology: str, number: int, random: Random, key: str | None = None) -> bytes:
    """Return an encoded prediction."""
    score = random.gauss(6, 22)
    degraded = () if random.random() > 0.1 else ("missing:plane", "stale:route")
    moment = BEGIN + timedelta(seconds=7 * number)
    return encode(
        Prediction(
            prediction_id=f"{topology}:flights:{number % 4}:{number}",
            topology=topology,
            key=key or f"2013-10-01-{random.choice(['UA', 'DL', 'B6'])}-{1000 + number}",
            score=score,
            scores={name: score + random.gauss(0, 3) for name in MODELS},
            models=dict.fromkeys(MODELS, "1"),
            event_time=moment,
            predicted_at=moment,
            latency_ms=random.lognormvariate(1.8, 0.5),
            degraded=degraded,
        )
    )


def outcome(topology: str, number: int, random: Random) -> bytes:
    """Return an encoded outcome."""
    error = random.gauss(0, 14 + 3 * math.sin(number / 40))
    return encode(
        Outcome(
            outcome_id=f"{topology}:flights:0:{number}",
            prediction_id=f"{topology}:flights:0:{number}",
            topology=topology,
            key="k",
            score=error,
            label=0.0,
            error=error,
            predicted_for=BEGIN,
            labelled_at=BEGIN,
        )
    )


def feed(hub: Hub, topology: str, seconds: int, per_second: int, random: Random) -> None:
    """Publish so many seconds of results at once, each second summed up."""
    for second in range(seconds):
        for i in range(per_second):
            number = second * per_second + i
            hub.publish(topology, PREDICTION, prediction(topology, number, random))
            hub.publish(topology, OUTCOME, outcome(topology, number, random))
        hub.tick()
