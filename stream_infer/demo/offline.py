"""What the offline side says of the live run's log: the same predictions, and simpler models'."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_infer.core.combiners import WeightedMean
from stream_infer.demo.cache import Stamps
from stream_infer.demo.flights import LIVE_FROM, LIVE_TO, WARM_UP_FROM, microseconds
from stream_infer.demo.prepared import Prepared, models_fingerprint
from stream_infer.demo.progress import Report
from stream_infer.demo.training import train_flights, training_table, without
from stream_infer.models.loading import load_ensemble
from stream_infer.settings import Settings
from stream_infer.store.batch_features import BatchFeatures, Column
from stream_infer.store.feast_plan import ReadPlan
from stream_infer.store.offline_features import OfflineFeatures
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.runtime import build_runtime
from stream_infer.training.replay import Replay, Table


class MaterialisedFeatures(OfflineFeatures):
    """Batch features as an online store holds them: of one moment, for earlier events too."""

    def __init__(self, plan: ReadPlan, repo: Path, moment: datetime) -> None:
        super().__init__(plan, repo, until=moment)
        self._moment_us = microseconds(moment)

    def read(self, columns: Mapping[str, Column], times_us: NDArray[np.int64]) -> BatchFeatures:
        """Each of n events' rows as of the moment (see `OfflineFeatures.read`)."""
        return super().read(columns, np.maximum(times_us, self._moment_us))


@dataclass(slots=True)
class BatchOnly:
    """The part of a topology that says which models it runs: here, those without streams."""

    name: str
    graph: WeightedMean


def replay_offline(
    made: Prepared, settings: Settings, partitions: int, end: datetime, report: Report
) -> Table:
    """Return vectors, scores and labels of the log that the live run sends, from September on."""
    runtime = build_runtime(made.topology, settings)
    past = MaterialisedFeatures(made.plan, made.repo, LIVE_FROM)
    choose, places = Partitioner(), range(partitions)
    replay = Replay(
        runtime.engine, past, lambda key: choose.partition(key, places), score=runtime.score
    )
    total = len(made.log.times_us(WARM_UP_FROM, end))
    return replay.run(
        made.log.events_between(WARM_UP_FROM, end),
        lambda done: report("replaying the same log offline", done / total),
    )


def batch_only_scores(
    made: Prepared, table: Table, report: Report
) -> dict[str, NDArray[np.float64]]:
    """Return what the same kinds of models say without streaming features: float64[n] each.

    By model, and of all together under `ensemble`; they are trained on the same months in the same
    way, once.
    """
    topology = made.topology
    streaming = {name for view in topology.streaming for name in view.feature_names}
    ensemble = BatchOnly(f"{topology.name}_batch_only", topology.graph)
    models_dir = made.data_dir / "models_batch_only"
    stamps, made_from = Stamps(made.data_dir / "steps.json"), models_fingerprint(made)
    if stamps.get("batch only", made_from) is None or not models_dir.exists():
        rows = without(training_table(made, report), streaming)
        found = train_flights(rows, models_dir, ensemble.name, report)
        stamps.put("batch only", made_from, found)
    kept = [place for place, name in enumerate(table.names) if name not in streaming]
    loaded = load_ensemble(models_dir, ensemble, [table.names[place] for place in kept])
    scores = loaded.models.run(np.ascontiguousarray(table.values[:, kept]))
    each = {name: scores.scores[:, i] for i, name in enumerate(loaded.combiner.models)}
    return {"ensemble": loaded.combiner.combine(scores.scores), **each}


def delays(log: Any) -> dict[str, tuple[float, float]]:
    """Return departure and arrival delay of the flights that landed, by flight id, in minutes."""
    columns = log.columns(LIVE_FROM, LIVE_TO)
    landed = columns["type"] == "arrival"
    return {
        flight: (departure, arrival)
        for flight, departure, arrival in zip(
            columns["flight_id"][landed].tolist(),
            columns["departure_delay_min"][landed].tolist(),
            columns["arrival_delay_min"][landed].tolist(),
            strict=True,
        )
    }
