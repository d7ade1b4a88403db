"""Request heads that the parser has read before: a caller's requests begin alike.

Parsing a request costs more than answering that it is refused. On one connection, and among the
connections of one kind of caller, the bytes before the body are the same ones again and again. What
the parser and the rules said of them once holds for equal bytes that come where a request
begins, so nothing is parsed here: bytes are looked up.
"""

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

HEAD_END = b"\r\n\r\n"
HEADS_MAX = 1_024
"""Heads known at a time; one more begins anew, so callers whose heads all differ do no harm."""
HEAD_BYTES_MAX = 2_048


class Known(NamedTuple, Generic[T]):
    """What a head asks for, and how many bytes of body it announces."""

    target: T
    body_bytes: int


class Heads(Generic[T]):
    """Heads of whole requests that kept their connections open, and what they asked for."""

    def __init__(self) -> None:
        self._known: dict[bytes, Known[T]] = {}

    def find(self, data: bytes) -> tuple[T, bytes] | None:
        """Return target and body where `data` is one whole request whose head is known.

        >>> heads = Heads[str]()
        >>> heads.learn(b"POST / HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\n{}", "target", 2)
        >>> heads.find(b"POST / HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\n[]")
        ('target', b'[]')
        >>> heads.find(b"POST / HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\n[")
        """
        size = data.find(HEAD_END) + len(HEAD_END)
        known = self._known.get(data[:size])
        if known is None or len(data) - size != known.body_bytes:
            return None
        return known.target, data[size:]

    def learn(self, data: bytes, target: T, body_bytes: int) -> None:
        """Remember the head of one request, where `data` is that request and nothing else."""
        size = len(data) - body_bytes
        if size > HEAD_BYTES_MAX or data.find(HEAD_END) != size - len(HEAD_END):
            return
        if len(self._known) >= HEADS_MAX:
            self._known.clear()
        self._known[data[:size]] = Known(target, body_bytes)
