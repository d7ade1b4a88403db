"""What is known of a stored model, and of the ensemble that a topology's models make."""

from datetime import datetime

import msgspec


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model.

    `features` are its inputs in order; `sha256` is of `model.onnx`; `metrics` have their unit in
    their name; `trained_from` and `trained_to` are the event times it was fitted on.
    """

    model: str
    version: int
    sha256: str
    features: tuple[str, ...]
    input: str
    output: str
    created_at: datetime
    trained_from: datetime | None = None
    trained_to: datetime | None = None
    metrics: dict[str, float] = {}
    seed: int | None = None
    frameworks: dict[str, str] = {}


class Ensemble(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of a topology's models, how they were chosen, and how well they did there.

    `versions` are the models that were trained together with these weights. `metrics` are over
    the validation period, by model and for "ensemble".
    """

    weights: dict[str, float]
    versions: dict[str, int]
    chosen: str
    validated_from: datetime | None = None
    validated_to: datetime | None = None
    metrics: dict[str, dict[str, float]] = {}
    created_at: datetime
