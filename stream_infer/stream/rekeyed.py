"""The second stage of a topology with rekeyed views: it folds what the first one sends on."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from stream_infer.core.engine import Engine
from stream_infer.core.rekeyed import keyed_views
from stream_infer.core.rekeyed_state import (
    Received,
    fold_rekeyed,
    lacking_rekeyed,
    new_rekeyed_state,
)
from stream_infer.monitoring.rekeyed import RekeyedCounts
from stream_infer.settings import Settings
from stream_infer.store.commands import Command, Commands
from stream_infer.store.state import StateStore
from stream_infer.stream.ending import end_process
from stream_infer.stream.forwarding import received
from stream_infer.stream.holdings import Holdings
from stream_infer.stream.owned import Owned
from stream_infer.stream.processing import TP, ConsumerRecord
from stream_infer.stream.rows import Asked, RowReader

log = logging.getLogger("stream_infer.stream")


@dataclass(slots=True)
class Share:
    """One rekeyed partition's share of a micro-batch on its way."""

    tp: TP
    owned: Owned
    records: Sequence[ConsumerRecord]
    received: Received


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
        self._commands = Commands(redis, settings.request_timeout_s, shared=False)
        self._rows_max = settings.state_rows_max
        self._holdings = Holdings(
            engine.topology,
            store,
            settings,
            monotonic_s,
            make_state=new_rekeyed_state,
            topics=[engine.topology.rekeyed_events],
        )
        self._rows = RowReader(self._holdings, store)
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
        commands: list[Command] = []
        asked: list[Asked] = []
        for share in shares:
            share.owned.evict(self._rows_max)
            lacking = lacking_rekeyed(share.owned.state, self._keyed, share.received)
            asked += self._rows.ask(commands, share.tp, share.owned, lacking)
        self._rows.insert(asked, iter(await self._commands.run(commands)))
        return shares

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
        self._holdings.take_snapshots([share.records for share in shares])
        return positions

    def acknowledged(self, positions: Mapping[TP, int]) -> None:
        """Note that snapshots up to these offsets may be stored."""
        self._holdings.acknowledge(positions)

    async def store(self) -> None:
        """Store what has changed, as far as it is acknowledged, where it is time to."""
        self._holdings.take_snapshots()
        await self._holdings.write_pending()

    async def revoke(self, partitions: Sequence[TP]) -> None:
        """Store what is left of these partitions, then forget them."""
        await self._holdings.give_back(partitions)
