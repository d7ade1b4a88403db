"""aiokafka's transactional producer without its needless waits; what a broker must be able to."""

from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import CoordinationType
from aiokafka.errors import InvalidTransactionTimeout
from aiokafka.producer.sender import (
    AddOffsetsToTxnHandler,
    AddPartitionsToTxnHandler,
    InitPIDHandler,
    Sender,
)

from stream_infer.core.errors import SettingsError
from stream_infer.stream.producer import close_producer
from stream_infer.stream.settings import StreamSettings

FIRST_WAIT_S = 0.001
"""How long the coordinator is left alone first while it is busy with the last transaction's end."""
PROBES = 3


class _Promptly:
    """Asks again after 1, 2, 4, … ms instead of 20 or 100: a transaction's end takes as long.

    The coordinator answers CONCURRENT_TRANSACTIONS until the markers of the last one are written.
    """

    _sender: "PromptSender"

    def handle_response(self, response: Any) -> float | None:
        longest_s: float | None = super().handle_response(response)  # type: ignore[misc]
        if longest_s is None:
            self._sender.wait_s = FIRST_WAIT_S
            return None
        wait_s = min(self._sender.wait_s, longest_s)
        self._sender.wait_s = wait_s * 2
        return wait_s


class _Init(_Promptly, InitPIDHandler):  # type: ignore[misc]
    pass


class _AddPartitions(_Promptly, AddPartitionsToTxnHandler):  # type: ignore[misc]
    pass


class _AddOffsets(_Promptly, AddOffsetsToTxnHandler):  # type: ignore[misc]
    pass


class PromptSender(Sender):  # type: ignore[misc]
    """aiokafka's sender, with shorter waits before the requests that begin a transaction."""

    wait_s = FIRST_WAIT_S

    async def _do_init_pid(self, node_id: int) -> bool:
        return bool(await _Init(self).do(node_id))

    async def _do_add_partitions_to_txn(self, partitions: Any) -> bool:
        return bool(await _AddPartitions(self, partitions).do(await self._coordinator()))

    async def _do_add_offsets_to_txn(self, group_id: str) -> bool:
        return bool(await _AddOffsets(self, group_id).do(await self._coordinator()))

    async def _coordinator(self) -> int:
        name = self._txn_manager.transactional_id
        node: int = await self._find_coordinator(CoordinationType.TRANSACTION, name)
        return node


class TransactionalProducer(AIOKafkaProducer):  # type: ignore[misc]
    """A producer of one `transactional.id`."""

    def __init__(self, settings: StreamSettings, transactional_id: str) -> None:
        super().__init__(
            bootstrap_servers=settings.bootstrap,
            client_id=transactional_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=int(settings.transaction_timeout_s * 1000),
            acks="all",
            linger_ms=0,
            max_batch_size=settings.result_batch_bytes_max,
            compression_type=settings.compression,
            request_timeout_ms=int(settings.request_timeout_s * 1000),
        )
        known: Sender = self._sender
        self._sender: Sender = PromptSender(
            self.client,
            acks=-1,
            txn_manager=self._txn_manager,
            message_accumulator=self._message_accumulator,
            retry_backoff_ms=known._retry_backoff * 1000,
            request_timeout_ms=known._request_timeout_ms,
        )

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
