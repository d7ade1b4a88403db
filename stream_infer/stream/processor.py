"""What a worker does with a micro-batch: read what it lacks, fold, score, publish, store."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import pairwise
from typing import Any

import numpy as np
from msgspec.json import decode
from redis.asyncio import Redis

from stream_infer.core.engine import Folded
from stream_infer.core.errors import FencedError
from stream_infer.core.predictions import Scored, make_outcomes, make_predictions, record_ids
from stream_infer.core.results import Prediction, encode, moment
from stream_infer.core.shard import Shard
from stream_infer.core.vectors import BatchColumns, Vectors
from stream_infer.failpoints import failpoint
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.monitoring.metrics import Laps
from stream_infer.settings import Settings
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.state import StateStore
from stream_infer.stream.away import Away
from stream_infer.stream.custody import Custody, check_away
from stream_infer.stream.dead_letters import unpublished
from stream_infer.stream.holdings import Holdings, Owned
from stream_infer.stream.processing import (
    TP,
    ConsumerRecord,
    Outcome,
    OutgoingRecord,
    RecordTooLarge,
)
from stream_infer.stream.rekeying import Rekeying
from stream_infer.stream.retry import out_of_memory
from stream_infer.stream.runtime import Runtime
from stream_infer.stream.work import Work, decoded

log = logging.getLogger("stream_infer.stream")
EXIT_BROKEN = 70


def end_process(error: Exception) -> None:
    """End this process at once: its rows are no longer a fold of the log."""
    try:
        if isinstance(error, MemoryError):
            log.critical("%s; nothing is lost, the next worker goes on", out_of_memory(error))
        else:
            log.critical("a micro-batch failed after the state had moved; ending", exc_info=error)
        logging.shutdown()
    finally:  # Without memory, even saying so may fail.
        os._exit(EXIT_BROKEN)


class TopologyProcessor:
    """Runs one topology over its partitions (see `stream.processing.Processor`).

    Everything that can fail for want of a server happens before the state moves; a call that
    raises has changed nothing and may be repeated. Should the pure part fail all the same, rows in
    memory can no longer be trusted: `broken` ends the process, and a restart folds anew from what
    is stored. `wall_us` gives the time that results carry.
    """

    def __init__(
        self,
        runtime: Runtime,
        redis: Redis,
        store: StateStore,
        settings: Settings,
        counters: TopologyCounters,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic_s: Callable[[], float] = time.monotonic,
        rekeyed: Rekeying | None = None,
        broken: Callable[[Exception], None] = end_process,
    ) -> None:
        self._runtime = runtime
        self._redis = redis
        self._store = store
        self._rows_max = settings.state_rows_max
        self._reader: BatchFeatureReader | None = runtime.reader(settings)
        self._wall_us = wall_us
        self._broken = broken
        self._rekeyed = rekeyed
        check_away(settings, runtime.topology)
        store_s = counters.stages_s["store"]
        self._holdings = Holdings(runtime.topology, store, settings, monotonic_s, store_s=store_s)
        self._custody = Custody(self._holdings, store, settings, counters)
        self.counters = counters

    async def assign(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> Mapping[TP, int]:
        """Acquire the partitions' state; read on from where that ends.

        Where Redis is away, and `while_state_away` says `degrade`, read on from what is committed.
        """
        return await self._custody.take(partitions, committed)

    async def process(self, batch: Mapping[TP, Sequence[ConsumerRecord]]) -> Outcome:
        """Fold and score everything that waited; one read before, one call per model."""
        laps = Laps()
        works = [
            self._decoded(tp, records, held)
            for tp, records in batch.items()
            if (held := self._holdings.held(tp)) is not None
        ]
        laps.end("decode")
        whole = [work for work in works if isinstance(work.owned, Owned)]
        if whole:
            await self._custody.attempt(lambda: self._read(whole))
        laps.end("read")
        # What was given away while we waited belongs to somebody else now.
        works = [work for work in works if self._custody.still_holds(work)]
        try:
            outcome = self._moved(works, laps)
        except Exception as error:
            self._broken(error)
            raise
        self.counters.batch(sum(len(work.records) for work in works), laps.seconds)
        return outcome

    def _moved(self, works: Sequence[Work], laps: Laps) -> Outcome:
        """Fold, score and conclude; from here on the state has moved, and nothing may fail."""
        engine = self._runtime.engine
        folded = [
            engine.fold_batch(work.owned.state, work.batch, work.columns, work.rekeyed)
            if isinstance(work.owned, Owned)
            else engine.score_without_state(work.owned.state, work.batch, self._cached(work))
            for work in works
        ]
        laps.end("fold")
        scores = self._score([item.vectors for item in folded])
        laps.end("models")
        results: dict[TP, list[OutgoingRecord]] = {}
        positions: dict[TP, int] = {}
        for work, item, scored in zip(works, folded, scores, strict=True):
            results[work.tp] = self._concluded(work, item, scored)
            positions.update(work.advance())
            if isinstance(work.owned, Owned):
                work.owned.changed = True
            else:
                self.counters.without_state += int(item.emitted.sum())
        self._holdings.take_snapshots()
        laps.end("conclude")
        failpoint("folded")
        return Outcome(results, positions)

    async def acknowledged(self, positions: Mapping[TP, int]) -> None:
        """Store the snapshots whose events are all acknowledged now."""
        failpoint("acknowledged")
        self._holdings.acknowledge(positions)
        await self._custody.attempt(self._holdings.write_pending)

    async def idle(self) -> None:
        """Store what has changed since the last time."""
        self._holdings.take_snapshots()
        await self._custody.attempt(self._holdings.write_pending)

    def readable_again(self) -> Set[TP]:
        """Return the partitions that are predicted without state, once Redis answers again."""
        return self._custody.readable_again()

    async def revoke(self, partitions: Sequence[TP]) -> None:
        """Store what is left of these partitions, then forget them."""
        await self._custody.give_back(partitions)

    def _cached(self, work: Work) -> BatchColumns | None:
        if self._reader is None:
            return None
        scored = work.batch.take(self._runtime.engine.scored_mask(work.batch))
        found = self._reader.cached({f: scored.raw(f) for f in self._reader.plan.fields})
        return BatchColumns(found.values, found.timestamps_us)

    def refused(self, record: OutgoingRecord, error: RecordTooLarge) -> Sequence[OutgoingRecord]:
        """Replace a result that its topic does not accept by a dead letter without a body.

        Its headers say where the event is in the log. The event ends as a dead letter then, and not
        as a prediction.
        """
        topology = self._runtime.topology
        if record.topic != topology.output or record.value is None:
            return []
        self.counters.ends.predictions -= 1
        self.counters.ends.dead_letters += 1
        prediction_id = decode(record.value, type=Prediction).prediction_id
        return [unpublished(record, prediction_id, topology=topology.name, reason=str(error))]

    def _decoded(self, tp: TP, records: Sequence[ConsumerRecord], held: Owned | Away) -> Work:
        members = self._holdings.members(tp.partition)
        return decoded(self._runtime.engine, tp, members, held, records)

    async def _read(self, works: Sequence[Work]) -> None:
        """Fetch rows and batch features that are not in memory, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        engine = self._runtime.engine
        for work in works:
            owned = work.whole
            owned.evict(self._rows_max)
            work.lacking = engine.lacking(work.owned.state, work.batch)
            for name, keys in work.lacking.items():
                if keys:
                    found_at = self._store.row_keys(work.tp.partition, name, keys)
                    pipeline.execute_command("MGET", *found_at)
            if any(work.lacking.values()):
                work.before = owned.ownership
                pipeline.execute_command(*self._store.header_command(work.tp.partition))
                work.asks_memory = self._holdings.evictions.asks(owned.watch)
                if work.asks_memory:
                    pipeline.execute_command(*self._store.memory_command(work.tp.partition))
            if self._reader is not None:
                scored = work.batch.take(engine.scored_mask(work.batch))
                fields = self._reader.plan.fields
                work.request = self._reader.request({f: scored.raw(f) for f in fields})
                for command in work.request.commands:
                    pipeline.execute_command(*command)
        asked = None
        if self._rekeyed is not None:
            scored_parts = [w.batch.take(engine.scored_mask(w.batch)) for w in works]
            asked = self._rekeyed.ask(pipeline, scored_parts)
        replies: list[Any] = await pipeline.execute() if len(pipeline) else []
        start = 0
        fenced: dict[TP, FencedError] = {}
        for work in works:
            rows: list[tuple[Shard, list[str], list[bytes | None]]] = []
            for name, keys in work.lacking.items():
                if keys:
                    rows.append((work.owned.state.shards[name], keys, replies[start]))
                    start += 1
            if work.before is not None:
                try:
                    self._store.check_header(work.before, replies[start])
                    absent = any(None in found for _, _, found in rows)
                    told = replies[start + 1] if work.asks_memory else None
                    self._holdings.evictions.check(work.whole.watch, told, absent=absent)
                except FencedError as error:
                    if self._holdings.get(work.tp) is work.owned:
                        fenced[work.tp] = error
                start += 1 + work.asks_memory
            if work.tp not in fenced:
                for shard, keys, found in rows:
                    shard.insert(keys, found)
            if self._reader is not None and work.request is not None:
                stop = start + len(work.request.commands)
                read = self._reader.absorb(work.request, replies[start:stop])
                work.columns = BatchColumns(read.values, read.timestamps_us)
                start = stop
        if self._rekeyed is not None and asked is not None:
            rekeyed = self._rekeyed.absorb(asked, replies[start:])
            for work in works:
                work.rekeyed = rekeyed
        self._holdings.forget(fenced)

    def _score(self, parts: Sequence[Vectors]) -> list[Scored]:
        """Run each model once over the vectors of all partitions."""
        if not parts:
            return []
        everything = Vectors(
            np.concatenate([part.values for part in parts]),
            np.zeros((sum(len(part.reasons) for part in parts), 0), bool),
            (),  # Partitions may have different ones; the models do not ask for any.
            np.concatenate([part.age_us for part in parts]),
        )
        scored = self._runtime.score(everything)
        self.counters.models_failed(scored.failures)
        bounds = np.cumsum([0] + [len(part.values) for part in parts]).tolist()
        return [scored.part(a, b) for a, b in pairwise(bounds)]

    def _concluded(self, work: Work, folded: Folded, scored: Scored) -> list[OutgoingRecord]:
        """Join labels, count, and return what is to be published for one partition."""
        runtime, topology = self._runtime, self._runtime.topology
        state = work.owned.state
        now_us = self._wall_us()
        # A clock that was set back is no reason for a result before its event.
        latency_ms = np.maximum(now_us - folded.scored.ingested_us, 0) / 1e3
        pairs = runtime.engine.join_labels(state, folded, scored.combined)
        predictions = make_predictions(
            topology,
            runtime.versions,
            folded.scored,
            folded.vectors,
            scored,
            record_ids(topology, work.tp.partition, folded.scored.offsets),
            moment(now_us),
            latency_ms,
        )
        payloads = predictions.encoded()
        if isinstance(work.owned, Owned):
            state.results.update(zip(predictions.keys, payloads, strict=True))
        emitted = folded.emitted
        chosen = range(len(predictions)) if emitted.all() else np.flatnonzero(emitted).tolist()
        outgoing = [
            OutgoingRecord(topology.output, predictions.keys[i].encode(), payloads[i])
            for i in chosen
        ]
        self.counters.predicted(
            latency_ms[emitted],
            predictions.age_s[emitted],
            [predictions.degraded[i] for i in chosen],
        )
        outcomes = make_outcomes(topology, work.tp.partition, folded.kept, pairs)
        for outcome in outcomes:
            outgoing.append(
                OutgoingRecord(topology.outcomes, outcome.key.encode(), encode(outcome))
            )
            self.counters.outcome(outcome.error)
        self._count(work, folded)
        if self._rekeyed is not None:
            outgoing += self._rekeyed.sent_on(work.tp, work.records, folded)
        return outgoing + work.dead_letters(topology.name, topology.dead_letters)

    def _count(self, work: Work, folded: Folded) -> None:
        """Add each event of one partition to exactly one of the ends."""
        fresh = work.fresh
        rejected = np.array([reject.position for reject in work.batch.rejects], np.int64)
        ends = self.counters.ends
        predictions = int(folded.emitted.sum())
        ends.consumed += len(fresh)
        ends.replayed += int((~fresh).sum())
        ends.predictions += predictions
        ends.updates += int(folded.fresh.sum()) - predictions
        ends.dead_letters += int(fresh[rejected].sum())
        ends.late += int(fresh[folded.late].sum())
        ends.duplicates += int(fresh[folded.duplicates].sum())
