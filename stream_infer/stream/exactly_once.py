"""Results and offsets in one transaction: readers of committed records see each result once."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.delivering import Delivering, Replace, Room, Settle
from stream_infer.stream.group import Group
from stream_infer.stream.kafka_tasks import Failed
from stream_infer.stream.merging import Merging, together
from stream_infer.stream.parcels import Packer
from stream_infer.stream.processing import TP, Outcome, Outgoing, PartitionsFenced
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.transactional import check_transactions
from stream_infer.stream.transactions import Transactions

SMALL_BATCHES_MAX = 64
"""Micro-batches that may wait together for their partitions' next transactions."""
LARGE_BATCHES = 2
"""How many times as many full micro-batches as without transactions may be on their way."""


class ExactlyOnce:
    """Delivers through one transactional producer for each partition of the source topics.

    Those that are merged share one, named by the first. `topics` are all that results go to.
    """

    def __init__(
        self,
        topics: Sequence[str],
        *,
        merging: Merging | None,
        packer: Packer,
        group: Group,
        group_id: str,
        replace: Replace,
        settings: StreamSettings,
        counters: StreamCounters,
        failed: Failed,
    ) -> None:
        # Transactions take longer than acknowledgements: several small batches share one, and
        # with a backlog each of their requests waits for a large one to be processed.
        self.room = Room(
            max(SMALL_BATCHES_MAX, settings.in_flight_batches_max),
            LARGE_BATCHES * settings.in_flight_batches_max * settings.batch_records_max,
        )
        self._merging = merging
        self._group_id = group_id
        self._open = partial(
            Transactions,
            topics=topics,
            packer=packer,
            replace=replace,
            group=group,
            group_id=group_id,
            settings=settings,
            counters=counters,
            failed=failed,
        )
        self._by_unit: dict[TP, Transactions] = {}

    def _unit(self, tp: TP) -> TP:
        return min(together(self._merging, [tp]))

    async def take(self, partitions: Sequence[TP]) -> Mapping[TP, int | None]:
        """Fence those who delivered before; return what they have committed."""
        units: dict[TP, list[TP]] = {}
        for tp in partitions:
            units.setdefault(self._unit(tp), []).append(tp)
        await self._close(list(units))
        for unit, members in units.items():
            name = f"{self._group_id}-{unit.topic}-{unit.partition}"
            self._by_unit[unit] = self._open(members, name)
        opening = [self._by_unit[unit].open() for unit in units]
        committed: dict[TP, int | None] = {}
        for opened in await asyncio.gather(*opening, return_exceptions=True):
            if isinstance(opened, BaseException):
                await self._close(list(units))
                raise opened
            committed.update(opened)
        return committed

    async def submit(self, outcome: Outcome) -> Settle:
        """Let results join their partitions' next transactions."""
        records: dict[TP, list[Outgoing]] = {}
        positions: dict[TP, dict[TP, int]] = {}
        for tp, results in outcome.results.items():
            records.setdefault(self._unit(tp), []).extend(results)
        for tp, offset in outcome.positions.items():
            positions.setdefault(self._unit(tp), {})[tp] = offset
        return partial(
            self._settle,
            [
                self._by_unit[unit].add(records.get(unit, ()), offsets)
                for unit, offsets in positions.items()
            ],
        )

    async def _settle(self, committed: Sequence[asyncio.Future[None]]) -> None:
        fenced: list[PartitionsFenced] = []
        for future in committed:
            try:
                await future
            except PartitionsFenced as error:
                fenced.append(error)
        if fenced:
            lost = frozenset[TP]().union(*(error.partitions for error in fenced))
            raise PartitionsFenced(lost, "; ".join(map(str, fenced)))

    def commit(self, positions: Mapping[TP, int]) -> None:
        """Commit offsets that no transaction has committed: stored by a worker without them."""
        for tp, offset in positions.items():
            transactions = self._by_unit.get(self._unit(tp))
            if transactions is not None and offset > transactions.committed(tp):
                transactions.add((), {tp: offset})

    async def run(self) -> None:
        """Nothing: each partition's transactions run by themselves."""

    async def abandon(self) -> None:
        """Abort what is under way."""
        await self._close(list(self._by_unit))

    async def flush(self) -> None:
        """Nothing: offsets are committed with their results."""

    async def _close(self, units: Sequence[TP]) -> None:
        closing = [self._by_unit.pop(unit) for unit in units if unit in self._by_unit]
        await asyncio.gather(*(transactions.close() for transactions in closing))


class TransactionalOutlet:
    """Makes transactional producers; `limits` are what the topics of results accept, in bytes."""

    def __init__(
        self,
        group_id: str,
        topics: Sequence[str],
        limits: Mapping[str, int],
        merging: Merging | None,
        settings: StreamSettings,
        counters: StreamCounters,
        failed: Failed,
    ) -> None:
        self._group_id = group_id
        self._topics = topics
        self._merging = merging
        self._packer = Packer(settings.message_bytes_max, limits)
        self._settings = settings
        self._counters = counters
        self._failed = failed

    async def start(self) -> None:
        """Raise SettingsError where the broker does not fence, or not allow such transactions."""
        await check_transactions(self._settings, f"{self._group_id}-check")

    def delivering(self, group: Group, replace: Replace) -> Delivering:
        """Return what delivers for a new assignment."""
        return ExactlyOnce(
            self._topics,
            merging=self._merging,
            packer=self._packer,
            group=group,
            group_id=self._group_id,
            replace=replace,
            settings=self._settings,
            counters=self._counters,
            failed=self._failed,
        )

    async def stop(self) -> None:
        """Nothing: each assignment closes its own producers."""
