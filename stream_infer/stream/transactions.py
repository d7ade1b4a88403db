"""The transactions of one partition: results and source offsets together, one after the other."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aiokafka.errors import ProducerFenced
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from stream_infer.core.errors import FencedError
from stream_infer.failpoints import failpoint
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.delivering import Replace
from stream_infer.stream.group import Group
from stream_infer.stream.kafka_tasks import Failed, watch_producer
from stream_infer.stream.parcels import TOO_LARGE, Batches, Delivery, Packer, Parcel, retrieve
from stream_infer.stream.processing import TP, Outgoing, OutgoingRecord, PartitionsFenced
from stream_infer.stream.producer import close_producer
from stream_infer.stream.retry import GaveUp, persist
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.transactional import TransactionalProducer, connect

log = logging.getLogger("stream_infer.stream")
ABORT_MAX_S = 1.0


class _Share(NamedTuple):
    """One micro-batch's part in a transaction."""

    records: Sequence[Outgoing]
    positions: Mapping[TP, int]
    committed: asyncio.Future[None]


class Transactions:
    """Commits results with the offsets of their events; what comes meanwhile goes into the next.

    `partitions` are one of a source topic, or several that are folded together.
    `topics` are all that results go to; `failed` hears of a producer that will never work again.
    """

    def __init__(
        self,
        partitions: Sequence[TP],
        transactional_id: str,
        *,
        topics: Sequence[str],
        packer: Packer,
        replace: Replace,
        group: Group,
        group_id: str,
        settings: StreamSettings,
        counters: StreamCounters,
        failed: Failed,
    ) -> None:
        self.partitions = frozenset(partitions)
        self._transactional_id = transactional_id
        self._topics = topics
        self._packer = packer
        self._batches = Batches(
            settings.result_batch_bytes_max, settings.compression, transactional=True
        )
        self._replace = replace
        self._group = group
        self._group_id = group_id
        self._settings = settings
        self._counters = counters
        self._failed = failed
        self._committed: dict[TP, int | None] = {}
        self._producer: TransactionalProducer | None = None
        self._waiting: list[_Share] = []
        self._filled = asyncio.Event()
        self._closing = asyncio.Event()
        self._ended: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Mapping[TP, int | None]:
        """Fence whoever delivered before; return the offsets that they committed.

        In this order: after it nobody else commits.
        """
        self._producer = await self._connect()
        self._committed = await self._read_committed()
        self._task = asyncio.create_task(self._run(), name=f"stream-{self._transactional_id}")
        return self._committed

    def committed(self, tp: TP) -> int:
        """Return the committed offset, 0 where there is none."""
        return self._committed.get(tp) or 0

    def add(self, records: Sequence[Outgoing], positions: Mapping[TP, int]) -> asyncio.Future[None]:
        """Let records and offsets be committed together.

        The future raises PartitionsFenced when somebody else delivers by now, or this is closed.
        """
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        committed.add_done_callback(retrieve)
        if self._ended is not None:
            committed.set_exception(self._ended)
        else:
            self._waiting.append(_Share(records, positions, committed))
            self._filled.set()
        return committed

    async def close(self) -> None:
        """Abort what is under way; whoever takes the partitions next finds out how far it came."""
        self._closing.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._end([], self._given_back())
        await self._drop_producer()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            shares, self._waiting = self._waiting, []
            try:
                await self._commit(shares)
            except asyncio.CancelledError:
                self._end(shares, self._given_back())
                raise
            except GaveUp:
                self._end(shares, self._given_back())
                return
            except Exception as error:
                self._end(shares, error)
                return
            for share in shares:
                share.committed.set_result(None)

    def _end(self, shares: Sequence[_Share], error: Exception) -> None:
        """Fail what is under way, what waits, and what is still to come."""
        self._ended = self._ended or error
        for share in (*shares, *self._waiting):
            if not share.committed.done():
                share.committed.set_exception(error)
        self._waiting = []

    async def _commit(self, shares: Sequence[_Share]) -> None:
        """Commit shares in one transaction, trying again until it is known to be committed."""
        goal: dict[TP, int] = {}
        for share in shares:
            goal.update(share.positions)
        # Never backwards: what is folded again after a crash was published, and is committed.
        goal = {tp: offset for tp, offset in goal.items() if offset > self.committed(tp)}
        if not goal:
            return
        packed: list[Delivery] = []
        names = ", ".join(f"{topic}/{number}" for topic, number in sorted(self.partitions))

        async def attempt() -> None:
            if self._producer is None and await self._resume(goal):
                return
            assert self._producer is not None
            try:
                if not packed:
                    records = [record for share in shares for record in share.records]
                    packed.append(await self._pack(self._producer, records))
                await self._transact(self._producer, packed[0], goal)
            except ProducerFenced as error:
                raise self._fenced(f"another producer has taken {names}") from error
            except BaseException:
                await self._drop_producer()
                raise

        await persist(
            f"committing the results of {names}",
            attempt,
            stop=self._closing,
            counters=self._counters,
            delay_min_s=self._settings.retry_delay_min_s,
            delay_max_s=self._settings.retry_delay_max_s,
        )
        self._committed.update(goal)
        self._counters.commits += 1
        if packed:
            self._counters.produced += sum(len(parcel.records) for parcel in packed[0].parcels)

    async def _resume(self, goal: Mapping[TP, int]) -> bool:
        """Go on with a new producer; return whether the transaction before it was committed.

        Taking the transactional id again has ended that transaction, one way or the other.
        """
        producer = await self._connect()
        try:
            committed = await self._read_committed()
            done = committed == {**self._committed, **goal}
            if not done and committed != self._committed:
                raise self._fenced(f"others have committed {committed} since {self._committed}")
        except BaseException:
            # Without an answer, the next attempt must ask again, and not send.
            await close_producer(producer, timeout_s=ABORT_MAX_S)
            raise
        self._producer = producer
        return done

    async def _pack(self, producer: TransactionalProducer, records: Sequence[Outgoing]) -> Delivery:
        partitions = {topic: sorted(await producer.partitions_for(topic)) for topic in self._topics}
        delivery = self._packer.pack(records, partitions)
        self._replace_refused(delivery, partitions)
        return delivery

    def _replace_refused(self, delivery: Delivery, partitions: Mapping[str, Sequence[int]]) -> None:
        """Put in the place of records that are too large what the processor says."""
        refused, delivery.refused = delivery.refused, []
        if not refused:
            return
        replacements: list[OutgoingRecord] = []
        for error in refused:
            log.error("%s", error)
            replacements.extend(self._replace(error.record, error))
        self._counters.refused += len(refused)
        further = self._packer.pack(replacements, partitions)
        for error in further.refused:
            log.error("%s", error)
        self._counters.refused += len(further.refused)
        delivery.parcels.extend(further.parcels)

    async def _transact(
        self, producer: TransactionalProducer, delivery: Delivery, goal: Mapping[TP, int]
    ) -> None:
        """Send, and commit; raises what went wrong, after which the producer is of no use."""
        await producer.begin_transaction()
        parcels: list[Parcel] = []
        for parcel in delivery.parcels:
            for part, batch in self._batches.of(parcel):
                part.future = await producer.send_batch(batch, part.topic, partition=part.partition)
                part.future.add_done_callback(retrieve)
                parcels.append(part)
        delivery.parcels = parcels
        failpoint("in_transaction")
        offsets = {TopicPartition(*tp): OffsetAndMetadata(end, "") for tp, end in goal.items()}
        futures = [part.future for part in parcels if part.future is not None]
        await producer.deliver(futures, offsets, self._group_id)
        errors = [part.error for part in parcels if part.error is not None]
        if any(isinstance(error, TOO_LARGE) for error in errors):
            self._packer.cut(delivery)
            partitions = {t: sorted(await producer.partitions_for(t)) for t in self._topics}
            self._replace_refused(delivery, partitions)
        for error in errors:
            raise error
        failpoint("transaction_ending")
        await producer.commit_transaction()
        failpoint("transaction_committed")

    async def _connect(self) -> TransactionalProducer:
        producer = await connect(self._settings, self._transactional_id)
        watch_producer(producer, self._failed)
        return producer

    async def _read_committed(self) -> dict[TP, int | None]:
        return dict(await self._group.committed(sorted(self.partitions)))

    def _fenced(self, why: str) -> FencedError:
        return PartitionsFenced(self.partitions, why)

    def _given_back(self) -> FencedError:
        return PartitionsFenced(self.partitions, "given back", reassigned=False)

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        if producer._txn_manager.is_in_transaction():
            # Readers of committed records wait for its end.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(ABORT_MAX_S):
                    await producer.abort_transaction()
        await close_producer(producer, timeout_s=ABORT_MAX_S)
        waiter = producer._txn_manager.wait_for_transaction_end()
        if waiter is not None and waiter.done():
            retrieve(waiter)
