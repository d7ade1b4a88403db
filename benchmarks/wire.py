"""As much of HTTP/1.1 as a client needs that must cost little: prepared requests, whole answers."""

import contextlib
import socket
from collections.abc import Iterable

import numpy as np

from benchmarks.generator import payments

HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


def predict_request(topology: str, body: bytes) -> bytes:
    """The bytes of one request for a score."""
    head = (
        f"POST /v1/topologies/{topology}/predict HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def predict_requests(topology: str, accounts: Iterable[int], at_us: int) -> list[bytes]:
    """A request for each account, whose payment happens at this moment."""
    numbers = np.fromiter(accounts, np.int64)
    times_us = np.full(len(numbers), at_us, np.int64)
    return [predict_request(topology, value) for _, value in payments(numbers, times_us, seed=3)]


def answer_of(data: bytes) -> tuple[int, int] | None:
    """Return status and size of the answer that `data` begins with; None while it is not whole.

    >>> answer_of(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
    (200, 40)
    """
    end = data.find(HEAD_END)
    if end < 0:
        return None
    at = data.find(_LENGTH, 0, end)
    if at < 0:
        at = data[:end].lower().find(_LENGTH)
    stop = data.find(b"\r", at)
    size = end + len(HEAD_END) + (int(data[at + len(_LENGTH) : stop]) if at >= 0 else 0)
    return (int(data[9:12]), size) if len(data) >= size else None


def connect(port: int) -> socket.socket:
    """A connection to the server on this machine, without waiting to fill packets."""
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def begin_to_connect(port: int) -> socket.socket:
    """The same, which may still be connecting when it is returned, and never blocks."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(BlockingIOError):
        made.connect(("127.0.0.1", port))
    return made


def ask(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Send one request and wait for its answer; return status and body."""
    connection.sendall(request)
    data = b""
    while (answer := answer_of(data)) is None:
        part = connection.recv(65_536)
        if not part:
            raise ConnectionError("the server closed the connection")
        data += part
    return answer[0], data[data.find(HEAD_END) + len(HEAD_END) : answer[1]]
