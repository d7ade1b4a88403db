"""aiokafka's sender of a transactional producer, without its needless waits and turns of the loop.

Each hand-over between aiokafka's tasks is a turn of the event loop, in which micro-batches and
other partitions' transactions come first. So one task asks all that comes before a transaction's
end, one request right after the other's answer.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.client import CoordinationType
from aiokafka.producer.sender import (
    AddOffsetsToTxnHandler,
    AddPartitionsToTxnHandler,
    BaseHandler,
    EndTxnHandler,
    InitPIDHandler,
    Sender,
)
from aiokafka.producer.transaction_manager import TransactionResult
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from stream_infer.stream.parcels import retrieve

FIRST_WAIT_S = 0.001
"""How long the coordinator is left alone first while it is busy with the last transaction's end."""
Offsets = Mapping[TopicPartition, OffsetAndMetadata]


class _Promptly:
    """Asks again after 1, 2, 4, … ms instead of 20 or 100: a transaction's end takes as long.

    The coordinator answers CONCURRENT_TRANSACTIONS until the markers of the last one are written.
    """

    wait_s = FIRST_WAIT_S

    def handle_response(self, response: Any) -> float | None:
        longest_s: float | None = super().handle_response(response)  # type: ignore[misc]
        if longest_s is None:
            return None
        wait_s = min(self.wait_s, longest_s)
        self.wait_s = wait_s * 2
        return wait_s


class _Init(_Promptly, InitPIDHandler):  # type: ignore[misc]
    pass


class _AddPartitions(_Promptly, AddPartitionsToTxnHandler):  # type: ignore[misc]
    pass


class _AddOffsets(_Promptly, AddOffsetsToTxnHandler):  # type: ignore[misc]
    pass


class PromptSender(Sender):  # type: ignore[misc]
    """Delivers and commits a transaction; aborting, and what is queued late, stay aiokafka's."""

    def __init__(self, client: Any, **settings: Any) -> None:
        super().__init__(client, **settings)
        self._init_pid = _Init(self)
        self._asked: asyncio.Task[Any] | None = None
        self._committing = False

    async def deliver(
        self, batches: Sequence[asyncio.Future[Any]], offsets: Offsets, group_id: str
    ) -> bool:
        """Have queued batches written, and then offsets; return whether all is, to be committed.

        Cancelled, it goes on by itself up to the next answer, for which an abort waits: nothing of
        a transaction may reach the broker after its end.
        """
        before = self._asked
        self._asked = asyncio.create_task(self._deliver(before, batches, offsets, group_id))
        return bool(await asyncio.shield(self._asked))

    async def commit(self) -> None:
        """Commit what is delivered."""
        # Its callers wait for it, and abort nothing after it: it needs no task of its own.
        self._committing = True
        self._txn_manager.committing_transaction()
        handler = EndTxnHandler(self, TransactionResult.COMMIT)
        while not await handler.do(await self._coordinator()):
            pass
        self._committing = False

    async def _deliver(
        self,
        before: asyncio.Task[Any] | None,
        batches: Sequence[asyncio.Future[Any]],
        offsets: Offsets,
        group_id: str,
    ) -> bool:
        if before is not None and not before.done():
            await asyncio.wait([before])
        transaction = self._txn_manager
        # Asked right after the partitions on the same connection, and answered there after them.
        adding = asyncio.create_task(self._ask(_AddOffsets(self, group_id)))
        adding.add_done_callback(retrieve)
        if partitions := transaction.partitions_to_add():
            await self._ask(_AddPartitions(self, partitions))
        await self._send(batches)
        await adding
        if not transaction.is_in_transaction() or any(map(failed, batches)):
            return False
        # Not while results are on their way: Kafka checks both, and refuses one of two at a time.
        left = dict(offsets)
        committed = transaction.add_offsets_to_txn(left, group_id)
        committed.add_done_callback(retrieve)
        while transaction.is_in_transaction() and not committed.done():
            await self._do_txn_offset_commit(left, group_id)
        return committed.done() and not failed(committed)

    async def _ask(self, handler: BaseHandler) -> None:
        """Ask the coordinator until it agrees, or the transaction is given up."""
        while self._txn_manager.is_in_transaction():
            if await handler.do(await self._coordinator()):
                return

    async def _send(self, batches: Sequence[asyncio.Future[Any]]) -> None:
        """Send queued batches until each is acknowledged or refused."""
        while self._txn_manager.is_in_transaction():
            waiting = [batch for batch in batches if not batch.done()]
            if not waiting:
                return
            by_node, _ = self._message_accumulator.drain_by_nodes(
                ignore_nodes=self._in_flight,
                muted_partitions=self._muted_partitions | self._txn_manager.partitions_to_add(),
            )
            for node, sent in by_node.items():
                self._in_flight.add(node)
                self._muted_partitions.update(sent)
            requests = [self._send_produce_req(node, sent) for node, sent in by_node.items()]
            if requests:
                await (requests[0] if len(requests) == 1 else asyncio.gather(*requests))
                await asyncio.sleep(0)  # until the futures that `send_batch` gave know, too
            else:
                # Sent by aiokafka before this, or to be sent by it once it knows the leader.
                await asyncio.wait(waiting, timeout=self._retry_backoff)

    def _maybe_do_transactional_request(self) -> asyncio.Task[Any] | None:
        """Say what aiokafka has to wait for before it asks anything of a coordinator itself."""
        if self._asked is not None and not self._asked.done():
            return self._asked
        if self._committing:
            return None
        self._asked = super()._maybe_do_transactional_request()
        return self._asked

    async def _do_init_pid(self, node_id: int) -> bool:
        return bool(await self._init_pid.do(node_id))

    async def _do_add_partitions_to_txn(self, partitions: Any) -> bool:
        return bool(await _AddPartitions(self, partitions).do(await self._coordinator()))

    async def _coordinator(self) -> int:
        name = self._txn_manager.transactional_id
        node: int = await self._find_coordinator(CoordinationType.TRANSACTION, name)
        return node


def failed(future: asyncio.Future[Any]) -> bool:
    """Whether a future that is done has an error, or was cancelled."""
    return future.cancelled() or future.exception() is not None
