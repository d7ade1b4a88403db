"""What Redis tells of the keys that change (its client-side caching), for a cache to rely on.

A connection of its own is told of each change below some prefixes, whoever makes it, and asks now
and then for a sign of life: an answer says that all changes before the question have arrived.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import hiredis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError, ResponseError

log = logging.getLogger("stream_infer.store")

RETRY_S = 1.0
RETRY_MAX_S = 30.0
_pack: Callable[[Any], bytes] = hiredis.pack_command
_PING = _pack(("PING",))
_SUBSCRIBE = _pack(("SUBSCRIBE", "__redis__:invalidate"))


class Cache(Protocol):
    """Who wants to know of changes (see `BatchFeatureReader`)."""

    @property
    def key_prefixes(self) -> Sequence[bytes]: ...
    def follow(self) -> None: ...
    def told(self, up_to: float) -> None: ...
    def changed(self, redis_keys: Iterable[bytes] | None) -> None: ...
    def unfollow(self) -> None: ...


class KeyFeed:
    """Tells a cache of changes while the server of `redis` can be heard, until `close`.

    A sign of life is asked for every `interval_s`; a server that gives none within `timeout_s` is
    connected to anew. One that does not tell of changes (it is older than Redis 6, a cluster, or
    the user may not ask) is left alone: the cache then goes by the age of what it has. `clock` must
    be the cache's.
    """

    def __init__(
        self,
        redis: Redis,
        cache: Cache,
        *,
        interval_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._cache = cache
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen, once; call it within a running loop."""
        if self._task is None and not isinstance(self._redis, RedisCluster):
            self._task = asyncio.create_task(self._run(), name="key-feed")

    async def close(self) -> None:
        """Listen no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        delay_s = RETRY_S
        while True:
            try:
                await self._listen()
                delay_s = RETRY_S
            except ResponseError as error:
                log.info("batch features are read again by their age alone: Redis says %s", error)
                return
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("not told of changed keys: %r", error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MAX_S)

    async def _listen(self) -> None:
        """Listen until the connection ends; raises what keeps it from beginning."""
        # Not one of the pool's: nobody else may ever get it.
        connection: Any = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()
                await connection.send_command("CLIENT", "ID")
                number = await connection.read_response()
                prefixes = [part for each in self._cache.key_prefixes for part in ("PREFIX", each)]
                await connection.send_command(
                    "CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST", *prefixes
                )
                await connection.read_response()
            transport = connection._writer.transport
            heard = _Heard(transport, self._cache, self._clock, self._interval_s)
            try:
                await heard.until_silent(self._timeout_s)
            finally:
                heard.transport.abort()
                self._cache.unfollow()
        finally:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)


class _Heard(asyncio.Protocol):
    """What arrives on a connection that is told of changes."""

    def __init__(
        self,
        transport: asyncio.Transport,
        cache: Cache,
        clock: Callable[[], float],
        interval_s: float,
    ) -> None:
        self.transport = transport
        self._cache = cache
        self._clock = clock
        self._interval_s = interval_s
        self._reader = hiredis.Reader()
        self._ended = asyncio.Event()
        self._asked_at: float | None = None
        self._answered_at: float | None = None
        self._protocol_before = transport.get_protocol()
        transport.set_protocol(self)
        transport.write(_SUBSCRIBE)

    async def until_silent(self, timeout_s: float) -> None:
        """Ask for signs of life until the connection ends or none comes in time."""
        while not self._ended.is_set():
            now = self._clock()
            if self._asked_at is None:
                self._ask(now)
            elif now - self._asked_at > timeout_s:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._ended.wait()

    def data_received(self, data: bytes) -> None:
        """Pass on what the server tells."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except (hiredis.ProtocolError, hiredis.ReplyError, IndexError, TypeError) as error:
            log.warning("unexpected bytes where Redis tells of changed keys: %r", error)
            self._ended.set()

    def _take(self, reply: Any) -> None:
        kind = reply[0]
        if kind == b"message":
            self._cache.changed(reply[2])
        elif kind == b"subscribe":
            self._cache.follow()
        elif kind == b"pong":
            now = self._clock()
            # Changes made in the server's same turn may follow the answer, but not the next one.
            if self._answered_at is not None:
                self._cache.told(self._answered_at)
            self._answered_at, self._asked_at = self._asked_at, None
            # A server that answers late is asked again at once: so much longer it takes to tell.
            if self._answered_at is not None and now - self._answered_at > self._interval_s:
                self._ask(now)

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self.transport.write(_PING)

    def connection_lost(self, error: Exception | None) -> None:
        """End, and let the client's connection know."""
        self._protocol_before.connection_lost(None)
        self._ended.set()
