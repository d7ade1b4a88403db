"""The three models of the standard job, made from a seed: their cost is what matters here."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_infer.models.manifest import Manifest
from stream_infer.models.repository import ModelRepository
from stream_infer.training.export import (
    INPUT,
    OUTPUT,
    TREE_NODE,
    Scaling,
    export_network,
    export_trees,
)

TREES, DEPTH = 100, 5
LAYERS = (64, 32)


def tree(
    random: np.random.Generator, width: int, centres: npt.NDArray[np.float64]
) -> npt.NDArray[Any]:
    """A full tree of depth 5: 31 questions with thresholds about the inputs' middle, 32 leaves."""
    inner = 2**DEPTH - 1
    nodes = np.zeros(2 * inner + 1, TREE_NODE)
    place = np.arange(inner)
    nodes["is_leaf"][inner:] = 1
    nodes["value"][inner:] = random.normal(0, 0.1, inner + 1)
    nodes["feature_idx"][:inner] = random.integers(0, width, inner)
    asked = centres[nodes["feature_idx"][:inner]]
    nodes["num_threshold"][:inner] = asked * random.uniform(0.3, 2.0, inner)
    nodes["missing_go_to_left"][:inner] = random.integers(0, 2, inner)
    nodes["left"][:inner], nodes["right"][:inner] = 2 * place + 1, 2 * place + 2
    return nodes


def graphs(features: Sequence[str], seed: int = 0) -> dict[str, bytes]:
    """ONNX files of the linear model, the trees and the network over these inputs."""
    random = np.random.default_rng(seed)
    width = len(features)
    centres = np.array([_centre(name) for name in features])
    scaling = Scaling(centres.astype(np.float32), (1 / centres).astype(np.float32), 5.0)

    def dense(sizes: Sequence[int]) -> bytes:
        weights = [random.normal(0, (2 / a) ** 0.5, (a, b)) for a, b in pairwise(sizes)]
        biases = [np.zeros(size) for size in sizes[1:]]
        return export_network(scaling, weights, biases, None, features)

    forest = [tree(random, width, centres) for _ in range(TREES)]
    return {
        "linear": dense((width, 1)),
        "trees": export_trees(forest, 0.0, None, features),
        "mlp": dense((width, *LAYERS, 1)),
    }


def save_models(root: Path, topology: str, features: Sequence[str]) -> None:
    """Store the three models for a topology."""
    repository = ModelRepository(root)
    for name, content in graphs(features).items():

        def manifest(version: int, sha256: str, name: str = name) -> Manifest:
            return Manifest(
                model=name,
                version=version,
                sha256=sha256,
                features=tuple(features),
                input=INPUT,
                output=OUTPUT,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
            )

        repository.save(topology, name, content, manifest)


def _centre(name: str) -> float:
    """About what an input is: thresholds near it make the questions of a tree hard to guess."""
    known = {"amount": 35.0, "items": 5.0, "payments_5m": 3.0, "payments_1h": 30.0}
    sums = {"spent_5m": 150.0, "spent_1h": 1_500.0}
    return (known | sums).get(name.rpartition("__")[2], 1.0)
