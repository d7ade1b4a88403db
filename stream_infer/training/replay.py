"""Replaying a file of past events through the engine: training sets and offline predictions.

The events pass the same decode, fold, join and assembly as in a worker, partition by partition in
the order of the log; only the batch features come from the offline store, as of each event, and
rekeyed views are folded over all partitions in the order of the file.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from stream_infer.core.arrays import Floats, Ints
from stream_infer.core.engine import Engine, Folded
from stream_infer.core.merging import event_times
from stream_infer.core.partitioned import Partitioned
from stream_infer.core.predictions import Scored
from stream_infer.core.state import PartitionState, new_state
from stream_infer.core.vectors import BatchColumns, Vectors
from stream_infer.store.offline_features import OfflineFeatures
from stream_infer.training.merging import Record, merged
from stream_infer.training.rekeyed import RekeyedReplay

BATCH_EVENTS = 2_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Table:
    """Scored events of a replay, in order of partition and offset within each chunk.

    `values` float32[n, F] in the order of `names`; `labels` float64[n], NaN where none was joined;
    `times_us` int64[n]; `keys` the topology's keys; `scores` float64[n] and `each` float64[n, M]
    when the replay ran models.
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    labels: Floats
    times_us: Ints
    keys: list[str]
    scores: Floats
    each: Floats


@dataclass(slots=True)
class _Rows:
    values: list[npt.NDArray[np.float32]] = field(default_factory=list)
    times_us: list[Ints] = field(default_factory=list)
    scores: list[Floats] = field(default_factory=list)
    each: list[Floats] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    labels: dict[int, float] = field(default_factory=dict)
    place: dict[tuple[int, int], int] = field(default_factory=dict)


class Replay:
    """Folds a log into tables. `partition_of` maps a partition key's bytes to its partition.

    `past` gives batch features, None where the topology has none; `score` runs the models, None
    when only vectors and labels are wanted.
    """

    def __init__(
        self,
        engine: Engine,
        past: OfflineFeatures | None,
        partition_of: Callable[[bytes], int],
        score: Callable[[Vectors], Scored] | None = None,
    ) -> None:
        self._engine = engine
        self._past = past
        self._partition_of = partition_of
        self._score = score
        self._states: dict[int, PartitionState] = {}
        self._rekeyed = RekeyedReplay(engine) if engine.topology.rekeyed else None

    def run(
        self, records: Iterable[tuple[str, bytes]], progress: Callable[[int], None] | None = None
    ) -> Table:
        """Replay (partition key, value) records in log order; return the table of scored events.

        `progress` is called with the number of records done, after each chunk.
        """
        rows = _Rows()
        done = 0
        for chunk in _chunks(records, BATCH_EVENTS):
            by_partition: dict[int, list[int]] = {}
            for place, (key, _) in enumerate(chunk):
                by_partition.setdefault(self._partition_of(key.encode()), []).append(place)
            parts = {
                partition: self._fold(partition, [chunk[place][1] for place in places])
                for partition, places in by_partition.items()
            }
            vectors = [folded.vectors for folded in parts.values()]
            if self._rekeyed is not None:
                placed = [np.array(places, np.int64) for places in by_partition.values()]
                vectors = self._rekeyed.vectors(list(zip(parts.values(), placed, strict=True)))
            for (partition, folded), seen in zip(parts.items(), vectors, strict=True):
                self._collect(partition, folded, seen, rows)
            done += len(chunk)
            if progress is not None:
                progress(done)
        return self._table(rows)

    def run_streams(
        self,
        streams: Sequence[Iterable[Record]],
        progress: Callable[[int], None] | None = None,
    ) -> Table:
        """Replay the logs of several streams as the worker merges them, in the topology's order.

        See `run`, and `training.merging`. A topology of several streams has no rekeyed views.
        """
        times = [event_times(stream) for stream in self._engine.topology.streams]
        rows = _Rows()
        done = 0
        for chunk in _chunks(merged(streams, times, self._partition_of), BATCH_EVENTS):
            by_partition: dict[int, tuple[list[bytes], list[int]]] = {}
            for partition, source, value in chunk:
                values, sources = by_partition.setdefault(partition, ([], []))
                values.append(value)
                sources.append(source)
            for partition, (values, sources) in by_partition.items():
                folded = self._fold(partition, values, np.array(sources, np.int8))
                self._collect(partition, folded, folded.vectors, rows)
            done += len(chunk)
            if progress is not None:
                progress(done)
        return self._table(rows)

    def _fold(
        self,
        partition: int,
        values: list[bytes],
        sources: npt.NDArray[np.int8] | None = None,
    ) -> Folded:
        engine = self._engine
        state = self._states.get(partition)
        if state is None:
            state = self._states[partition] = new_state(engine.topology, partition)
        if sources is None:
            sources = np.zeros(len(values), np.int8)
        offsets = np.empty(len(values), np.int64)
        for source, start in enumerate(state.position):
            own = sources == source
            offsets[own] = np.arange(start, start + np.count_nonzero(own))
        batch = engine.decode(values, offsets, None, sources)
        work = Partitioned.alone(state, batch)
        found = engine.look_up(work)
        for name, keys in found.lacking().items():
            state.shards[name].insert(keys, [None] * len(keys))
        columns = None
        if self._past is not None:
            scored = engine.scored(batch)
            entities = {name: scored.raw(name) for name in self._past.plan.fields}
            read = self._past.read(entities, scored.times_us)
            columns = BatchColumns(read.values, read.timestamps_us)
        folded = engine.fold_batch(work, found, columns)
        counts = np.bincount(sources, minlength=len(state.position)).tolist()
        state.position = tuple(map(add, state.position, counts))
        for shard in state.shards.values():
            shard.take_dirty()  # Nothing is stored: rows stay in memory.
        return folded

    def _collect(self, partition: int, folded: Folded, vectors: Vectors, rows: _Rows) -> None:
        scored = folded.scored
        combined = np.zeros(len(scored))
        if self._score is not None:
            result = self._score(vectors)
            combined = result.combined
            rows.scores.append(result.combined)
            rows.each.append(result.each)
        start = len(rows.keys)
        for i, offset in enumerate(scored.offsets.tolist()):
            rows.place[partition, offset] = start + i
        rows.values.append(vectors.model_input)
        rows.times_us.append(scored.times_us)
        rows.keys.extend(key or "" for key in scored.labels(self._engine.topology.key))
        for pair in self._engine.join_labels(folded, combined):
            rows.labels[rows.place[partition, pair.offset]] = pair.label

    def _table(self, rows: _Rows) -> Table:
        n = len(rows.keys)
        labels = np.full(n, np.nan)
        labels[list(rows.labels)] = list(rows.labels.values())
        names = self._engine.vector_names
        return Table(
            names,
            np.concatenate(rows.values) if n else np.zeros((0, len(names)), np.float32),
            labels,
            np.concatenate(rows.times_us) if n else np.zeros(0, np.int64),
            rows.keys,
            np.concatenate(rows.scores) if rows.scores else np.full(n, np.nan),
            np.concatenate(rows.each) if rows.each else np.zeros((n, 0)),
        )


def read_lines(path: str, key_field: str) -> Iterator[tuple[str, bytes]]:
    """Yield (partition key, line) of a file with one JSON event a line.

    A line that is no JSON object with a text key is yielded with an empty key, to be rejected like
    any other bad record.
    """
    decode = msgspec.json.Decoder(dict[str, object]).decode
    with open(path, "rb") as file:
        for line in file:
            try:
                key = str(decode(line).get(key_field, ""))
            except msgspec.DecodeError:
                key = ""
            yield key, line.rstrip(b"\n")


def _chunks(records: Iterable[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
