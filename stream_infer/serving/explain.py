"""Why an event scores as it does: every input with its value and age, and every model's score."""

from collections.abc import Iterator
from datetime import datetime

import msgspec
import numpy as np

from stream_infer.core.columns import Batch
from stream_infer.core.features import Feature
from stream_infer.core.inputs import FieldsInput
from stream_infer.core.join import MISSING
from stream_infer.core.rekeyed import read_rekeyed
from stream_infer.core.results import Prediction, moment
from stream_infer.core.stream import View
from stream_infer.core.vectors import RekeyedValues, Vectors
from stream_infer.serving.scoring import Read, Scorer


class FeatureValue(msgspec.Struct, frozen=True, kw_only=True):
    """One input of the models.

    `source` is "event", "view" (streaming) or "batch" (Feast). `age_s`, at the event's time: of a
    batch feature, since it was true; of a streaming one, since the newest event in the state; of a
    rekeyed view's, since the newest event in its row.
    `reason` says why the value is null.
    """

    name: str
    value: float | None
    source: str
    view: str | None = None
    kind: str | None = None
    field: str | None = None
    window_s: float | None = None
    age_s: float | None = None
    reason: str | None = None


class ModelScore(msgspec.Struct, frozen=True, kw_only=True):
    """One model's part; `share` is its weight among the models that gave a score."""

    model: str
    version: str
    weight: float
    share: float
    score: float | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction with all that went into it; `state_as_of` is the newest event folded."""

    prediction: Prediction
    partition: int
    state_as_of: datetime | None
    features: list[FeatureValue]
    models: list[ModelScore]


async def explain(scorer: Scorer, batch: Batch) -> Explanation:
    """Explain the one event of `batch`, which is of the scored type."""
    read = await scorer.read(batch, with_times=True)
    vectors = scorer.vectors(read, batch)
    scored = scorer.score(vectors)
    prediction = scorer.predictions(batch, vectors, scored).objects()[0]
    stream_time_us = read.stream_times_us.get(read.partitions[0])
    return Explanation(
        prediction=prediction,
        partition=read.partitions[0],
        state_as_of=None if stream_time_us is None else moment(stream_time_us),
        features=_features(scorer, batch, read, vectors),
        models=_models(scorer, prediction),
    )


def _models(scorer: Scorer, prediction: Prediction) -> list[ModelScore]:
    combiner, versions = scorer.runtime.combiner, scorer.runtime.versions
    weights = dict(zip(combiner.models, combiner.weights or (), strict=True))
    present = sum(weights[name] for name in weights if prediction.scores[name] is not None)
    return [
        ModelScore(
            model=name,
            version=versions[name],
            weight=weight,
            share=weight / present if present and prediction.scores[name] is not None else 0.0,
            score=prediction.scores[name],
        )
        for name, weight in weights.items()
    ]


def _features(scorer: Scorer, batch: Batch, read: Read, vectors: Vectors) -> list[FeatureValue]:
    values = iter(vectors.values[0].tolist())
    reasons = {
        name for name, on in zip(vectors.reason_names, vectors.reasons[0], strict=True) if on
    }
    stream_time_us = read.stream_times_us.get(read.partitions[0])
    behind_s = (
        None if stream_time_us is None else max(0, int(batch.times_us[0]) - stream_time_us) / 1e6
    )
    rekeyed = read_rekeyed(scorer.runtime.topology, read.shards, batch)
    features: list[FeatureValue] = []
    for item in scorer.runtime.topology.inputs:
        if isinstance(item, FieldsInput):
            features += [_from_event(name, next(values)) for name in item.names]
        elif isinstance(item, View) and item.rekey:
            found = rekeyed[item.name]
            age_s = None if np.isnan(found.age_s[0]) else float(found.age_s[0])
            for name, feature in item.features.items():
                told = _from_view(item, name, feature, next(values), age_s, absent=False)
                reason = _rekeyed_reason(item, batch, found) or told.reason
                features.append(msgspec.structs.replace(told, reason=reason))
        elif isinstance(item, View):
            absent = f"missing:{item.name}" in reasons
            for name, feature in item.features.items():
                value = next(values)
                features.append(_from_view(item, name, feature, value, behind_s, absent))
        else:
            features += _from_batch(scorer, batch, read, values_of=values, reasons=reasons)
    return features


def _rekeyed_reason(view: View, batch: Batch, found: RekeyedValues) -> str | None:
    """Return why nothing of a rekeyed view can be told, None where it can."""
    if batch.keys(view.by)[0] is None:
        return f"the event has no {' + '.join(view.by)}"
    if found.missing[0]:
        return "no row: nothing was sent on by this key within the view's horizon, or not yet"
    return "its row has seen events too far after this one" if found.ahead[0] else None


def _from_event(name: str, value: float) -> FeatureValue:
    missing = np.isnan(value)
    return FeatureValue(
        name=name,
        value=None if missing else value,
        source="event",
        field=name,
        reason="absent or null in the event" if missing else None,
    )


def _from_view(
    view: View, name: str, feature: Feature, value: float, behind_s: float | None, absent: bool
) -> FeatureValue:
    reason = None
    if np.isnan(value):
        reason = (
            f"the event has no {' + '.join(view.by)}"
            if absent
            else "no events in the window"
            if feature.over_us
            else "a feature that it is made of is missing, or the divisor is 0"
        )
    field = feature.field or (
        f"{feature.numerator} / {feature.denominator}" if feature.numerator else None
    )
    return FeatureValue(
        name=f"{view.name}__{name}",
        value=None if np.isnan(value) else value,
        source="view",
        view=view.name,
        kind=feature.kind.value,
        field=field,
        window_s=feature.over_us / 1e6 or None,
        age_s=behind_s,
        reason=reason,
    )


def _from_batch(
    scorer: Scorer, batch: Batch, read: Read, *, values_of: Iterator[float], reasons: set[str]
) -> list[FeatureValue]:
    layout = scorer.runtime.engine.layout
    if layout is None or read.columns is None:
        return []
    time_us = int(batch.times_us[0])
    features = []
    for name, place in zip(layout.feature_names, layout.view_of_feature.tolist(), strict=True):
        value = next(values_of)
        view = layout.views[place]
        stored_us = int(read.columns.timestamps_us[0, place])
        reason = None
        if np.isnan(value):
            named = (kind for kind in ("missing", "stale") if f"{kind}:{view}" in reasons)
            texts = {"missing": "not in the feature store", "stale": "older than its time to live"}
            reason = texts.get(next(named, ""), "null in the feature store")
        features.append(
            FeatureValue(
                name=name,
                value=None if np.isnan(value) else value,
                source="batch",
                view=view,
                age_s=None if stored_us == MISSING else max(0, time_us - stored_us) / 1e6,
                reason=reason,
            )
        )
    return features
