"""A connection to Redis that makes no task and no timer for what need not wait.

redis-py wraps each write in a task with a timeout, each reply in a timer, and looks by way of the
event loop whether a connection that it takes from the pool is still good. Here a write that the
kernel takes at once is just that, replies that have arrived together share one timer, and the state
of an idle connection is looked up. Commands are written by hiredis, which reads the replies anyway.
"""

import asyncio
from typing import Any, cast

import hiredis
from redis._parsers.hiredis import _AsyncHiredisParser
from redis.asyncio.connection import Connection
from redis.exceptions import TimeoutError as RedisTimeoutError


class _TimedParser(_AsyncHiredisParser):
    """Waits for the server up to a time whenever it lacks bytes, and only then."""

    wait_s: float | None = None

    async def read_from_socket(self) -> Any:
        async with asyncio.timeout(self.wait_s):
            return await super().read_from_socket()  # type: ignore[no-untyped-call]


class QuickConnection(Connection):
    """Redis over TCP; the server has `socket_timeout` to say something, or to take what is sent."""

    def __init__(self, *, socket_timeout: float | None = None, **options: Any) -> None:
        super().__init__(**options, socket_timeout=None, parser_class=_TimedParser)
        self._wait_s = socket_timeout
        cast(_TimedParser, self._parser).wait_s = socket_timeout

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command as it is sent; its name may be of several words."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        try:
            return [hiredis.pack_command((*name.split(), *args[1:]))]
        except TypeError:  # what redis-py takes besides, or refuses in its own words
            return super().pack_command(*args)

    async def can_read_destructive(self) -> bool:
        """Say whether the connection must be replaced: nothing is to be read from an idle one."""
        reader: Any = self._reader
        if reader is None or reader.exception() is not None:
            return True
        return bool(reader._buffer) or reader.at_eof()

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send; wait, for so long at most, where the kernel does not take all of it at once."""
        writer: Any = self._writer
        idle = writer is not None and not writer.transport.get_write_buffer_size()
        if isinstance(command, list) and idle and not writer.is_closing():
            writer.writelines(command)
            if not writer.transport.get_write_buffer_size():
                return
            command = []
        try:
            async with asyncio.timeout(self._wait_s):
                await super().send_packed_command(command, check_health)
        except TimeoutError as error:
            await self.disconnect(nowait=True)
            raise RedisTimeoutError("timeout writing to Redis") from error
