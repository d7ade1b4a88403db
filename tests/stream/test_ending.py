"""A process that lacks memory ends at once, and says so in one line."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
import uvloop
from aiokafka.errors import KafkaError

from stream_infer.stream import ending, worker
from stream_infer.stream.ending import EXIT_BROKEN, want_of_memory

EXHAUSTED = """
import logging, resource
from stream_infer.stream.ending import end_without_memory

logging.basicConfig(format="%(levelname)s %(message)s")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), used + (8 << 20)))
hoard = None
for size in (1 << 20, 1 << 14, 1 << 9, 1):
    try:
        while True:
            hoard = hoard, bytes(size)
    except MemoryError as error:
        lack = error
end_without_memory(lack)
"""

NO_STACK = """
import logging, resource, threading
from stream_infer.stream.ending import end_process

logging.basicConfig(format="%(levelname)s %(message)s")
threading.stack_size(64 << 20)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), used + (8 << 20)))
try:
    threading.Thread(target=print).start()
except RuntimeError as error:
    end_process(error)
"""


def lacking(*, cause: bool) -> Exception:
    try:
        try:
            raise MemoryError("no room")
        except MemoryError as error:
            if cause:
                raise KafkaError("in a task") from error
            raise ValueError("while it was handled")  # noqa: B904
    except (KafkaError, ValueError) as error:
        return error


@pytest.mark.parametrize("cause", [True, False])
def test_want_of_memory_is_found_behind_what_it_led_to(cause: bool) -> None:
    assert str(want_of_memory(lacking(cause=cause))) == "no room"


def test_other_errors_do_not_come_from_want_of_memory() -> None:
    round_about = ValueError("a")
    round_about.__cause__ = KafkaError("b")
    round_about.__cause__.__cause__ = round_about
    assert want_of_memory(round_about) is None
    assert want_of_memory(None) is None


@pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc are Linux's")
@pytest.mark.parametrize("program", [EXHAUSTED, NO_STACK])
def test_a_process_without_any_memory_left_says_so_in_one_line(program: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == EXIT_BROKEN, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("CRITICAL out of memory")
    assert "STREAM_INFER_STATE_ROWS_MAX" in line


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_transport_without_memory_for_what_it_reads_ends_the_worker(
    new_loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Exception] = []
    monkeypatch.setattr(ending, "end_process", ended.append)

    class Reader(asyncio.Protocol):
        def __init__(self) -> None:
            self.lost = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes) -> None:
            raise MemoryError

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(None)

    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        writer.close()
        await writer.wait_closed()

    async def read() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(worker._heard)
        server = await asyncio.start_server(write, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            transport, reader = await loop.create_connection(Reader, *address)
            await asyncio.wait_for(reader.lost, 10)
            transport.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(read())
    assert [type(error) for error in ended] == [MemoryError]
