"""Commands of many callers on one connection to Redis, for what must cost little.

A client library's pipeline takes a connection from a pool, waits with a time limit for each reply,
and gives the connection back: more work than a small read itself. Here, what callers ask goes out
in one write each, in whatever order they come, and replies find their callers by that order.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

Command = tuple[str | bytes | int, ...]
_pack: Callable[[Any], bytes] = hiredis.pack_command


class Commands:
    """Sends commands to the server of `redis`, a client of one server or of a cluster.

    The connection is one of the client's own, taken when it is first needed, and made anew when it
    is broken; it is closed with the client. A cluster is asked through the client's pipelines.
    Where callers do not share the connection, one that gives up waiting takes it with it: the
    server may be gone without a word.
    """

    def __init__(self, redis: Redis, timeout_s: float, *, shared: bool = True) -> None:
        self._redis = redis
        self._is_cluster = isinstance(redis, RedisCluster)
        self._timeout_s = timeout_s
        self._shared = shared
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply to each command, in order.

        Commands are sent once more where the connection turns out to be broken, so they must be
        such that a repeat does no harm. Raises redis.RedisError: when the server does not answer
        in time or cannot be reached, and for the first command that it refuses.
        """
        if not commands:
            return []
        if self._is_cluster:
            return await self._through_client(commands)
        try:
            replies = await self.attempt(commands)
        except RedisConnectionError:
            replies = await self.attempt(commands)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies

    async def attempt(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply to each command, or the redis.RedisError with which it was refused.

        For a client of one server; commands are sent once. Raises redis.RedisError when the server
        cannot be reached, or does not answer in time: it may have obeyed all the same.
        """
        text = b"".join(map(_pack, commands))
        line = self._line_now() or await self._connect()
        try:
            return await line.ask(text, len(commands))
        except asyncio.CancelledError:
            if not self._shared:
                self.close()
            raise

    def close(self) -> None:
        """Close the connection; what is under way fails."""
        if self._line is not None:
            self._line.close(RedisConnectionError("the connection was closed"))

    def _line_now(self) -> "_Line | None":
        return self._line if self._line is not None and not self._line.closed else None

    async def _connect(self) -> "_Line":
        async with self._connecting:
            line = self._line_now()
            if line is None:
                if self._line is not None:
                    broken, self._line = self._line, None
                    await broken.give_back()
                line = self._line = await _Line.opened(self._redis, self._timeout_s)
            return line

    async def _through_client(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute()
        return replies


class _Line(asyncio.Protocol):
    """One connection of a client's pool, and who waits for replies on it."""

    def __init__(self, pool: ConnectionPool, taken: Any, timeout_s: float) -> None:
        self.closed = False
        self._pool = pool
        self._taken = taken
        self._transport: asyncio.Transport = taken._writer.transport
        self._protocol_before = self._transport.get_protocol()
        self._transport.set_protocol(self)
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(replyError=BaseParser.parse_error)
        self._asked: deque[tuple[int, float, asyncio.Future[list[Any]]]] = deque()
        self._replies: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def opened(cls, redis: Redis, timeout_s: float) -> "_Line":
        """Connect as a client does, with its login and its TLS, and take the connection over."""
        pool = redis.connection_pool
        taken: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        # One that the pool had may have ended while the pool looked at it: nobody would hear of it.
        if taken._reader.at_eof() or taken._reader.exception() is not None:
            try:
                await taken.disconnect(nowait=True)
                await taken.connect()
            except BaseException:
                await pool.release(taken)
                raise
        return cls(pool, taken, timeout_s)

    async def give_back(self) -> None:
        """Let the client have its connection again, which is closed."""
        await self._taken.disconnect(nowait=True)
        await self._pool.release(self._taken)

    async def ask(self, text: bytes, count: int) -> list[Any]:
        """Send commands; return that many replies."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._asked.append((count, self._loop.time(), future))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._check)
        self._transport.write(text)
        return await future

    def data_received(self, data: bytes) -> None:
        """Hand replies to those who wait for them."""
        reader, replies = self._reader, self._replies
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                replies.append(reply)
                if len(replies) == self._asked[0][0]:
                    future = self._asked.popleft()[2]
                    if not future.done():
                        future.set_result(replies)
                    replies = self._replies = []
        except (hiredis.ProtocolError, IndexError) as error:
            self.close(RedisConnectionError(f"unexpected bytes: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell those who wait, and the client."""
        self._protocol_before.connection_lost(None)
        self.close(RedisConnectionError("the server closed the connection"))

    def close(self, error: Exception) -> None:
        """End the connection; those who wait get the error."""
        if self._timer is not None:
            self._timer.cancel()
        asked, self._asked = self._asked, deque()
        for _, _, future in asked:
            if not future.done():
                future.set_exception(error)
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def _check(self) -> None:
        """Close the connection where the oldest question has waited for too long."""
        self._timer = None
        if not self._asked:
            return
        left_s = self._asked[0][1] + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check)
        else:
            self.close(RedisTimeoutError("the server did not answer in time"))
