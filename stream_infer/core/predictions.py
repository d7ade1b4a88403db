"""From vectors and model scores to predictions and outcomes, the same for stream and HTTP."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import repeat
from operator import attrgetter

import msgspec
import numpy as np

from stream_infer.core.arrays import FEW, Floats, Ints
from stream_infer.core.columns import Batch
from stream_infer.core.labels import Joined
from stream_infer.core.results import Outcome, Prediction, encode, encode_lines, moment, record_id
from stream_infer.core.topology import Topology
from stream_infer.core.vectors import Vectors, reason_texts


class Scored(msgspec.Struct, frozen=True):
    """What the ensemble says of m vectors: `each` float64[m, M] by model, `combined` float64[m].

    NaN where a model, or all of them, gave no finite number. `failures` says why, by model, where
    one failed for some row: `model:NAME:timeout`, `…:error` or `…:nan`.
    """

    models: tuple[str, ...]
    each: Floats
    combined: Floats
    failures: Mapping[str, str] = msgspec.field(default_factory=dict)

    def part(self, start: int, stop: int) -> "Scored":
        """Return the scores of vectors `start` to `stop`, without the failures."""
        return Scored(self.models, self.each[start:stop], self.combined[start:stop])


class _Wire(msgspec.Struct, frozen=True, gc=False):
    """A `Prediction` on its way to JSON: the same fields; what all of a batch share is text."""

    prediction_id: str
    topology: str
    key: str
    score: float
    scores: msgspec.Struct
    models: msgspec.Raw
    event_time: datetime
    predicted_at: msgspec.Raw
    latency_ms: float | None
    feature_age_s: float
    degraded: tuple[str, ...]


class Predictions(msgspec.Struct, frozen=True):
    """Predictions of a batch of m events as columns; `latency_ms` is None without a record.

    `score` float64[m] and `scores` float64[m, M] are NaN where there is no finite number; `age_s`
    float64[m] is the age of the oldest batch feature in use, NaN where there is none.
    """

    topology: str
    versions: Mapping[str, str]
    models: tuple[str, ...]
    ids: Sequence[str]
    keys: list[str]
    score: Floats
    scores: Floats
    event_times: list[datetime]
    predicted_at: datetime
    latency_ms: Floats | None
    age_s: Floats
    degraded: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.keys)

    def objects(self) -> list[Prediction]:
        """Return them one by one."""
        return list(map(_decode, self.encoded()))

    def encoded(self) -> list[bytes]:
        """Return the JSON of each, as `results.encode` writes a `Prediction`."""
        none: Iterable[None] = repeat(None)
        wires = map(
            _Wire,
            self.ids,
            repeat(self.topology),
            self.keys,
            self.score.tolist(),
            map(_scores_type(self.models), *self.scores.T.tolist()),
            repeat(msgspec.Raw(encode(self.versions))),
            self.event_times,
            repeat(msgspec.Raw(encode(self.predicted_at))),
            none if self.latency_ms is None else self.latency_ms.round(3).tolist(),
            self.age_s.tolist(),
            self.degraded,
        )
        # All at once is faster; line ends within texts are escaped.
        return encode_lines(list(wires)).split(b"\n")[:-1]


_decode = msgspec.json.Decoder(Prediction).decode


@cache
def _scores_type(models: tuple[str, ...]) -> type[msgspec.Struct]:
    """Return the type of an object with a number by each model's name."""
    names = {f"m{number}": model for number, model in enumerate(models)}
    return msgspec.defstruct(
        "Scores", [(name, float) for name in names], rename=names, frozen=True, gc=False
    )


def make_predictions(
    topology: Topology,
    versions: Mapping[str, str],
    batch: Batch,
    vectors: Vectors,
    scored: Scored,
    ids: Sequence[str],
    predicted_at: datetime,
    latency_ms: Floats | None,
) -> Predictions:
    """Return a prediction for each event of `batch` (m, as in `vectors` and `scored`)."""
    degraded: list[tuple[str, ...]] = [()] * len(batch)
    failed = np.isnan(scored.each)
    if np.count_nonzero(vectors.reasons) or np.count_nonzero(failed):
        reasons = np.concatenate([vectors.reasons, failed], axis=1)
        names = vectors.reason_names + tuple(f"model:{name}" for name in scored.models)
        degraded = reason_texts(reasons, names)
    return Predictions(
        topology.name,
        versions,
        scored.models,
        ids,
        [key or "" for key in batch.labels(topology.key)],
        scored.combined,
        scored.each,
        list(map(attrgetter(topology.stream.time), batch.events)),
        predicted_at,
        latency_ms,
        _seconds(vectors.age_us),
        degraded,
    )


def _seconds(age_us: Ints) -> Floats:
    """Return ages as float64[n], NaN where there is none."""
    if len(age_us) <= FEW:
        return np.array([us / 1e6 if us >= 0 else np.nan for us in age_us.tolist()])
    return np.where(age_us < 0, np.nan, age_us / 1e6)


def record_ids(topology: Topology, partition: int, offsets: Ints) -> list[str]:
    """Return the prediction ids of records of the scored stream."""
    prefix = record_id(topology.name, topology.stream.name, partition, "")
    return [f"{prefix}{offset}" for offset in offsets.tolist()]


def make_outcomes(
    topology: Topology, partitions: Sequence[int], kept: Batch, pairs: Sequence[Joined]
) -> list[Outcome]:
    """Return the outcome of each pair of prediction and label.

    `kept` is the batch that they arose in, of whose events `partitions` are where they lie.
    """
    if not pairs or topology.label is None:
        return []
    keys = kept.labels(topology.label.key)
    scored = topology.stream.name

    def place(event: int) -> tuple[str, int]:
        topic = scored if kept.sources is None else topology.streams[kept.sources[event]].name
        return topic, partitions[event]

    return [
        Outcome(
            outcome_id=record_id(topology.name, *place(pair.event), int(kept.offsets[pair.event])),
            prediction_id=record_id(topology.name, scored, partitions[pair.event], pair.offset),
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
