"""Connections to Kafka: each request has its response, and a loss is known as such."""

import asyncio
import importlib.util
import socket
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import CorrelationIdError, KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest, ListGroupsRequest, ListGroupsResponse_v0
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.stream import kafka_connections


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
    """Once it does not, `send` need not catch RuntimeError."""
    spec = importlib.util.find_spec("aiokafka.conn")
    assert spec is not None
    assert spec.loader is not None
    untouched = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(untouched)
    with pytest.raises(RuntimeError, match="handler is closed"):
        sending(untouched.AIOKafkaConnection.send)()


def test_to_us_it_is_a_lost_connection() -> None:
    with pytest.raises(KafkaConnectionError, match="handler is closed"):
        sending(kafka_connections.send)()


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.written[-1:] == [b"closed"]

    def close(self) -> None:
        self.written.append(b"closed")


def connected(timeout_s: float = 40.0) -> tuple[AIOKafkaConnection, Transport]:
    """A connection whose peer is the test: what it says goes to `connection._reader.feed_data`."""
    loop, transport = asyncio.get_running_loop(), Transport()
    connection = AIOKafkaConnection("here", 9, request_timeout_ms=timeout_s * 1000)
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    connection._reader = reader
    connection._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    connection._closed_fut = loop.create_future()
    connection._read_task = kafka_connections.create_reader_task(connection)
    return connection, transport


def response(number: int, members: int) -> bytes:
    """An answer to ListGroups: without error, and with some names."""
    names = [(f"group-{n}", "consumer") for n in range(members)]
    body = number.to_bytes(4, "big") + ListGroupsResponse_v0(0, names).encode()
    return len(body).to_bytes(4, "big") + body


@given(
    members=st.lists(st.integers(0, 30), min_size=1, max_size=5), cuts=st.lists(st.integers(1, 400))
)
def test_each_request_gets_its_response_however_the_bytes_arrive(
    members: list[int], cuts: list[int]
) -> None:
    async def ask() -> None:
        connection, transport = connected()
        connection._versions = {ListGroupsRequest.API_KEY: (0, 0)}
        asked = [kafka_connections.send(connection, ListGroupsRequest()) for _ in members]
        sent = b"".join(transport.written)
        assert sent.count(b"aiokafka") == len(members)
        assert int.from_bytes(sent[:4], "big") + 4 == len(sent) // len(members)
        data = b"".join(response(n, count) for n, count in enumerate(members, 1))
        for cut in [*cuts, len(data)]:
            if data:
                connection._reader.feed_data(data[:cut])
            data = data[cut:]
        answers = [await future for future in asked]
        assert [len(answer.groups) for answer in answers] == members
        connection.close()

    asyncio.run(ask())


async def test_what_cannot_be_read_ends_the_connection_and_all_that_wait() -> None:
    connection, transport = connected()
    connection._versions = {ListGroupsRequest.API_KEY: (0, 0)}
    asked = [kafka_connections.send(connection, ListGroupsRequest()) for _ in range(3)]
    connection._reader.feed_data(response(1, 2) + response(7, 0) + response(3, 0))
    assert len((await asked[0]).groups) == 2
    with pytest.raises(CorrelationIdError):
        await asked[1]
    with pytest.raises(KafkaConnectionError):
        await asked[2]
    assert transport.written[-1] == b"closed"
    with pytest.raises(KafkaConnectionError, match="No connection"):
        kafka_connections.send(connection, ListGroupsRequest())


async def test_an_error_while_reading_is_that_of_aiokafkas_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = asyncio.get_running_loop().create_future()
    heard = staticmethod(lambda _, task: ended.set_result(task))
    monkeypatch.setattr(AIOKafkaConnection, "_on_read_task_error", heard)
    connection, _ = connected()
    connection._versions = {ListGroupsRequest.API_KEY: (0, 0)}
    asked = kafka_connections.send(connection, ListGroupsRequest())
    frames: list[bytes] = []

    def fail(frame: bytes) -> None:
        frames.append(frame)
        raise MemoryError

    connection._handle_frame = fail
    connection._reader.feed_data(response(1, 0) + response(2, 0))
    connection._reader.feed_data(response(3, 0))
    with pytest.raises(MemoryError):
        await (await ended)
    assert len(frames) == 1
    asked.cancel()
    connection.close()


async def test_a_response_of_less_than_nothing_ends_the_connection() -> None:
    connection, _ = connected()
    connection._versions = {ListGroupsRequest.API_KEY: (0, 0)}
    asked = kafka_connections.send(connection, ListGroupsRequest())
    connection._reader.feed_data((-9).to_bytes(4, "big", signed=True) + bytes(20))
    with pytest.raises(KafkaConnectionError, match="closed"):
        await asked


async def test_what_an_authentication_is_answered_is_given_as_it_came() -> None:
    connection, _ = connected()
    asked = asyncio.ensure_future(connection._send_sasl_token(b"who"))
    connection._reader.feed_data((5).to_bytes(4, "big") + b"hel")
    connection._reader.feed_data(b"lo")
    assert await asked == b"hello"
    connection.close()


async def test_a_response_in_time_leaves_no_timer() -> None:
    connection, _ = connected()
    connection._versions = {ListGroupsRequest.API_KEY: (0, 0)}
    timers: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()

    def call_later(*arguments: Any) -> asyncio.TimerHandle:
        timers.append(loop.call_later(*arguments))
        return timers[-1]

    connection._loop = SimpleNamespace(create_future=loop.create_future, call_later=call_later)
    asked = kafka_connections.send(connection, ListGroupsRequest())
    connection._reader.feed_data(response(1, 0))
    await asked
    await asyncio.sleep(0)
    assert [timer.cancelled() for timer in timers] == [True]
    connection.close()


async def test_the_end_of_the_stream_ends_the_connection() -> None:
    connection, _ = connected()
    connection._versions = {ListGroupsRequest.API_KEY: (0, 0)}
    asked = kafka_connections.send(connection, ListGroupsRequest())
    connection._reader.feed_data(response(1, 0)[:5])
    connection._reader.feed_eof()
    with pytest.raises(KafkaConnectionError, match="closed"):
        await asked


async def test_a_request_that_gets_no_response_in_time_says_so() -> None:
    connection, _ = connected(timeout_s=0.001)
    connection._versions = {ListGroupsRequest.API_KEY: (0, 0)}
    with pytest.raises(TimeoutError):
        await kafka_connections.send(connection, ListGroupsRequest())
    connection.close()


def test_all_connections_of_a_worker_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AIOKafkaConnection, "send", None)
    monkeypatch.setattr(AIOKafkaConnection, "_create_reader_task", None)
    kafka_connections.use_lean_connections()
    assert AIOKafkaConnection.send is kafka_connections.send
    assert AIOKafkaConnection._create_reader_task is kafka_connections.create_reader_task
