"""What a worker does with a micro-batch: read what it lacks, fold, score, publish, store."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from itertools import islice, pairwise

import numpy as np
from msgspec.json import decode
from redis.asyncio import Redis

from stream_infer.core.engine import Folded
from stream_infer.core.predictions import Scored
from stream_infer.core.results import Prediction
from stream_infer.core.state import new_state
from stream_infer.core.vectors import BatchColumns, Vectors
from stream_infer.failpoints import failpoint
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.monitoring.metrics import Laps
from stream_infer.settings import Settings
from stream_infer.store.batch_features import BatchFeatureReader
from stream_infer.store.commands import Command, Commands
from stream_infer.store.state import StateStore
from stream_infer.stream.away import Away
from stream_infer.stream.concluding import Conclusion
from stream_infer.stream.custody import Custody, check_away
from stream_infer.stream.dead_letters import unpublished
from stream_infer.stream.ending import end_process
from stream_infer.stream.holdings import Holdings
from stream_infer.stream.owned import Owned
from stream_infer.stream.processing import (
    TP,
    Ahead,
    Outcome,
    Outgoing,
    OutgoingRecord,
    Records,
    RecordTooLarge,
)
from stream_infer.stream.rekeying import Rekeying
from stream_infer.stream.rows import Asked, RowReader
from stream_infer.stream.runtime import Runtime
from stream_infer.stream.work import Work, decoded

log = logging.getLogger("stream_infer.stream")


class TopologyProcessor:
    """Runs one topology over its partitions (see `stream.processing.Processor`).

    Everything that can fail for want of a server happens before the state moves; a call that
    raises has changed nothing and may be repeated. Should the pure part fail all the same, rows in
    memory can no longer be trusted: `broken` ends the process, and a restart folds anew from what
    is stored. While the models of a large micro-batch run, in threads of their own, the event loop
    goes on; nothing of the partitions that are moving is stored then. `wall_us` gives the time that
    results carry.
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
        self._commands = Commands(redis, settings.request_timeout_s, shared=False)
        self._rows_max = settings.state_rows_max
        self._reader: BatchFeatureReader | None = runtime.reader(settings)
        self._feed = runtime.feed(self._reader, redis, settings)
        self._conclusion = Conclusion(runtime, counters, rekeyed, wall_us)
        self._broken = broken
        self._rekeyed = rekeyed
        check_away(settings, runtime.topology)
        store_s = counters.stages_s["store"]
        self._holdings = Holdings(
            runtime.topology,
            store,
            settings,
            monotonic_s,
            make_state=partial(new_state, slabs={}),  # All partitions are folded together.
            store_s=store_s,
        )
        self._rows = RowReader(self._holdings, store)
        self._custody = Custody(self._holdings, store, settings, counters)
        self._prepared: tuple[Records, list[Work]] | None = None
        self.counters = counters

    async def assign(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> Mapping[TP, int]:
        """Acquire the partitions' state; read on from where that ends.

        Where Redis is away, and `while_state_away` says `degrade`, read on from what is committed.
        """
        if self._feed is not None:
            self._feed.start()
        return await self._custody.take(partitions, committed)

    async def process(self, batch: Records, ahead: Ahead | None = None) -> Outcome:
        """Fold and score everything that waited: one read, one fold of each view, one call of each
        model, whatever the number of partitions. While the models run, what comes next is decoded.
        """
        laps = Laps()
        prepared, self._prepared = self._prepared, None
        while True:
            is_prepared = prepared is not None and prepared[0] is batch
            works = prepared[1] if prepared is not None and is_prepared else self._decoded(batch)
            prepared = None
            laps.end("decode")
            for work in works:
                if work.has_rows:
                    await self._custody.attempt(partial(self._read, work))
            laps.end("read")
            held = {part.tp: part.owned for work in works for part in work.parts}
            if all(self._holdings.held(tp) is owned for tp, owned in held.items()):
                break
            batch = {tp: batch[tp] for tp, owned in held.items() if self._still_holds(tp, owned)}
        try:
            outcome = await self._moved(works, laps, ahead)
        except Exception as error:
            self._broken(error)
            raise
        finally:
            self._custody.still.set()
        self.counters.batch(sum(len(work.records) for work in works), laps.seconds)
        return outcome

    async def _moved(self, works: Sequence[Work], laps: Laps, ahead: Ahead | None) -> Outcome:
        """Fold, score and conclude; from here on the state has moved, and nothing may fail."""
        moving = [owned for work in works for _, owned in work.owned]
        self._custody.still.clear()
        for owned in moving:
            owned.moving = True
        folded = [self._folded(work) for work in works]
        laps.end("fold")
        scores = await self._score([item.vectors for item in folded], laps, ahead)
        laps.end("models")
        results: dict[TP, list[Outgoing]] = {}
        positions: dict[TP, int] = {}
        for work, item, scored in zip(works, folded, scores, strict=True):
            results |= self._conclusion.of(work, item, scored)
            for part in work.parts:
                positions.update(part.advance())
            if not work.has_rows:
                self.counters.without_state += int(item.emitted.sum())
        for owned in moving:
            owned.moving, owned.changed = False, True
        self._holdings.take_snapshots([work.records for work in works])
        laps.end("conclude")
        failpoint("folded")
        return Outcome(results, positions)

    def _folded(self, work: Work) -> Folded:
        engine = self._runtime.engine
        if work.found is None:
            return engine.score_without_state(work.events, self._cached(work))
        return engine.fold_batch(work.events, work.found, work.columns, work.rekeyed)

    def acknowledged(self, positions: Mapping[TP, int]) -> None:
        """Note that snapshots up to these offsets may be stored."""
        failpoint("acknowledged")
        self._holdings.acknowledge(positions)

    async def store(self) -> None:
        """Store what has changed, as far as it is acknowledged, where it is time to."""
        self._holdings.take_snapshots()
        await self._custody.attempt(self._holdings.write_pending)

    def readable_again(self) -> Set[TP]:
        """Return the partitions that are predicted without state, once Redis answers again."""
        return self._custody.readable_again()

    async def revoke(self, partitions: Sequence[TP]) -> None:
        """Store what is left of these partitions, then forget them."""
        await self._custody.give_back(partitions)

    async def close(self) -> None:
        """Listen to Redis no longer."""
        if self._feed is not None:
            await self._feed.close()

    def _cached(self, work: Work) -> BatchColumns | None:
        """Return the batch features that are in memory."""
        if self._reader is None:
            return None
        scored = self._runtime.engine.scored(work.batch)
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

    def _still_holds(self, tp: TP, before: Owned | Away) -> bool:
        """Whether a partition is as it was before we waited, or has at most lost its rows.

        One that was given away belongs to somebody else now; one that was taken again is at another
        place in its log, and is read from there.
        """
        held = self._holdings.held(tp)
        return held is before or isinstance(held, Away)

    def _decoded(self, batch: Records) -> list[Work]:
        """Decode what is of partitions of ours, those with their rows apart from those without."""
        found = {tp: held for tp in batch if (held := self._holdings.held(tp)) is not None}
        whole: dict[TP, Owned | Away] = {t: h for t, h in found.items() if isinstance(h, Owned)}
        rowless: dict[TP, Owned | Away] = {t: h for t, h in found.items() if isinstance(h, Away)}
        engine, members = self._runtime.engine, self._holdings.members
        return [decoded(engine, members, held, batch) for held in (whole, rowless) if held]

    async def _read(self, work: Work) -> None:
        """Fetch rows and batch features that are not in memory, in one round trip."""
        commands: list[Command] = []
        engine, batch = self._runtime.engine, work.batch
        for _, owned in work.owned:
            owned.evict(self._rows_max)
        work.found = engine.look_up(work.events)
        asked: list[Asked] = []
        for number, (tp, owned) in enumerate(work.owned):
            asked += self._rows.ask(commands, tp, owned, work.found.lacking(number))
        scored = engine.scored(batch)
        request = rows_asked = None
        if self._reader is not None:
            request = self._reader.request({f: scored.raw(f) for f in self._reader.plan.fields})
            commands += request.commands
        if self._rekeyed is not None:
            rows_asked = self._rekeyed.request([scored])
            commands += rows_asked.commands
        replies = iter(await self._commands.run(commands))
        self._rows.insert(asked, replies)
        if self._reader is not None and request is not None:
            own = list(islice(replies, len(request.commands)))
            read = self._reader.absorb(request, own)
            work.columns = BatchColumns(read.values, read.timestamps_us)
        if self._rekeyed is not None and rows_asked is not None:
            work.rekeyed = self._rekeyed.absorb(rows_asked, list(replies))

    def _prepare(self, ahead: Ahead | None, laps: Laps) -> None:
        """Decode what comes next; nothing may fail here, and what does is tried again in time."""
        batch = ahead() if ahead is not None else None
        if batch is not None:
            laps.end("models")
            with suppress(Exception):
                self._prepared = batch, self._decoded(batch)
            laps.end("decode")

    async def _score(
        self, parts: Sequence[Vectors], laps: Laps, ahead: Ahead | None
    ) -> list[Scored]:
        """Run each model once over all vectors; meanwhile, decode what comes next."""
        if not parts:
            return []
        everything = parts[0]
        if len(parts) > 1:
            everything = Vectors(
                np.concatenate([part.values for part in parts]),
                np.zeros((sum(len(part.reasons) for part in parts), 0), bool),
                (),  # Parts may have different ones; the models do not ask for any.
                np.concatenate([part.age_us for part in parts]),
            )
        running = self._runtime.begin(everything)
        self._prepare(ahead, laps)
        await running.ended()
        scored = self._runtime.scored(running)
        self.counters.models_failed(scored.failures)
        if len(parts) == 1:
            return [scored]
        bounds = np.cumsum([0] + [len(part.values) for part in parts]).tolist()
        return [scored.part(a, b) for a, b in pairwise(bounds)]
