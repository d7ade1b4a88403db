"""The requests of every micro-batch, Fetch and Produce, packed and unpacked by `struct`.

aiokafka encodes and decodes by schemas, a call for each field: for an event alone that takes longer
than to predict it. What is said here are the same bytes, of the newest versions that aiokafka
speaks; with a broker that knows only older ones, aiokafka's own classes are used as before. The
formats are those of https://kafka.apache.org/protocol.
"""

from io import BytesIO
from itertools import starmap
from struct import Struct
from typing import Any, NamedTuple, Self

from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7

_INT16 = Struct(">h")
_INT32 = Struct(">i")
_HEADER = Struct(">hhih")  # API key, version, correlation id, length of the client id
_FETCH = Struct(">iiiibiii")  # … isolation level, session id, session epoch, number of topics
_FETCH_PARTITION = Struct(">iiqqi")  # partition, leader epoch, offset, log start, bytes at most
_FETCHED = Struct(">ihii")  # throttle time, error, session id, number of topics
_FETCHED_PARTITION = Struct(">ihqqqi")  # …, high watermark, last stable, log start, aborted ones
_ABORTED = Struct(">qq")  # producer id, first offset
_FETCHED_RECORDS = Struct(">ii")  # preferred replica, length of the records
_PRODUCE = Struct(">hii")  # acknowledgements, timeout, number of topics
_PRODUCE_PARTITION = Struct(">ii")  # partition, length of the records
_PRODUCED_PARTITION = Struct(">ihqqq")  # partition, error, offset, timestamp, log start


class Encoded(NamedTuple):
    """A request's header, as bytes."""

    data: bytes

    def encode(self) -> bytes:
        """Return it."""
        return self.data


class ResponseHeader(NamedTuple):
    """What comes before each response."""

    correlation_id: int


class _Packed:
    """What both requests have in common: headers of the kind that has no tagged fields."""

    API_KEY: int
    API_VERSION: int

    def build_request_header(self, correlation_id: int, client_id: str) -> Encoded:
        name = client_id.encode()
        return Encoded(
            _HEADER.pack(self.API_KEY, self.API_VERSION, correlation_id, len(name)) + name
        )

    def parse_response_header(self, read_buffer: BytesIO) -> ResponseHeader:
        return ResponseHeader(*_INT32.unpack(read_buffer.read(4)))


class FetchResponse(FetchResponse_v11):  # type: ignore[misc]
    """Partitions' records, as aiokafka's own class has them."""

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> Self:
        """Read one; raises struct.error or ValueError where it ends too soon."""
        buffer, at = _unread(data)
        throttle_ms, error, session, count = _FETCHED.unpack_from(buffer, at)
        at += _FETCHED.size
        topics = []
        for _ in range(count):
            name, at = _text(buffer, at)
            (parts,) = _INT32.unpack_from(buffer, at)
            at += 4
            partitions: list[tuple[Any, ...]] = []
            for _ in range(parts):
                *numbers, aborts = _FETCHED_PARTITION.unpack_from(buffer, at)
                at += _FETCHED_PARTITION.size
                starts = range(at, at + aborts * _ABORTED.size, _ABORTED.size)
                aborted = None if aborts < 0 else [_ABORTED.unpack_from(buffer, n) for n in starts]
                at += len(starts) * _ABORTED.size
                replica, size = _FETCHED_RECORDS.unpack_from(buffer, at)
                at += _FETCHED_RECORDS.size
                records = None
                if size >= 0:
                    records = bytes(buffer[at : at + size])
                    at += size
                    if len(records) < size:
                        raise ValueError(f"records of {size} bytes end after {len(records)}")
                partitions.append((*numbers, aborted, replica, records))
            topics.append((name, partitions))
        return cls(throttle_ms, error, session, topics)


class FetchPacked(_Packed, FetchRequest_v11):  # type: ignore[misc]
    """Asks for the records of partitions from their offsets on; opens no fetch session."""

    RESPONSE_TYPE = FetchResponse

    def encode(self) -> bytes:
        """Return the request's bytes after its header."""
        topics = self.topics
        parts = [
            _FETCH.pack(
                self.replica_id,
                self.max_wait_time,
                self.min_bytes,
                self.max_bytes,
                self.isolation_level,
                self.session_id,
                self.session_epoch,
                len(topics),
            )
        ]
        for topic, partitions in topics:
            parts += _packed_text(topic), _INT32.pack(len(partitions))
            parts += starmap(_FETCH_PARTITION.pack, partitions)
        parts += _INT32.pack(0), _packed_text(self.rack_id)
        return b"".join(parts)


class ProduceResponse(ProduceResponse_v7):  # type: ignore[misc]
    """Which records were accepted, as aiokafka's own class has them."""

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> Self:
        """Read one; raises struct.error where it ends too soon."""
        buffer, at = _unread(data)
        (count,) = _INT32.unpack_from(buffer, at)
        at += 4
        topics = []
        for _ in range(count):
            name, at = _text(buffer, at)
            (parts,) = _INT32.unpack_from(buffer, at)
            at += 4
            end = at + parts * _PRODUCED_PARTITION.size
            topics.append((name, list(_PRODUCED_PARTITION.iter_unpack(buffer[at:end]))))
            at = end
        return cls(topics, *_INT32.unpack_from(buffer, at))


class ProducePacked(_Packed, ProduceRequest_v7):  # type: ignore[misc]
    """Record batches for partitions."""

    RESPONSE_TYPE = ProduceResponse

    def encode(self) -> bytes:
        """Return the request's bytes after its header."""
        topics = self.topics
        name = self.transactional_id
        parts = [_INT16.pack(-1) if name is None else _packed_text(name)]
        parts.append(_PRODUCE.pack(self.required_acks, self.timeout, len(topics)))
        for topic, partitions in topics:
            parts += _packed_text(topic), _INT32.pack(len(partitions))
            for partition, records in partitions:
                parts += _PRODUCE_PARTITION.pack(partition, len(records)), records
        return b"".join(parts)


def pack_requests() -> None:
    """Let aiokafka's clients of this process speak by these classes wherever a broker allows."""
    for request, packed in ((FetchRequest, FetchPacked), (ProduceRequest, ProducePacked)):
        others = [kind for kind in request._CLASSES if kind.API_VERSION != packed.API_VERSION]
        request._CLASSES = (*others, packed)


def _unread(data: BytesIO | bytes) -> tuple[memoryview, int]:
    if isinstance(data, bytes):
        return memoryview(data), 0
    # Its whole value is no copy, and a buffer of it would be one.
    return memoryview(data.getvalue()), data.tell()


def _text(buffer: memoryview, at: int) -> tuple[str, int]:
    (size,) = _INT16.unpack_from(buffer, at)
    end = at + 2 + size
    return str(buffer[at + 2 : end], "utf-8"), end


def _packed_text(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data
