"""Scoring events over HTTP: as of now, on the rows that the worker stores, and writing nothing."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from redis.asyncio import Redis

from stream_infer.core.columns import Batch, Reject
from stream_infer.core.errors import StateError
from stream_infer.core.events import tag_of
from stream_infer.core.predictions import Predictions, Scored, make_predictions
from stream_infer.core.rekeyed_state import rekeyed_schema
from stream_infer.core.results import moment
from stream_infer.core.stored_rows import StoredRows
from stream_infer.core.vectors import BatchColumns, Vectors
from stream_infer.monitoring.counters import count_failures
from stream_infer.monitoring.metrics import HttpMetrics, Laps
from stream_infer.serving.bodies import Body, refusal
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.commands import Command, Commands
from stream_infer.store.state import partition_prefix, read_position
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.rekeyed_reader import RekeyedReader
from stream_infer.stream.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Read:
    """What the store holds for the events of a batch.

    `shards` are rows by view; `stream_times_us` the newest folded event time by partition, where
    it was asked for and something is stored.
    """

    shards: Mapping[str, StoredRows]
    columns: BatchColumns | None
    partitions: list[int]
    stream_times_us: Mapping[int, int]


class Scorer:
    """Scores events of one topology; `partitions` is how many its stream's topic has.

    Events are scored independently of one another, whatever shares their batch. Methods raise
    redis.RedisError when Redis does not answer within `timeout_s`, and StateError for rows that
    another declaration of the topology made.
    """

    def __init__(
        self,
        runtime: Runtime,
        redis: Redis,
        partitions: int,
        *,
        timeout_s: float = 10.0,
        reader: BatchFeatureReader | None = None,
        metrics: HttpMetrics | None = None,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.runtime = runtime
        self.partitions = partitions
        self.stored_schema: str | None = None
        """What made the stored rows, as last heard; None before there are any."""
        rekeyed = runtime.topology.rekeyed
        self.rekeyed = RekeyedReader(runtime.topology, partitions) if rekeyed else None
        self.stored_rekeyed_schema: str | None = None
        self._commands = Commands(redis, timeout_s)
        self._reader = reader
        self._metrics = metrics if metrics is not None else HttpMetrics()
        self._wall_us = wall_us
        self._partitioner = Partitioner()

    async def predict(self, bodies: Sequence[Body]) -> Sequence[list[bytes] | Exception]:
        """Score the events of several requests together.

        Returns the predictions of each as JSON, or what is wrong with it.

        A request with an event that is not acceptable is refused as a whole.
        """
        values = [value for body in bodies for value in body.events]
        laps = Laps()
        batch = self.decode(values)
        problems = self.problems(batch)
        scored = batch
        if problems:
            scored = self.runtime.engine.scored(batch)
        laps.end("decode")
        predictions = await self._predictions(scored, laps) if len(scored) else []
        self._metrics.scored += len(scored)
        self._metrics.score_batches += 1
        self._metrics.batch(self.runtime.topology.name, len(values), laps.seconds)
        if not problems:
            return _by_body(bodies, predictions)
        found = dict(zip(scored.positions.tolist(), predictions, strict=True))
        answers: list[list[bytes] | Exception] = []
        start = 0
        for body in bodies:
            stop = start + len(body.events)
            wrong = [reject for reject in problems if start <= reject.position < stop]
            if wrong:
                answers.append(refusal(body, start, wrong))
            else:
                answers.append([found[position] for position in range(start, stop)])
            start = stop
        return answers

    def decode(self, values: Sequence[bytes], stream: str | None = None) -> Batch:
        """Decode and check events exactly as the stream does, as if they were published now.

        `stream` names the one whose events they are; the scored one where it does not.
        """
        engine, n = self.runtime.engine, len(values)
        now_us = np.empty(n, np.int64)
        now_us.fill(self._wall_us())
        sources = None
        if stream is not None:
            sources = np.full(n, engine.topology.sources.index(stream), np.int8)
        return engine.decode(values, np.arange(n, dtype=np.int64), now_us, sources)

    def problems(self, batch: Batch) -> list[Reject]:
        """Return what keeps events from being scored: broken ones, and those of another type."""
        engine, event_types = self.runtime.engine, self.runtime.topology.event_types
        if len(event_types) == 1:
            return batch.rejects
        other = ~engine.scored_mask(batch)
        if not other.any():
            return batch.rejects
        wanted = tag_of(self.runtime.topology.on)
        unwanted = [
            Reject(
                int(batch.positions[i]),
                "validate",
                f"a {wanted!r} event is scored, not {tag_of(event_types[kind])!r} - at `$.type`",
            )
            for i, kind in zip(np.flatnonzero(other), batch.kinds[other], strict=True)
        ]
        return sorted([*batch.rejects, *unwanted], key=lambda reject: reject.position)

    async def read(self, batch: Batch, *, with_times: bool = False) -> Read:
        """Fetch the rows of all views and the batch features in one round trip."""
        topology = self.runtime.topology
        if self.stored_schema not in (None, self.runtime.engine.schema):
            raise StateError(f"rows of {topology.name!r} were made by other feature declarations")
        if self.stored_rekeyed_schema not in (None, rekeyed_schema(topology)):
            raise StateError(
                f"rows of {topology.rekeyed_events!r} were made by other feature declarations"
            )
        partitions = self._partitions_of(batch)
        wanted: dict[int, dict[tuple[str, str], None]] = {}
        for view in topology.views:
            for partition, key in zip(partitions, batch.keys(view.by), strict=True):
                if key is not None:
                    wanted.setdefault(partition, {})[view.name, key] = None
        commands: list[Command] = []
        for partition, rows in wanted.items():
            prefix = partition_prefix(topology.name, partition)
            commands.append(("MGET", *(f"{prefix}{view}:{key}" for view, key in rows)))
        if with_times:
            for partition in wanted:
                meta = partition_prefix(topology.name, partition) + "meta"
                commands.append(("HGET", meta, "stream_time_us"))
        request = None
        if self._reader is not None:
            request = self._reader.request({f: batch.raw(f) for f in self._reader.plan.fields})
            commands += request.commands
        asked = None
        if self.rekeyed is not None:
            asked = self.rekeyed.request([batch])
            commands += asked.commands
        replies = await self._commands.run(commands)
        shards = self._shards(wanted, replies)
        times: dict[int, int] = {}
        start = len(wanted)
        if with_times:
            known = zip(wanted, replies[start : 2 * start], strict=True)
            times = {
                partition: max(stored)
                for partition, text in known
                if (stored := read_position(text)) is not None
            }
            start *= 2
        columns = None
        if self._reader is not None and request is not None:
            stop = start + len(request.commands)
            columns = BatchColumns(*self._reader.absorb(request, replies[start:stop]))
            start = stop
        if self.rekeyed is not None and asked is not None:
            shards |= self.rekeyed.absorb(asked, replies[start:])
        return Read(shards, columns, partitions, times)

    def vectors(self, read: Read, batch: Batch) -> Vectors:
        """Return the vectors of a batch, given what was read for it."""
        return self.runtime.engine.read_vectors(read.shards, batch, read.columns)

    def score(self, vectors: Vectors) -> Scored:
        """Run the models; the loop waits for them, at most as long as `model_timeout_ms` says."""
        scored = self.runtime.score(vectors)
        if scored.failures:
            of_topology = self._metrics.model_failures.setdefault(
                self.runtime.topology.name, Counter()
            )
            count_failures(of_topology, scored.failures)
        return scored

    def predictions(self, batch: Batch, vectors: Vectors, scored: Scored) -> Predictions:
        """Return predictions whose ids say that no record of the log stands behind them."""
        topology = self.runtime.topology
        return make_predictions(
            topology,
            self.runtime.versions,
            batch,
            vectors,
            scored,
            [f"{topology.name}:http:{uuid.uuid4()}" for _ in range(len(batch))],
            moment(self._wall_us()),
            None,
        )

    def close(self) -> None:
        """Close the connection to Redis."""
        self._commands.close()

    def warm_up(self) -> None:
        """Run the models once, on inputs that are all missing."""
        width = len(self.runtime.engine.vector_names)
        nothing = np.full((1, width), np.nan)
        no_reasons = np.zeros((1, 0), bool)
        self.runtime.score(Vectors(nothing, no_reasons, (), np.zeros(1, np.int64)))

    async def _predictions(self, batch: Batch, laps: Laps) -> list[bytes]:
        read = await self.read(batch)
        laps.end("read")
        vectors = self.vectors(read, batch)
        laps.end("fold")
        scored = self.score(vectors)
        laps.end("models")
        payloads = self.predictions(batch, vectors, scored).encoded()
        laps.end("conclude")
        return payloads

    def _partitions_of(self, batch: Batch) -> list[int]:
        choices = range(self.partitions)
        keys = batch.labels(self.runtime.topology.stream.key)
        return [self._partitioner.partition((key or "").encode(), choices) for key in keys]

    def _shards(
        self, wanted: Mapping[int, Mapping[tuple[str, str], None]], replies: Sequence[Any]
    ) -> dict[str, StoredRows]:
        """Return the rows by view: keys of different partitions differ."""
        keys: dict[str, list[str]] = {view.name: [] for view in self.runtime.topology.views}
        payloads: dict[str, list[bytes | None]] = {name: [] for name in keys}
        for rows, found in zip(wanted.values(), replies, strict=False):
            for (view, key), payload in zip(rows, found, strict=True):
                keys[view].append(key)
                payloads[view].append(payload)
        return {
            view.name: StoredRows(view.plan.row_dtype, keys[view.name], payloads[view.name])
            for view in self.runtime.topology.views
        }


def _by_body(bodies: Sequence[Body], predictions: Sequence[bytes]) -> list[list[bytes] | Exception]:
    answers: list[list[bytes] | Exception] = []
    start = 0
    for body in bodies:
        stop = start + len(body.events)
        answers.append(list(predictions[start:stop]))
        start = stop
    return answers
