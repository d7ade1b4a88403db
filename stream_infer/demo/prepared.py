"""What the steps of the demo have made, and what it depends on."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream_infer.core.engine import Engine
from stream_infer.core.topology import Topology
from stream_infer.demo.cache import fingerprint
from stream_infer.demo.flights import LIVE_FROM, YEAR_FROM, microseconds
from stream_infer.store.feast_plan import ReadPlan

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("numpy", "scikit-learn", "onnx", "onnxruntime")


@dataclass(slots=True)
class Prepared:
    """What the steps have made; `seconds` is how long each of those that had to run took."""

    topology: Topology
    log: Any
    data_dir: Path
    models_dir: Path
    mean_gain_min: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def repo(self) -> Path:
        """The Feast repository."""
        assert self.topology.feast is not None
        return Path(self.topology.feast.repo)

    @property
    def plan(self) -> ReadPlan:
        """The read plan of the topology's feature service."""
        assert self.topology.feast is not None
        from stream_infer.store.feast_repo import load_plan

        return load_plan(self.repo, self.topology.feast.service)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step."""
        started_s = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started_s, 3)


def engine_of(made: Prepared) -> Engine:
    """Return the topology's engine."""
    return Engine(made.topology, made.plan.layout())


def models_fingerprint(made: Prepared) -> str:
    """Return a digest of all that the models depend on."""
    engine = engine_of(made)
    examples = made.repo.parent / "topologies"
    sources = [PACKAGE / "training", made.repo, *sorted(examples.glob("flights_*.py"))]
    span = f"{YEAR_FROM.isoformat()} {LIVE_FROM.isoformat()} {microseconds(LIVE_FROM)}"
    return fingerprint(sources, LIBRARIES, span, engine.schema, *engine.vector_names)
