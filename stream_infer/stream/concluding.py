"""The end of a micro-batch: what is published of it, and what is counted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress

import numpy as np

from stream_infer.core.arrays import Bools, choice, chosen
from stream_infer.core.engine import Folded
from stream_infer.core.labels import Joined
from stream_infer.core.partitioned import slices
from stream_infer.core.predictions import Scored, make_outcomes, make_predictions, record_ids
from stream_infer.core.results import encode, moment
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.stream.owned import Owned
from stream_infer.stream.processing import TP, Outgoing, OutgoingRecord, OutgoingRecords
from stream_infer.stream.rekeying import Rekeying
from stream_infer.stream.runtime import Runtime
from stream_infer.stream.work import Work


class Conclusion:
    """Makes the records of a topology's results. `wall_us` gives the time that they carry."""

    def __init__(
        self,
        runtime: Runtime,
        counters: TopologyCounters,
        rekeyed: Rekeying | None,
        wall_us: Callable[[], int],
    ) -> None:
        self._runtime = runtime
        self._counters = counters
        self._rekeyed = rekeyed
        self._wall_us = wall_us

    def of(self, work: Work, folded: Folded, scored: Scored) -> dict[TP, list[Outgoing]]:
        """Join labels, count, and return what is to be published, by partition."""
        runtime, topology, parts = self._runtime, self._runtime.topology, work.parts
        now_us = self._wall_us()
        # A clock that was set back is no reason for a result before its event.
        latency_ms = np.maximum(now_us - folded.scored.ingested_us, 0) / 1e3
        pairs = runtime.engine.join_labels(folded, scored.combined)
        of_parts = slices(folded.scored_bounds)
        offsets = folded.scored.offsets
        predictions = make_predictions(
            topology,
            runtime.versions,
            folded.scored,
            folded.vectors,
            scored,
            [
                prediction_id
                for part, own in zip(parts, of_parts, strict=True)
                for prediction_id in record_ids(topology, part.tp.partition, offsets[own])
            ],
            moment(now_us),
            latency_ms,
        )
        keys, payloads = predictions.keys, predictions.encoded()
        published = choice(folded.emitted)
        degraded: Iterable[tuple[str, ...]] = predictions.degraded
        if published is not None:
            degraded = compress(degraded, published.tolist())
        results: dict[TP, list[Outgoing]] = {}
        for part, own in zip(parts, of_parts, strict=True):
            if isinstance(part.owned, Owned):
                part.owned.state.results.update(zip(keys[own], payloads[own], strict=True))
            of_part = list(map(str.encode, keys[own])), payloads[own]
            if published is not None:
                emitted = published[own].tolist()
                of_part = list(compress(of_part[0], emitted)), list(compress(of_part[1], emitted))
            results[part.tp] = [OutgoingRecords(topology.output, *of_part)]
        ages_s = chosen(predictions.age_s, published)
        self._counters.predicted(chosen(latency_ms, published), ages_s, degraded)
        self._add_outcomes(work, folded, pairs, results)
        fresh = folded.fresh if len(folded.kept) == len(work.records) else work.fresh()
        self._count(work, folded, fresh)
        if self._rekeyed is not None:
            for tp, record in self._rekeyed.sent_on(work, folded):
                results[tp].append(record)
        letters = work.dead_letters(topology.name, topology.dead_letters, fresh)
        for tp, found in letters.items():
            results[tp] += found
        return results

    def _add_outcomes(
        self,
        work: Work,
        folded: Folded,
        pairs: Sequence[Joined],
        results: Mapping[TP, list[Outgoing]],
    ) -> None:
        if not pairs:
            return
        topology = self._runtime.topology
        tps = work.partitions(folded.bounds)
        outcomes = make_outcomes(topology, [tp.partition for tp in tps], folded.kept, pairs)
        for pair, outcome in zip(pairs, outcomes, strict=True):
            results[tps[pair.event]].append(
                OutgoingRecord(topology.outcomes, outcome.key.encode(), encode(outcome))
            )
            self._counters.outcome(outcome.error)

    def _count(self, work: Work, folded: Folded, fresh: Bools) -> None:
        """Add each event to exactly one of the ends."""
        ends = self._counters.ends
        predictions = int(np.count_nonzero(folded.emitted))
        ends.consumed += len(fresh)
        ends.replayed += len(fresh) - int(np.count_nonzero(fresh))
        ends.predictions += predictions
        ends.updates += int(np.count_nonzero(folded.fresh)) - predictions
        if work.batch.rejects:
            rejected = [reject.position for reject in work.batch.rejects]
            ends.dead_letters += int(np.count_nonzero(fresh[rejected]))
        if len(folded.late):
            ends.late += int(np.count_nonzero(fresh[folded.late]))
        if len(folded.duplicates):
            ends.duplicates += int(np.count_nonzero(fresh[folded.duplicates]))
