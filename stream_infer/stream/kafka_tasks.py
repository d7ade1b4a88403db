"""aiokafka's own tasks: whoever needs one that has ended by an error would wait for ever."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection

from stream_infer.core.errors import StreamInferError
from stream_infer.stream.ending import want_of_memory

Failed = Callable[[Exception], None]
LEADERS = "looking for partitions' leaders"
_on_read_task_error = AIOKafkaConnection._on_read_task_error


class KafkaClientBroken(StreamInferError):  # noqa: N818
    """A task of the Kafka client has ended by an error; only a new client has it again."""


def watch_consumer(consumer: Any, failed: Failed) -> None:
    """Tell `failed` of an end by an error, before the consumer is stopped.

    What coordinates with the group is watched by `membership`.
    """
    _watch(consumer, consumer._fetcher, "_fetch_task", "fetching", failed)
    _watch(consumer, consumer._client, "_sync_task", LEADERS, failed)


def watch_producer(producer: Any, failed: Failed) -> None:
    """Tell `failed` of an end by an error, before the producer is stopped.

    An end of its sending fails all that it was given, so a new producer takes over; that helps
    against all but want of memory.
    """
    _watch(producer, producer.client, "_sync_task", LEADERS, failed)
    sender, sending = producer._sender, producer._sender._sender_task
    # Before aiokafka's own callback, which raises where there are no transactions.
    sending.remove_done_callback(sender._fail_all)
    _watch(producer, sender, "_sender_task", "sending", failed, of=want_of_memory)
    sending.add_done_callback(sender._fail_all)


def hear_want_of_memory() -> None:
    """Let want of memory while an answer is read reach the loop's exception handler.

    aiokafka takes it for a lost connection, and asks again.
    """
    AIOKafkaConnection._on_read_task_error = classmethod(on_read_task_error)


def on_read_task_error(kind: Any, connection: Any, task: asyncio.Task[None]) -> None:
    """Do as aiokafka does at the end of a connection's reading, and tell of want of memory."""
    lack = None if task.cancelled() else want_of_memory(task.exception())
    if lack is not None:
        context = {"message": "no memory for an answer of Kafka's", "exception": lack}
        task.get_loop().call_exception_handler(context)
    _on_read_task_error.__func__(kind, connection, task)


def _watch(
    client: Any,
    part: Any,
    name: str,
    doing: str,
    failed: Failed,
    of: Callable[[BaseException], object] = lambda error: error,
) -> None:
    def ended(task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None or client._closed or not of(error):
            return
        # Closing awaits it: that would raise the error once more, and leave connections open.
        over = task.get_loop().create_future()
        over.set_result(None)
        setattr(part, name, over)
        cause = error.__cause__ or error
        broken = KafkaClientBroken(
            f"the Kafka client stopped {doing} ({type(cause).__name__}: {cause}); start the "
            "worker again"
        )
        broken.__cause__ = error
        failed(broken)

    getattr(part, name).add_done_callback(ended)
