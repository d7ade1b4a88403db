"""A small TCP proxy: slow, resetting or silent, as told."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK_BYTES = 1 << 16


class Proxy:
    """Forwards loopback connections to a port, from a thread of its own.

    `delay_s` holds back each piece of what the server answers; while `silent`, nothing passes;
    `reset` breaks all connections at once.
    """

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0
        self.port = 0
        self.connections = 0
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening = threading.Event()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @classmethod
    @contextmanager
    def started(cls, target_port: int) -> Iterator["Proxy"]:
        """A proxy that listens while the block runs."""
        proxy = cls(target_port)
        proxy._thread.start()
        assert proxy._listening.wait(10)
        try:
            yield proxy
        finally:
            proxy._loop.call_soon_threadsafe(proxy._stopping.set)
            proxy._thread.join(10)

    def turn_to(self, target_port: int) -> None:
        """Forward new connections to another port."""
        self._target_port = target_port

    def reset(self) -> None:
        """Break all connections, without a farewell."""

        def break_all() -> None:
            for writer in self._writers:
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

        self._loop.call_soon_threadsafe(break_all)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let nothing pass while the block runs; connections stay open."""
        self._loop.call_soon_threadsafe(self._passing.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._passing.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopping.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, to_server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        ours = {writer, to_server}
        self._writers |= ours
        ways = [self._forward(reader, to_server, False), self._forward(there, writer, True)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in ours:
                one.transport.abort()
            self._writers -= ours

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delayed: bool
    ) -> None:
        while piece := await reader.read(CHUNK_BYTES):
            await self._passing.wait()
            if delayed and self.delay_s:
                await asyncio.sleep(self.delay_s)
            writer.write(piece)
            await writer.drain()
