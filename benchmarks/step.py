"""The pure step of a micro-batch, one stage after the other, with the time of each."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stream_infer.core import engine as engine_module
from stream_infer.core.engine import Engine
from stream_infer.core.inputs import BatchLayout
from stream_infer.core.partitioned import Partitioned
from stream_infer.core.predictions import Scored, make_predictions
from stream_infer.core.state import PartitionState, new_state
from stream_infer.core.topology import Topology
from stream_infer.core.vectors import BatchColumns, Vectors
from stream_infer.models.calling import caller
from stream_infer.models.ensemble import ModelSet
from stream_infer.models.manifest import Manifest
from stream_infer.models.repository import ModelArtifact
from stream_infer.models.sessions import OnnxModel
from stream_infer.settings import Settings
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.feast_plan import ReadPlan
from stream_infer.training.export import INPUT, OUTPUT

Seconds = dict[str, float]
ROWS_CACHED = 1_100_000


def model_set(contents: dict[str, bytes], features: Sequence[str]) -> ModelSet:
    """Models in memory, called as a worker calls them."""
    models = {}
    for name, content in contents.items():
        manifest = Manifest(
            model=name,
            version=1,
            sha256="",
            features=tuple(features),
            input=INPUT,
            output=OUTPUT,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        models[name] = OnnxModel(ModelArtifact(manifest, content, Path(name)), features)
    return ModelSet(models, caller(Settings().model_timeout_ms))


class Step:
    """One partition of a topology in memory: rows, models, batch features in their cache.

    `rows_max` is how many rows stay in memory; one that left comes back as if Redis had given it.
    """

    def __init__(
        self,
        topology: Topology,
        models: Callable[[Sequence[str]], dict[str, bytes]],
        *,
        plan: ReadPlan | None = None,
        redis: Any = None,
        rows_max: int | None = None,
    ) -> None:
        self.topology = topology
        layout: BatchLayout | None = plan.layout() if plan else None
        self.engine = Engine(topology, layout)
        self.state: PartitionState = new_state(topology, 0)
        self.models = model_set(models(self.engine.vector_names), self.engine.vector_names)
        self.versions = dict.fromkeys(self.models.names, "1")
        self.rows_max = rows_max
        self._redis: Any = redis
        # A year: what is measured is the pure side, so nothing is read again.
        self._reader = BatchFeatureReader(plan, ROWS_CACHED, 31e6) if plan else None
        self._offset = 0
        self.time_us = time.time_ns() // 1000
        """Where the next event's time may begin."""

    def fill(self, keys: Sequence[str]) -> None:
        """Make keys resident, with empty rows and their batch features."""
        for view in self.topology.views:
            self.state.shards[view.name].insert(keys, [None] * len(keys))
        if self._reader is not None:
            for start in range(0, len(keys), 10_000):
                self._look_up(dict.fromkeys(self._fields, keys[start : start + 10000]))

    @property
    def _fields(self) -> tuple[str, ...]:
        return self._reader.plan.fields if self._reader else ()

    def _look_up(self, columns: dict[str, Any]) -> BatchColumns | None:
        if self._reader is None:
            return None
        request = self._reader.request(columns)
        replies: list[Any] = []
        if request.commands:
            pipeline = self._redis.pipeline(transaction=False)
            for command in request.commands:
                pipeline.execute_command(*command)
            replies = pipeline.execute()
        read = self._reader.absorb(request, replies)
        return BatchColumns(read.values, read.timestamps_us)

    def run(self, values: Sequence[bytes], now_us: int) -> Seconds:
        """Take one micro-batch through all stages; return the seconds of each."""
        n = len(values)
        offsets = np.arange(self._offset, self._offset + n)
        ingested = np.full(n, now_us)
        self._offset += n
        marks = [time.perf_counter()]
        batch = self.engine.decode(values, offsets, ingested)
        assert not batch.rejects, batch.rejects[0]
        marks.append(time.perf_counter())
        work = Partitioned.alone(self.state, batch)
        found = self.engine.look_up(work)
        for name, keys in found.lacking().items():
            shard = self.state.shards[name]
            if self.rows_max is not None:
                # As if all had been stored: what is dirty may not leave.
                shard.take_dirty()
                shard.evict(self.rows_max)
            shard.insert(keys, [bytes(shard.row_bytes)] * len(keys))
        columns = self._look_up({field: batch.raw(field) for field in self._fields})
        marks.append(time.perf_counter())
        with _timed(engine_module, "assemble") as assembling:
            folded = self.engine.fold_batch(work, found, columns)
        marks.append(time.perf_counter())
        scored = self._score(folded.vectors)
        marks.append(time.perf_counter())
        predictions = make_predictions(
            self.topology,
            self.versions,
            folded.scored,
            folded.vectors,
            scored,
            [f"{self.topology.name}:0:{offset}" for offset in folded.scored.offsets.tolist()],
            datetime.fromtimestamp(now_us / 1e6, UTC),
            (now_us - folded.scored.ingested_us) / 1e3,
        )
        payloads = predictions.encoded()
        self.state.results.update(zip(predictions.keys, payloads, strict=True))
        marks.append(time.perf_counter())
        assert len(payloads) == n
        self.state.results.clear()
        decode, lookup, fold, models, results = np.diff(marks).tolist()
        return {
            "decode": decode,
            "lookup": lookup,
            "fold": fold - sum(assembling),
            "assemble": sum(assembling),
            "models": models,
            "results": results,
        }

    def _score(self, vectors: Vectors) -> Scored:
        found = self.models.run(vectors.model_input)
        assert not found.failures, found.details
        combined = self.topology.graph.combine(found.scores)
        return Scored(self.models.names, found.scores, combined, found.failures)


@contextmanager
def _timed(module: Any, name: str) -> Iterator[list[float]]:
    """Note how long each call of a module's function takes meanwhile."""
    original = getattr(module, name)
    seconds: list[float] = []

    def timed(*arguments: Any) -> Any:
        start_s = time.perf_counter()
        result = original(*arguments)
        seconds.append(time.perf_counter() - start_s)
        return result

    setattr(module, name, timed)
    try:
        yield seconds
    finally:
        setattr(module, name, original)
