"""A transactional producer; what a broker must be able to."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidTransactionTimeout, KafkaError

from stream_infer.core.errors import SettingsError
from stream_infer.stream.idempotent import sender_of, sending
from stream_infer.stream.parcels import retrieve
from stream_infer.stream.producer import close_producer
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.transaction_sender import Offsets, PromptSender, failed

PROBES = 3


class TransactionalProducer(AIOKafkaProducer):  # type: ignore[misc]
    """A producer of one `transactional.id`."""

    def __init__(self, settings: StreamSettings, transactional_id: str) -> None:
        super().__init__(
            client_id=transactional_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=int(settings.transaction_timeout_s * 1000),
            **sending(settings),
        )
        self._sender: PromptSender = sender_of(self, PromptSender)

    async def stop(self) -> None:
        """Disconnect. What failed a transaction for good has been told where it was asked for."""
        await super().stop()
        ended = self._txn_manager.wait_for_transaction_end()
        if ended is not None and ended.done():
            retrieve(ended)

    async def begin_transaction(self) -> None:
        """Begin; a started producer has its identity."""
        self._txn_manager.begin_transaction()

    async def deliver(
        self, batches: Sequence[asyncio.Future[Any]], offsets: Offsets, group_id: str
    ) -> None:
        """Have queued batches written, and offsets after them; a batch's future has its error."""
        if await self._sender.deliver(batches, offsets, group_id):
            return
        ended = self._txn_manager.wait_for_transaction_end()
        if ended.done():
            ended.result()
        if not any(batch.done() and failed(batch) for batch in batches):
            raise KafkaError("the transaction ended before its offsets were written")

    async def commit_transaction(self) -> None:
        """Commit what `deliver` has had written."""
        await self._sender.commit()

    @property
    def identity(self) -> tuple[int, int]:
        """Producer id and epoch, as Kafka gave them."""
        pid, epoch = self._txn_manager._pid_and_epoch
        return pid, epoch


async def connect(settings: StreamSettings, transactional_id: str) -> TransactionalProducer:
    """Return a producer that has fenced all earlier ones of its id, and ended their transaction."""
    producer = TransactionalProducer(settings, transactional_id)
    try:
        await producer.start()
    except BaseException:
        await close_producer(producer, timeout_s=0.1)
        raise
    return producer


async def check_transactions(settings: StreamSettings, transactional_id: str) -> None:
    """Raise SettingsError where the broker does not fence, or not grant so long a timeout."""
    broker = ",".join(settings.bootstrap)
    before = None
    for _ in range(PROBES):
        try:
            producer = await connect(settings, transactional_id)
        except InvalidTransactionTimeout as error:
            raise SettingsError(
                f"transaction_timeout_s = {settings.transaction_timeout_s:g} is more than the "
                f"broker at {broker} allows; lower it, or raise its transaction.max.timeout.ms"
            ) from error
        await close_producer(producer)
        pid, _ = producer.identity
        if pid == before:
            return
        before = pid
    raise SettingsError(
        f'delivery = "exactly_once": the broker at {broker} does not fence earlier producers of a '
        "transactional id (the embedded broker does not); use a real Kafka, or at_least_once"
    )
