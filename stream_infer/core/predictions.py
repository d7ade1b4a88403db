"""From vectors and model scores to predictions and outcomes, the same for stream and HTTP."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from stream_infer.core.columns import Batch, Floats, Ints
from stream_infer.core.labels import Joined
from stream_infer.core.results import Outcome, Prediction, moment, record_id
from stream_infer.core.topology import Topology
from stream_infer.core.vectors import Vectors, reason_texts


@dataclass(frozen=True, slots=True)
class Scored:
    """What the ensemble says of m vectors: `each` float64[m, M] by model, `combined` float64[m].

    NaN where a model, or all of them, gave no finite number. `failures` says why, by model, where
    one failed for some row: `model:NAME:timeout`, `…:error` or `…:nan`.
    """

    models: tuple[str, ...]
    each: Floats
    combined: Floats
    failures: Mapping[str, str] = field(default_factory=dict)

    def part(self, start: int, stop: int) -> "Scored":
        """Return the scores of vectors `start` to `stop`, without the failures."""
        return Scored(self.models, self.each[start:stop], self.combined[start:stop])


def make_predictions(
    topology: Topology,
    versions: Mapping[str, str],
    batch: Batch,
    vectors: Vectors,
    scored: Scored,
    ids: Sequence[str],
    predicted_at: datetime,
    latency_ms: npt.NDArray[np.float64] | None,
) -> list[Prediction]:
    """Return one prediction for each event of `batch` (n, as in `vectors` and `scored`)."""
    reasons = np.concatenate([vectors.reasons, np.isnan(scored.each)], axis=1)
    names = vectors.reason_names + tuple(f"model:{name}" for name in scored.models)
    keys = batch.labels(topology.key)
    rows = zip(
        ids,
        keys,
        scored.combined.tolist(),
        scored.each.tolist(),
        map(attrgetter(topology.stream.time), batch.events),
        [None] * len(batch) if latency_ms is None else latency_ms.round(3).tolist(),
        vectors.age_us.tolist(),
        reason_texts(reasons, names),
        strict=True,
    )
    return [
        Prediction(
            prediction_id=identity,
            topology=topology.name,
            key=key or "",
            score=_finite(score),
            scores={name: _finite(value) for name, value in zip(scored.models, each, strict=True)},
            models=dict(versions),
            event_time=event_time,
            predicted_at=predicted_at,
            latency_ms=latency,
            feature_age_s=None if age_us < 0 else age_us / 1e6,
            degraded=degraded,
        )
        for identity, key, score, each, event_time, latency, age_us, degraded in rows
    ]


def record_ids(topology: Topology, topic: str, partition: int, offsets: Ints) -> list[str]:
    """Return the prediction ids of records."""
    return [record_id(topology.name, topic, partition, offset) for offset in offsets.tolist()]


def make_outcomes(
    topology: Topology, topic: str, partition: int, kept: Batch, pairs: Sequence[Joined]
) -> list[Outcome]:
    """Return the outcome of each pair of prediction and label; `kept` is the batch it arose in."""
    if not pairs or topology.label is None:
        return []
    keys = kept.labels(topology.label.key)
    return [
        Outcome(
            outcome_id=record_id(topology.name, topic, partition, int(kept.offsets[pair.event])),
            prediction_id=record_id(topology.name, topic, partition, pair.offset),
            topology=topology.name,
            key=keys[pair.event] or "",
            score=pair.score,
            label=pair.label,
            error=pair.score - pair.label,
            predicted_for=moment(pair.predicted_us),
            labelled_at=moment(pair.labelled_us),
        )
        for pair in pairs
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
