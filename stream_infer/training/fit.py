"""Training an ensemble from a table: validate in time's order, choose weights, refit, store."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import numpy.typing as npt

from stream_infer.core.combiners import weighted_mean
from stream_infer.core.errors import ModelError, StreamInferError, did_you_mean
from stream_infer.models.loading import VALIDATED_FOLDER
from stream_infer.models.manifest import Ensemble, Manifest
from stream_infer.models.repository import MODEL_FILE, ModelArtifact, ModelRepository
from stream_infer.models.sessions import OnnxModel
from stream_infer.models.validation import ValidationLimits, Validator
from stream_infer.training.estimators import (
    F32,
    F64,
    BoostedTrees,
    Estimator,
    Fitted,
    Linear,
    Network,
)
from stream_infer.training.export import INPUT, OUTPUT, Baseline
from stream_infer.training.steps import Progress, Steps
from stream_infer.training.weights import rmse, simplex_weights

ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {"boosted_trees": BoostedTrees(), "mlp": Network(), "linear": Linear()}
)
_FRAMEWORKS = ("numpy", "onnx", "onnxruntime", "scikit-learn")
_ROWS_MIN = 100
_COMPARED_ROWS = 5_000
_DIFFERENCE_MAX = 1e-4


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """Vectors x float32[n, F] (NaN where missing), labels y float64[n], event times int64[n]."""

    names: tuple[str, ...]
    x: F32
    y: F64
    times_us: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[np.bool_]) -> "TrainingTable":
        """Return the rows where bool[n] is true."""
        return TrainingTable(self.names, self.x[rows], self.y[rows], self.times_us[rows])


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a training did. RMSEs are in the label's unit, over the validation period."""

    topology: str
    rows_fitted: int
    rows_validated: int
    rmse: dict[str, float]
    rmse_ensemble: float
    weights: dict[str, float]
    versions: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Validation:
    """What the validation said, and the period (µs) that it was over."""

    weights: dict[str, float]
    rmse: dict[str, float]
    rmse_ensemble: float
    rows: int
    from_us: int


def train(
    table: TrainingTable,
    cutoff_us: int,
    repository: ModelRepository,
    topology: str,
    *,
    baseline: str | None = None,
    estimators: Mapping[str, Estimator] = ESTIMATORS,
    validated_share: float = 2 / 9,
    seed: int = 0,
    created_at: datetime | None = None,
    progress: Progress | None = None,
) -> TrainingReport:
    """Fit the models on rows before `cutoff_us`, and store them and the ensemble.

    First they are fitted on the earlier part of that time and the weights are chosen on the last
    `validated_share` of it; then they are fitted again on all. `baseline` names a feature that each
    model adds its score to, inside its graph: the models then learn the label's difference from it.
    Rows without a finite label are left out. `created_at` defaults to now.

    Raises StreamInferError when the table cannot be trained on.
    """
    table = table.take(np.isfinite(table.y) & (table.times_us < cutoff_us))
    _check(table)
    steps = Steps(progress or (lambda stage, share: None), estimators)
    base = _baseline(table, baseline)
    from_us, to_us = int(table.times_us.min()), int(table.times_us.max()) + 1
    split_us = from_us + round((to_us - from_us) * (1 - validated_share))
    validation = _validate(table, split_us, base, estimators, seed, steps)
    fitted = _fit_all("fitting", table, base, estimators, seed, steps)
    now = created_at or datetime.now(UTC)
    versions: dict[str, int] = {}
    for name, model in fitted.items():
        steps.tell(f"storing {name}")
        described = Manifest(
            model=name,
            version=0,
            sha256="",
            features=table.names,
            input=INPUT,
            output=OUTPUT,
            created_at=now,
            trained_from=_moment(from_us),
            trained_to=_moment(to_us),
            metrics={"validation_rmse": validation.rmse[name]},
            seed=seed,
            frameworks=_frameworks(),
        )
        versions[name] = _store(described, model, table, base, repository, topology)
    repository.save_ensemble(topology, _ensemble(validation, versions, to_us, now))
    steps.finish()
    return TrainingReport(
        topology=topology,
        rows_fitted=len(table.y),
        rows_validated=validation.rows,
        rmse=validation.rmse,
        rmse_ensemble=validation.rmse_ensemble,
        weights=validation.weights,
        versions=versions,
    )


def _check(table: TrainingTable) -> None:
    n = len(table.y)
    if table.x.shape != (n, len(table.names)) or table.times_us.shape != (n,):
        raise StreamInferError(
            f"training table: x has shape {table.x.shape}, times {table.times_us.shape}; "
            f"expected ({n}, {len(table.names)}) and ({n},)"
        )
    if n < _ROWS_MIN:
        raise StreamInferError(
            f"training table: {n} rows with a label before the cutoff; at least {_ROWS_MIN} needed"
        )


def _baseline(table: TrainingTable, name: str | None) -> Baseline | None:
    if name is None:
        return None
    if name not in table.names:
        raise StreamInferError(
            f"training: baseline {name!r} is no feature{did_you_mean(name, table.names)}"
        )
    column = table.names.index(name)
    values = table.x[:, column].astype(np.float64)
    known = values[np.isfinite(values)]
    return Baseline(column, float(known.mean()) if len(known) else 0.0)


def _base_values(x: F32, base: Baseline | None) -> F64:
    if base is None:
        return np.zeros(len(x))
    values = x[:, base.column].astype(np.float64)
    return np.where(np.isnan(values), base.missing, values)


def _fit_all(
    stage: str,
    table: TrainingTable,
    base: Baseline | None,
    estimators: Mapping[str, Estimator],
    seed: int,
    steps: Steps,
) -> dict[str, Fitted]:
    target = table.y - _base_values(table.x, base)
    return {
        name: kind.fit(table.x, target, seed, steps.of(stage, name))
        for name, kind in estimators.items()
    }


def _validate(
    table: TrainingTable,
    split_us: int,
    base: Baseline | None,
    estimators: Mapping[str, Estimator],
    seed: int,
    steps: Steps,
) -> _Validation:
    """Fit on the rows before `split_us`; choose the weights on the others."""
    is_early = table.times_us < split_us
    early, late = table.take(is_early), table.take(~is_early)
    if min(len(early.y), len(late.y)) < _ROWS_MIN // 4:
        raise StreamInferError(
            f"training table: {len(early.y)} rows to fit and {len(late.y)} to validate are too few"
        )
    fitted = _fit_all("validating", early, base, estimators, seed, steps)
    added = _base_values(late.x, base)
    scores = np.stack([model.predict(late.x) + added for model in fitted.values()], axis=1)
    weights = simplex_weights(scores, late.y).round(4)
    mean = weighted_mean(dict(zip(fitted, weights.tolist(), strict=True)))
    return _Validation(
        weights=dict(zip(fitted, weights.tolist(), strict=True)),
        rmse={name: rmse(scores[:, i], late.y) for i, name in enumerate(fitted)},
        rmse_ensemble=rmse(mean.combine(scores), late.y),
        rows=len(late.y),
        from_us=split_us,
    )


def _store(
    described: Manifest,
    model: Fitted,
    table: TrainingTable,
    base: Baseline | None,
    repository: ModelRepository,
    topology: str,
) -> int:
    """Export, compare and save a model; return its version."""
    content = model.export(base, table.names)
    rows = np.linspace(0, len(table.y) - 1, min(len(table.y), _COMPARED_ROWS)).astype(np.int64)
    x = np.ascontiguousarray(table.x[rows])
    exported = OnnxModel(ModelArtifact(described, content, Path(MODEL_FILE)), table.names).run(x)
    fitted = model.predict(x) + _base_values(x, base)
    worst = float(np.abs(exported - fitted).max())
    if not worst <= _DIFFERENCE_MAX * max(1.0, float(np.abs(fitted).max())):
        raise ModelError(
            f"model {described.model!r}: its ONNX file differs from the fitted model by {worst}; "
            "the exporter does not know this version of scikit-learn"
        )

    def manifest(version: int, sha256: str) -> Manifest:
        return msgspec.structs.replace(described, version=version, sha256=sha256)

    artifact = repository.save(topology, described.model, content, manifest)
    limits = ValidationLimits(model_bytes_max=repository.model_bytes_max)
    Validator(repository.root / VALIDATED_FOLDER, limits).ensure(artifact)
    return artifact.manifest.version


def _ensemble(
    validation: _Validation, versions: dict[str, int], to_us: int, now: datetime
) -> Ensemble:
    each = {name: {"rmse": value} for name, value in validation.rmse.items()}
    return Ensemble(
        weights=validation.weights,
        versions=versions,
        chosen="least squared error over the validation period; weights at least 0, summing to 1",
        validated_from=_moment(validation.from_us),
        validated_to=_moment(to_us),
        metrics=each | {"ensemble": {"rmse": validation.rmse_ensemble}},
        created_at=now,
    )


def _moment(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


def _frameworks() -> dict[str, str]:
    return {name: version(name) for name in _FRAMEWORKS} | {"python": platform.python_version()}
