"""Loading the models of a topology: from the repository, validated, checked and warm."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stream_infer.core.combiners import WeightedMean
from stream_infer.core.errors import DeclarationError, ModelError
from stream_infer.models.ensemble import Caller, ModelSet, call_directly
from stream_infer.models.repository import MODEL_BYTES_MAX, ModelRepository
from stream_infer.models.sessions import OnnxModel
from stream_infer.models.validation import ValidationLimits, Validator

VALIDATED_FOLDER = ".validated"


class HasEnsemble(Protocol):
    """The part of a topology that says which models it runs."""

    name: str
    graph: WeightedMean


@dataclass(frozen=True, slots=True)
class LoadedEnsemble:
    """Models ready to score, in the combiner's order; `versions` are text, by model."""

    models: ModelSet
    combiner: WeightedMean
    versions: dict[str, str]


def load_ensemble(
    root: Path,
    topology: HasEnsemble,
    features: Sequence[str],
    *,
    model_bytes_max: int = MODEL_BYTES_MAX,
    call: Caller = call_directly,
) -> LoadedEnsemble:
    """Return the latest version of each of the topology's models, and the combiner with weights.

    `call` is how each is called, such as within a time limit.

    A file whose checksum is new is first tried in a child process (about half a second).
    Raises ModelError naming the model that is missing, damaged, unsafe, or does not take
    `features`.
    """
    repository = ModelRepository(root, model_bytes_max=model_bytes_max)
    limits = ValidationLimits(model_bytes_max=model_bytes_max)
    validator = Validator(repository.root / VALIDATED_FOLDER, limits)
    models: dict[str, OnnxModel] = {}
    for name in topology.graph.models:
        artifact = repository.load(topology.name, name)
        validator.ensure(artifact)
        models[name] = OnnxModel(artifact, features)
    versions = {name: str(model.version) for name, model in models.items()}
    return LoadedEnsemble(ModelSet(models, call), _weighted(repository, topology), versions)


def _weighted(repository: ModelRepository, topology: HasEnsemble) -> WeightedMean:
    if topology.graph.weights is not None:
        return topology.graph
    try:
        return topology.graph.with_weights(repository.ensemble(topology.name).weights)
    except DeclarationError as error:
        raise ModelError(f"ensemble of topology {topology.name!r}: {error}") from error
