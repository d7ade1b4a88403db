"""An idempotent producer that writes what is queued within the call that says so.

aiokafka hands each batch to a routine, which waits for all that may happen, hands it to a task, and
is woken again by that one's end: four turns of the event loop, in which the next micro-batch comes
first. Here a request is written where its broker is connected and owes no answer, and the answer is
looked at where it arrives. All else, and whatever goes wrong, stays aiokafka's.
"""

import asyncio
import copy
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, ProducerClosed, RequestTimedOutError
from aiokafka.producer.message_accumulator import MessageBatch
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.structs import TopicPartition

from stream_infer.stream.framing import RecordBatch
from stream_infer.stream.settings import StreamSettings

Batches = dict[TopicPartition, MessageBatch]
NO_ERROR = 0


class DirectSender(Sender):  # type: ignore[misc]
    """Sends one request at a time to a broker, as aiokafka's own does."""

    def __init__(self, client: Any, **settings: Any) -> None:
        super().__init__(client, **settings)
        self._under_way: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    async def close(self) -> None:
        """End, after the answers to what was written."""
        self._is_closed = True
        await super().close()
        try:
            if self._under_way:
                await asyncio.wait(self._under_way)
        finally:
            for future in self._under_way:
                future.cancel()

    def queue(self, batch: RecordBatch, tp: TopicPartition) -> asyncio.Future[Any]:
        """Put a batch behind those of its partition; return what tells of its end.

        Raises KafkaError where the producer was closed, or has failed for good.
        """
        accumulator = self._message_accumulator
        if accumulator._closed:
            raise ProducerClosed
        if accumulator._exception is not None:
            raise copy.copy(accumulator._exception)
        self.client.add_topic(tp.topic)  # A producer made anew knows of none.
        queued = MessageBatch(tp, batch, accumulator._batch_ttl, accumulator._linger_time)
        accumulator._batches[tp].append(queued)
        future: asyncio.Future[Any] = queued.future
        return future

    def send_queued(self) -> None:
        """Write what can be written; the rest follows an answer, or is for aiokafka's routine."""
        accumulator = self._message_accumulator
        if self._is_closed or accumulator._exception is not None:
            return
        leader_of = self.client.cluster.leader_for_partition
        sending: dict[int, tuple[Any, Batches]] = {}
        is_left = False
        for tp in list(accumulator._batches):
            node = leader_of(tp)
            if tp in self._muted_partitions or node in self._in_flight:
                continue
            connection = self.client._conns.get((node, ConnectionGroup.DEFAULT))
            if connection is None or not connection.connected():
                is_left = True
                continue
            _, batches = sending.setdefault(node, (connection, {}))
            batches[tp] = accumulator._pop_batch(tp)
        for node, (connection, batches) in sending.items():
            self._write(connection, node, batches)
        if is_left and not accumulator._waiter_future.done():
            accumulator._waiter_future.set_result(None)

    def _write(self, connection: Any, node: int, batches: Batches) -> None:
        self._in_flight.add(node)
        self._muted_partitions.update(batches)
        handler = SendProduceReqHandler(self, batches)
        try:
            answer = asyncio.ensure_future(connection.send(handler.create_request()))
        except MemoryError:
            raise
        except Exception as error:
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
        self._note(answer)
        answer.add_done_callback(partial(self._answered, connection, node, handler))

    def _answered(
        self, connection: Any, node: int, handler: Any, answer: asyncio.Future[Any]
    ) -> None:
        if _is_accepted(answer):
            handler.handle_response(answer.result())
            self._go_on(node, handler)
            return
        handler._client = _Answered(self.client, connection, answer)
        self._note(asyncio.create_task(self._mend(node, handler)))

    async def _mend(self, node: int, handler: Any) -> None:
        """Let aiokafka decide what is to be sent again, and when."""
        try:
            await handler.do(node)
        except Exception as error:
            for batch in handler._batches.values():
                batch.failure(error)
        finally:
            self._go_on(node, handler)

    def _note(self, future: asyncio.Future[Any]) -> None:
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)

    def _go_on(self, node: int, handler: Any) -> None:
        self._in_flight.discard(node)
        self._muted_partitions.difference_update(handler._batches)
        self.send_queued()


def _is_accepted(answer: asyncio.Future[Any]) -> bool:
    if answer.cancelled() or answer.exception() is not None:
        return False
    return all(part[1] == NO_ERROR for _, parts in answer.result().topics for part in parts)


class _Answered:
    """A client whose request is answered already, with an error."""

    def __init__(self, client: Any, connection: Any, answer: asyncio.Future[Any]) -> None:
        self._client = client
        self._connection = connection
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any) -> Any:
        """Return the answer, or raise what aiokafka's client would."""
        if self._answer.cancelled():
            raise KafkaConnectionError("the connection was closed")
        try:
            return self._answer.result()
        except TimeoutError as error:
            self._connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise RequestTimedOutError from error


class IdempotentProducer(AIOKafkaProducer):  # type: ignore[misc]
    """Acknowledged by all replicas, each batch once and in order."""

    def __init__(self, settings: StreamSettings, client_id: str) -> None:
        super().__init__(
            client_id=client_id,
            enable_idempotence=True,
            **sending(settings),
        )
        self._sender: DirectSender = sender_of(self, DirectSender)

    def queue(self, batch: RecordBatch, topic: str, partition: int) -> asyncio.Future[Any]:
        """Queue a batch for a partition; see `DirectSender.queue`."""
        return self._sender.queue(batch, TopicPartition(topic, partition))

    def send_queued(self) -> None:
        """Send what is queued."""
        self._sender.send_queued()


def sending(settings: StreamSettings) -> dict[str, Any]:
    """Return what all producers of results have in common, as aiokafka takes it."""
    return {
        "bootstrap_servers": settings.bootstrap,
        "acks": "all",
        "linger_ms": 0,
        "compression_type": settings.compression,
        "request_timeout_ms": int(settings.request_timeout_s * 1000),
    }


def sender_of(producer: AIOKafkaProducer, kind: type[Sender]) -> Any:
    """Return a sender of this kind for a producer that was not started yet."""
    known = producer._sender
    return kind(
        producer.client,
        acks=known._acks,
        txn_manager=known._txn_manager,
        message_accumulator=known._message_accumulator,
        retry_backoff_ms=known._retry_backoff * 1000,
        request_timeout_ms=known._request_timeout_ms,
    )
