"""The second stage of a topology with rekeyed views: it folds what the first one sends on."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from stream_infer.core.engine import Engine
from stream_infer.core.errors import FencedError
from stream_infer.core.rekeyed import keyed_views
from stream_infer.core.rekeyed_state import (
    Received,
    fold_rekeyed,
    lacking_rekeyed,
    new_rekeyed_state,
)
from stream_infer.core.shard import Shard
from stream_infer.monitoring.rekeyed import RekeyedCounts
from stream_infer.settings import Settings
from stream_infer.store.state import Ownership, StateStore
from stream_infer.stream.forwarding import received
from stream_infer.stream.holdings import Holdings, Owned
from stream_infer.stream.processing import TP, ConsumerRecord
from stream_infer.stream.processor import end_process

log = logging.getLogger("stream_infer.stream")


@dataclass(slots=True)
class Share:
    """One rekeyed partition's share of a micro-batch on its way."""

    tp: TP
    owned: Owned
    records: Sequence[ConsumerRecord]
    received: Received
    lacking: dict[str, list[str]] = field(default_factory=dict)
    before: Ownership | None = None
    asks_memory: bool = False


class RekeyedStage:
    """Folds the rekeyed topic of one topology into rows; it publishes nothing.

    A micro-batch takes two calls: `prepare` reads what is lacking and may fail; `fold` moves the
    state and may not. State is stored, fenced and given back as the first stage's is.
    """

    def __init__(
        self,
        engine: Engine,
        redis: Redis,
        store: StateStore,
        settings: Settings,
        counts: RekeyedCounts,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        broken: Callable[[Exception], None] = end_process,
    ) -> None:
        self._engine = engine
        self._keyed = keyed_views(engine.topology)
        self._redis = redis
        self._store = store
        self._rows_max = settings.state_rows_max
        self._holdings = Holdings(
            engine.topology,
            store,
            settings,
            monotonic_s,
            make_state=new_rekeyed_state,
            topics=[engine.topology.rekeyed_events],
        )
        self._broken = broken
        self.counts = counts

    async def assign(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> Mapping[TP, int]:
        """Acquire the partitions' state; read on from where that ends."""
        try:
            return await self._holdings.acquire(partitions, committed)
        finally:
            self.counts.discards = self._holdings.evictions.discards

    async def prepare(self, batch: Mapping[TP, Sequence[ConsumerRecord]]) -> list[Share]:
        """Decode, and fetch the rows that are not in memory, in one round trip."""
        shares = [
            Share(tp, self._holdings[tp], records, received(self._engine, self._keyed, records))
            for tp, records in batch.items()
            if tp in self._holdings
        ]
        pipeline = self._redis.pipeline(transaction=False)
        for share in shares:
            share.owned.evict(self._rows_max)
            share.lacking = lacking_rekeyed(share.owned.state, self._keyed, share.received)
            for name, keys in share.lacking.items():
                if keys:
                    found_at = self._store.row_keys(share.tp.partition, name, keys)
                    pipeline.execute_command("MGET", *found_at)
            if any(share.lacking.values()):
                share.before = share.owned.ownership
                pipeline.execute_command(*self._store.header_command(share.tp.partition))
                share.asks_memory = self._holdings.evictions.asks(share.owned.watch)
                if share.asks_memory:
                    pipeline.execute_command(*self._store.memory_command(share.tp.partition))
        replies: list[Any] = await pipeline.execute() if len(pipeline) else []
        self._insert(shares, replies)
        return shares

    def _insert(self, shares: Sequence[Share], replies: Sequence[Any]) -> None:
        answers = iter(replies)
        fenced: dict[TP, FencedError] = {}
        for share in shares:
            state, rows = share.owned.state, list[tuple[Shard, list[str], list[bytes | None]]]()
            for name, keys in share.lacking.items():
                if keys:
                    rows.append((state.shards[name], keys, next(answers)))
            if share.before is None:
                continue
            header = next(answers)
            told = next(answers) if share.asks_memory else None
            try:
                self._store.check_header(share.before, header)
                absent = any(None in found for _, _, found in rows)
                self._holdings.evictions.check(share.owned.watch, told, absent=absent)
            except FencedError as error:
                if self._holdings.get(share.tp) is share.owned:
                    fenced[share.tp] = error
                continue
            for shard, keys, found in rows:
                shard.insert(keys, found)
        self._holdings.forget(fenced)

    def fold(self, shares: Sequence[Share]) -> dict[TP, int]:
        """Fold what was prepared and is still ours; return the next offsets to consume."""
        try:
            return self._folded(shares)
        except Exception as error:
            self._broken(error)
            raise

    def _folded(self, shares: Sequence[Share]) -> dict[TP, int]:
        positions: dict[TP, int] = {}
        for share in shares:
            if self._holdings.get(share.tp) is not share.owned:
                continue  # given away while we waited: it belongs to somebody else now
            counted = fold_rekeyed(share.owned.state, self._keyed, share.received)
            rejected = len(share.received.batch.rejects)
            if rejected:
                reason = share.received.batch.rejects[0].reason
                log.warning(
                    "%s/%d: %d records are no events sent on: %s", *share.tp, rejected, reason
                )
            self.counts.add(len(share.records), counted, rejected)
            positions[share.tp] = share.records[-1].offset + 1
            share.owned.state.position = (positions[share.tp],)
            share.owned.changed = True
        self._holdings.take_snapshots()
        return positions

    async def acknowledged(self, positions: Mapping[TP, int]) -> None:
        """Store the snapshots up to these offsets."""
        self._holdings.acknowledge(positions)
        await self._holdings.write_pending()

    async def idle(self) -> None:
        """Store what has changed since the last time."""
        self._holdings.take_snapshots()
        await self._holdings.write_pending()

    async def revoke(self, partitions: Sequence[TP]) -> None:
        """Store what is left of these partitions, then forget them."""
        await self._holdings.give_back(partitions)
