"""A connection to Kafka that was lost a moment ago, under uvloop."""

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

from stream_infer.stream import lost_connections


async def lost_connection() -> AIOKafkaConnection:
    """A connection that its peer has reset, of which nobody has heard but the loop."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    connection = AIOKafkaConnection(*listener.getsockname())
    loop, reader, gone = asyncio.get_running_loop(), asyncio.StreamReader(), asyncio.Event()

    class Protocol(asyncio.StreamReaderProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            gone.set()

    protocol = Protocol(reader)
    transport, _ = await loop.create_connection(lambda: protocol, *listener.getsockname())
    connection._reader = reader
    connection._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    connection._closed_fut = loop.create_future()
    connection._read_task = loop.create_future()
    peer, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    listener.close()
    await gone.wait()
    return connection


def sending(send: Callable[..., object]) -> Callable[[], None]:
    async def lose_and_send() -> None:
        connection = await lost_connection()
        try:
            send(connection, ApiVersionRequest())
        finally:
            connection.close()

    return lambda: uvloop.run(lose_and_send())


def test_aiokafka_itself_ends_whatever_task_writes() -> None:
    """Once it does not, `lost_connections` may go."""
    with pytest.raises(RuntimeError, match="handler is closed"):
        sending(lost_connections._send)()


def test_to_us_it_is_a_lost_connection() -> None:
    with pytest.raises(KafkaConnectionError, match="handler is closed"):
        sending(lost_connections.send)()


def test_all_connections_of_a_worker_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AIOKafkaConnection, "send", lost_connections._send)
    lost_connections.expect_lost_connections()
    assert AIOKafkaConnection.send is lost_connections.send
