"""aiokafka's connections: fewer turns of the loop for a request, and losses known as such.

aiokafka reads a response in a task, from a stream, and waits for it within a context of its own:
some 40 calls and two turns of the loop for each, which a small micro-batch has three of. Here each
response is decoded where its bytes arrive, and the future that is given back has a timer.

Under uvloop, a connection that was lost a moment ago refuses to write with a RuntimeError, between
the loss and the turn of the loop in which aiokafka hears of it. aiokafka expects none, so whichever
of its tasks happens to write ends by it: that which keeps the cluster's metadata, say, and no
partition's new leader is ever found again. Here it is a lost connection, as any other.
"""

import asyncio
import weakref
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

SIZE_BYTES = 4
_create_reader_task = AIOKafkaConnection._create_reader_task


def use_lean_connections() -> None:
    """Let all of aiokafka's connections of this process send and read so."""
    AIOKafkaConnection.send = send
    AIOKafkaConnection._create_reader_task = create_reader_task


def send(connection: Any, request: Any, expect_response: bool = True) -> Any:
    """Send a request; return what gives its response, or TimeoutError.

    Raises KafkaConnectionError where the connection was lost.
    """
    if connection._writer is None:
        raise KafkaConnectionError(f"No connection to broker at {_place(connection)}")
    told = request.prepare(connection._versions)
    number = connection._next_correlation_id()
    header = told.build_request_header(correlation_id=number, client_id=connection._client_id)
    head, body = header.encode(), told.encode()
    try:
        connection._writer.writelines(
            ((len(head) + len(body)).to_bytes(SIZE_BYTES, "big") + head, body)
        )
    except (OSError, RuntimeError) as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {_place(connection)} broken: {error}") from error
    if not expect_response:
        return connection._writer.drain()
    loop = connection._loop
    response = loop.create_future()
    connection._requests.append((number, told, response))
    timer = loop.call_later(connection._request_timeout, _expire, response)
    response.add_done_callback(lambda _: timer.cancel())
    return response


def _place(connection: Any) -> str:
    return f"{connection.host}:{connection.port}"


def _expire(response: asyncio.Future[Any]) -> None:
    if not response.done():
        response.set_exception(TimeoutError())


def create_reader_task(connection: Any) -> asyncio.Task[None]:
    """Have what arrives decoded at once; the task, as it is aiokafka's, still hears of the end."""
    connection._reader.feed_data = _Frames(connection).feed
    task: asyncio.Task[None] = _create_reader_task(connection)
    return task


class _Frames:
    """Cuts what arrives into responses, each of which comes after its size."""

    def __init__(self, connection: Any) -> None:
        self._connection = weakref.ref(connection)
        self._parts: list[bytes] = []
        self._bytes = 0
        self._wanted = SIZE_BYTES
        self._has_ended = False

    def feed(self, data: bytes) -> None:
        """Take bytes, and let the connection have what is complete by them."""
        if self._has_ended:
            return
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes < self._wanted:
            return
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        at, end, self._wanted = 0, len(data), SIZE_BYTES
        while (start := at + SIZE_BYTES) <= end:
            size = int.from_bytes(data[at:start], "big", signed=True)
            if start + size > end:
                self._wanted = SIZE_BYTES + size
                break
            self._handle(data[start : start + size], size)
            if self._has_ended:
                self._parts = []
                return
            at = start + size
        self._parts = [data[at:]] if at < end else []
        self._bytes = end - at

    def _handle(self, frame: bytes, size: int) -> None:
        """Hand a response over, unless the connection has come to its end; it may do so by it."""
        connection = self._connection()
        if connection is None or connection._reader is None:
            self._has_ended = True
            return
        reader = connection._reader
        try:
            if size < 0:
                raise ValueError(f"a response of {size} bytes")
            connection._handle_frame(frame)
        except Exception as error:
            self._has_ended = True
            # The reading task ends by it, and aiokafka does what it does then.
            reader.set_exception(error)
