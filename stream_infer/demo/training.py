"""The flight example's training set, and its models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stream_infer.demo.flights import LIVE_FROM, YEAR_FROM, microseconds
from stream_infer.demo.prepared import Prepared, engine_of, models_fingerprint
from stream_infer.demo.progress import Report
from stream_infer.models.repository import ModelRepository
from stream_infer.store.offline_features import OfflineFeatures
from stream_infer.stream.partitioning import Partitioner
from stream_infer.training.fit import TrainingTable, train
from stream_infer.training.replay import Replay

PARTITIONS = range(4)
"""Event times never run backwards in this log, so that any number gives the same vectors."""
BASELINE = "departure_delay_min"
"""The models learn how much the arrival's delay differs from the departure's."""


def training_table(made: Prepared, report: Report) -> TrainingTable:
    """Return the vectors and labels of all departures before LIVE_FROM, replayed once and kept."""
    path = made.data_dir / "training" / f"{models_fingerprint(made)}.npz"
    if path.exists():
        with np.load(path) as kept:
            names = tuple(kept["names"].tolist())
            return TrainingTable(names, kept["x"], kept["y"], kept["times_us"])
    total = len(made.log.times_us(YEAR_FROM, LIVE_FROM))
    choose = Partitioner()
    past = OfflineFeatures(made.plan, made.repo, until=LIVE_FROM)
    replay = Replay(engine_of(made), past, lambda key: choose.partition(key, PARTITIONS))
    rows = replay.run(
        made.log.events_between(YEAR_FROM, LIVE_FROM),
        lambda done: report("replaying January to September", done / total),
    )
    table = TrainingTable(rows.names, rows.values, rows.labels, rows.times_us)
    _keep(path, table)
    return table


def train_flights(
    table: TrainingTable, models_dir: Path, topology: str, report: Report
) -> dict[str, Any]:
    """Train the three models; returns what the validation said."""
    summary = train(
        table,
        microseconds(LIVE_FROM),
        ModelRepository(models_dir),
        topology,
        baseline=BASELINE,
        progress=report,
    )
    found: dict[str, Any] = msgspec.to_builtins(summary)
    return found


def without(table: TrainingTable, names: set[str]) -> TrainingTable:
    """Return the table less the columns named."""
    kept = [place for place, name in enumerate(table.names) if name not in names]
    x = np.ascontiguousarray(table.x[:, kept])
    return TrainingTable(tuple(table.names[place] for place in kept), x, table.y, table.times_us)


def _keep(path: Path, table: TrainingTable) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in _tables(path.parent):
        old.unlink()
    part = path.with_suffix(".part.npz")
    np.savez(part, names=np.array(table.names), x=table.x, y=table.y, times_us=table.times_us)
    part.replace(path)


def _tables(folder: Path) -> Iterator[Path]:
    return folder.glob("*.npz")
