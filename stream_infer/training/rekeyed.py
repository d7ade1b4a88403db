"""Rekeyed views in a replay: folded over all partitions in the file's order, with no lag.

That is what a worker's two stages approach: there, a row is behind by what is on its way.
"""

from collections.abc import Sequence

import numpy as np

from stream_infer.core.arrays import Ints
from stream_infer.core.columns import Batch
from stream_infer.core.engine import Engine, Folded
from stream_infer.core.rekeyed import absorb, keyed_views, with_rekeyed
from stream_infer.core.shard import Shard
from stream_infer.core.state import ROWS_MAX
from stream_infer.core.vectors import RekeyedValues, Vectors


class RekeyedReplay:
    """Rows of a topology's rekeyed views, while a file is replayed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._keyed = keyed_views(engine.topology)
        self._shards = {
            view.name: Shard(view.plan.row_dtype, ROWS_MAX) for view in engine.topology.rekeyed
        }

    def vectors(self, parts: Sequence[tuple[Folded, Ints]]) -> list[Vectors]:
        """Fold what the partitions kept of a chunk; return each one's vectors with what it found.

        Each part is a folded batch, and for each of the records that it was made of the place
        int64[n] in the chunk.
        """
        places = [where[folded.kept.positions] for folded, where in parts]
        order = np.argsort(np.concatenate(places))
        merged = _merged([folded.kept for folded, _ in parts], order)
        found = self._fold(merged)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        vectors: list[Vectors] = []
        start = 0
        for folded, _ in parts:
            scored = back[start : start + len(folded.kept)][folded.scored_at]
            start += len(folded.kept)
            answers = {name: _take(values, scored) for name, values in found.items()}
            views, names = self._engine.topology.rekeyed, self._engine.vector_names
            vectors.append(with_rekeyed(folded.vectors, names, views, answers))
        return vectors

    def _fold(self, batch: Batch) -> dict[str, RekeyedValues]:
        found: dict[str, RekeyedValues] = {}
        for views in self._keyed:
            # Every scored event is among these; what the others would read is asked by nobody.
            sent_on = np.isin(batch.kinds, views.kinds)
            part, places = batch.take(sent_on), np.flatnonzero(sent_on)
            keys = part.keys(views.by)
            for view in views.views:
                shard = self._shards[view.name]
                _, absent = shard.lookup(keys)
                shard.insert(absent, [None] * len(absent))
                rows, _ = shard.lookup(keys)
                answers, _ = absorb(view, shard, rows, part)
                shard.take_dirty()  # nothing is stored: rows stay in memory
                found[view.name] = _spread(answers, places, len(batch))
        return found


def _merged(batches: Sequence[Batch], order: Ints) -> Batch:
    """Return the events of several batches as one, in the given order."""
    events = [event for batch in batches for event in batch.events]
    return Batch(
        batches[0].stream,
        [events[i] for i in order.tolist()],
        np.concatenate([batch.positions for batch in batches])[order],
        np.concatenate([batch.offsets for batch in batches])[order],
        np.concatenate([batch.ingested_us for batch in batches])[order],
        np.concatenate([batch.times_us for batch in batches])[order],
        np.concatenate([batch.kinds for batch in batches])[order],
    )


def _take(values: RekeyedValues, which: Ints) -> RekeyedValues:
    return RekeyedValues(
        values.values[which], values.missing[which], values.ahead[which], values.age_s[which]
    )


def _spread(values: RekeyedValues, places: Ints, n: int) -> RekeyedValues:
    """Return values of n events, those at `places` as given, the others missing."""
    whole = RekeyedValues(
        np.full((n, values.values.shape[1]), np.nan),
        np.ones(n, bool),
        np.zeros(n, bool),
        np.full(n, np.nan),
    )
    for mine, given in zip(
        (whole.values, whole.missing, whole.ahead, whole.age_s),
        (values.values, values.missing, values.ahead, values.age_s),
        strict=True,
    ):
        mine[places] = given
    return whole
