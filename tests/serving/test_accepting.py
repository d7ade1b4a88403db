"""All connections that wait are accepted in a few turns; a system that refuses is waited for."""

import asyncio
import socket
from typing import Any

import pytest

from stream_infer.serving import accepting
from stream_infer.serving.accepting import Acceptor


class Greeting(asyncio.Protocol):
    """Says one word and keeps the connection."""

    made = 0

    def connection_made(self, transport: Any) -> None:
        Greeting.made += 1
        transport.write(b"hello")


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    return listener


async def heard(caller: socket.socket) -> bytes:
    caller.setblocking(False)
    async with asyncio.timeout(20):
        return await asyncio.get_running_loop().sock_recv(caller, 5)


async def test_connections_that_wait_are_accepted_together() -> None:
    loop, listener = asyncio.get_running_loop(), listening()
    callers = [socket.create_connection(listener.getsockname()) for _ in range(20)]
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    Greeting.made = 0
    acceptor = Acceptor(loop, listener, Greeting)
    loop.call_soon(turn)
    async with asyncio.timeout(20):
        while Greeting.made < len(callers):  # noqa: ASYNC110 - counts the loop's own turns
            await asyncio.sleep(0)
    assert turns < len(callers)
    for caller in callers:
        assert await heard(caller) == b"hello"
        caller.close()
    address = listener.getsockname()
    acceptor.close()
    acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_accepting_goes_on_after_the_system_has_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_S", 0.01)

    class Refusing(socket.socket):
        refusals = 3

        def accept(self) -> Any:
            if self.refusals:
                self.refusals -= 1
                raise OSError(24, "Too many open files")
            return super().accept()

    listener = Refusing()
    listener.bind(("127.0.0.1", 0))
    listener.listen(10)
    acceptor = Acceptor(asyncio.get_running_loop(), listener, Greeting)
    with socket.create_connection(listener.getsockname()) as caller:
        assert await heard(caller) == b"hello"
    acceptor.close()
    assert listener.refusals == 0
    assert "cannot accept connections (Too many open files)" in caplog.text
