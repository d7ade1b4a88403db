"""What a connection promises while it saves tasks and timers: bounded waits, right replies."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream_infer.store.connection import connect
from stream_infer.store.quick_connection import QuickConnection

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server that does to each connection what a test says, in turns; then it only listens."""

    def __init__(self, *turns: Serve) -> None:
        self._turns = list(turns)
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await until(self._all_ended)
        await asyncio.sleep(0.05)  # the clients' ends hear of it

    async def _all_ended(self) -> bool:
        return not self._open

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = self._turns[min(self.connections, len(self._turns) - 1)]
        self.connections += 1
        self._open.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await turn(reader, writer)
        writer.close()
        self._open.remove(writer)


INTRODUCTIONS = 2
"""Commands by which redis-py introduces itself on a new connection."""


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int = 1 << 30
) -> None:
    """Answer so many commands, whichever they are, byte by byte."""
    while count > 0 and (line := await reader.readline()):
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            await reader.readexactly(size + 2)
        for octet in b"$2\r\nhi\r\n":
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0)
        count -= 1


async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await answer(reader, writer, INTRODUCTIONS)
    while await reader.read(1 << 16):
        pass


async def take_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await answer(reader, writer, INTRODUCTIONS)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await reader.read()


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await answer(reader, writer, INTRODUCTIONS + 1)


async def speak_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await answer_once(reader, writer)
    writer.write(b"$5\r\nstray\r\n")
    await reader.read()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await answer(reader, writer, INTRODUCTIONS)
    await reader.readline()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait, for a while, until something holds."""
    async with asyncio.timeout(5):
        while not await holds():  # noqa: ASYNC110 (nobody sets an event for it)
            await asyncio.sleep(0)


def plain(url: str) -> Redis:
    return connect(url, timeout_s=0.2)


async def test_connections_are_quick_ones() -> None:
    client = plain("redis://localhost")
    assert client.connection_pool.connection_class is QuickConnection
    assert connect("rediss://localhost", timeout_s=1).connection_pool.connection_class is not (
        QuickConnection
    )


@pytest.mark.parametrize(
    "command",
    [
        ("HMGET", "key:ümlaut 東京", b"\x00a", 1, -5, 2.5, ""),
        ("SCRIPT LOAD", "return 1"),
        (b"CONFIG GET", "port"),
        ("EVALSHA", "a" * 40, 2, "one", "two", b"x" * 200_000, memoryview(b"abc")),
        ("INCRBYFLOAT", "key", 1e300),
    ],
)
def test_commands_are_what_redis_py_sends(command: tuple[Any, ...]) -> None:
    quick, plain = QuickConnection(), Connection()
    assert b"".join(quick.pack_command(*command)) == b"".join(plain.pack_command(*command))
    with pytest.raises(DataError):
        quick.pack_command("SET", "key", None)


async def test_all_replies_of_a_pipeline_are_read_however_they_arrive() -> None:
    async with Server(answer) as url, plain(url) as client:
        await client.get("first")
        pipeline = client.pipeline(transaction=False)
        for number in range(30):
            pipeline.execute_command("GET", "x" * number * 1_000)
        assert await pipeline.execute() == [b"hi"] * 30


async def test_no_server_is_waited_for_longer_than_the_timeout() -> None:
    async with Server(keep_silent, take_nothing, answer) as url, plain(url) as client:
        with pytest.raises(RedisTimeoutError):
            async with asyncio.timeout(5):
                await client.get("key")
        with pytest.raises(RedisTimeoutError):
            async with asyncio.timeout(5):
                await client.set("key", b"x" * (32 << 20))
        assert await client.get("key") == b"hi"


@pytest.mark.parametrize("serve", [answer_once, speak_first])
async def test_a_connection_that_is_no_good_any_more_is_replaced_before_it_is_used(
    serve: Serve,
) -> None:
    server = Server(serve, answer)
    async with server as url, plain(url) as client:
        assert await client.get("key") == b"hi"
        connection = client.connection_pool._available_connections[0]  # type: ignore[attr-defined]
        await until(connection.can_read_destructive)
        assert await client.get("key") == b"hi"
        assert server.connections == 2


async def test_a_request_that_is_cancelled_leaves_no_reply_to_the_next_one() -> None:
    asked = asyncio.Event()

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, INTRODUCTIONS)
        await reader.readline()
        asked.set()
        await reader.read()

    async with Server(answer_late, answer) as url, connect(url, timeout_s=30) as client:
        asking = asyncio.ensure_future(client.get("key"))
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await client.get("key") == b"hi"


async def test_a_server_that_closes_in_the_middle_is_an_error_of_redis() -> None:
    async with Server(hang_up) as url, plain(url) as client:
        with pytest.raises(RedisConnectionError):
            await client.get("key")
