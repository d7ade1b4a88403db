"""Record batches as Kafka keeps them (format 2), framed for all of their records at once.

aiokafka appends one record after the other, and sums up every byte by tables. Here numpy says how
long each record is, all pieces are joined in one call, and the processor has an instruction for the
sum. The format: https://kafka.apache.org/documentation/#recordbatch
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from struct import Struct

import numpy as np
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.util import encode_varint
from google_crc32c import extend, value

from stream_infer.core.arrays import FEW, Ints
from stream_infer.stream.processing import Headers, OutgoingRecord, OutgoingRecords

_FRONT = Struct(">qiibI")  # first offset, length, leader epoch, format, sum of what follows
_REST = Struct(">hiqqqhii")  # attributes, last offset, 2 times, producer, epoch, sequence, count
HEADER_BYTES = _FRONT.size + _REST.size
_FORMAT, _TRANSACTIONAL, _NO_EPOCH = 2, 0x10, -1
_AFTER_LENGTH = 12
"""How many bytes of a batch its length does not count."""
_CODECS: dict[str | None, tuple[int, Callable[[bytes], bytes]]] = {
    None: (0, bytes),
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
_NOTHING = b"\x01"
"""The length of what is null: -1."""
_NO_HEADERS = b"\0"
_NO_TIME = b"\0\0"
"""A record's attributes, of which there are none, and its time after the first one's."""
_TABLE = 16_384

Lot = Sequence[OutgoingRecord] | OutgoingRecords


class RecordBatch:
    """A batch to be sent; aiokafka takes it for what its `create_batch` makes.

    `records` are those of `frames`; `now_ms` is the time of all.
    """

    def __init__(
        self,
        records: bytes,
        count: int,
        now_ms: int,
        *,
        compression: str | None,
        transactional: bool,
    ) -> None:
        self._records = records
        self._count = count
        self._now_ms = now_ms
        self._compression = compression
        self._transactional = transactional
        self._producer = (-1, -1, 0)
        self._built: bytes | None = None

    def close(self) -> None:
        """Nothing: it takes no further records."""

    def closed(self) -> bool:
        """Whether no record can be added."""
        return True

    def record_count(self) -> int:
        """Return the number of records."""
        return self._count

    def _set_producer_state(self, producer_id: int, epoch: int, sequence: int) -> None:
        self._producer = producer_id, epoch, sequence

    def _build(self) -> bytes:
        if self._built is None:
            codec, compress = _CODECS[self._compression]
            plain, self._records = self._records, b""
            records = compress(plain)
            if len(records) >= len(plain):  # As it is, it is surely not too large.
                codec, records = 0, plain
            attributes = codec | (_TRANSACTIONAL if self._transactional else 0)
            times = self._now_ms, self._now_ms
            rest = _REST.pack(attributes, self._count - 1, *times, *self._producer, self._count)
            length = HEADER_BYTES + len(records) - _AFTER_LENGTH
            front = _FRONT.pack(0, length, _NO_EPOCH, _FORMAT, extend(value(rest), records))
            self._built = b"".join((front, rest, records))
        return self._built


def frames(records: Lot, bytes_max: int) -> Iterator[tuple[bytes, int]]:
    """Yield the bytes within a batch of as many records as fit into `bytes_max`, and their number.

    In order and uncompressed; at least one record is in each.
    """
    if len(records) <= FEW:
        few = records.objects() if isinstance(records, OutgoingRecords) else records
        yield from _few(few, bytes_max)
    elif isinstance(records, OutgoingRecords):
        yield from _many(records.keys, records.values, [], bytes_max)
    else:
        tails: list[bytes] = []
        if any(record.headers for record in records):
            tails = [_tail(record.headers) for record in records]
        keys, values = [r.key for r in records], [r.value for r in records]
        yield from _many(keys, values, tails, bytes_max)


def _few(records: Sequence[OutgoingRecord], bytes_max: int) -> Iterator[tuple[bytes, int]]:
    found: list[bytes] = []
    size = 0
    for record in records:
        frame = _frame(len(found), record)
        if found and size + len(frame) > bytes_max:
            yield b"".join(found), len(found)
            found, size, frame = [], 0, _frame(0, record)
        found.append(frame)
        size += len(frame)
    if found:
        yield b"".join(found), len(found)


def _frame(offset: int, record: OutgoingRecord) -> bytes:
    tail = _tail(record.headers) if record.headers else _NO_HEADERS
    body = b"".join((_NO_TIME, varint(offset), _field(record.key), _field(record.value), tail))
    return varint(len(body)) + body


def _many(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    tails: Sequence[bytes],
    bytes_max: int,
) -> Iterator[tuple[bytes, int]]:
    """Yield `frames` of columns; without `tails`, no record has headers."""
    key_lengths, keys, fixed = _fields(keys)
    value_lengths, values, values_bytes = _fields(values)
    fixed += values_bytes
    fixed += np.fromiter(map(len, tails), np.int64, len(keys)) if tails else len(_NO_HEADERS)
    fixed += len(_NO_TIME)
    rest = [key_lengths, keys, value_lengths, values, *([tails] if tails else [])]
    # No record takes less than what is known of its bytes: a batch ends before so many do.
    most = bytes_max // int(fixed.min()) + 1
    start = 0
    while start < len(keys):
        known = fixed[start : start + most]
        bodies = known + _varint_bytes(np.arange(len(known)))
        ends = (bodies + _varint_bytes(bodies)).cumsum()
        count = max(int(ends.searchsorted(bytes_max, "right")), 1)
        # Without headers, a record's last byte is put together with the next one's first.
        lengths = _varints(bodies[:count], before=b"" if tails else _NO_HEADERS)
        columns = [column[start : start + count] for column in rest]
        pieces = list(chain.from_iterable(zip(lengths, _offsets(count), *columns, strict=True)))
        if not tails:
            pieces[0] = pieces[0].removeprefix(_NO_HEADERS)
            pieces.append(_NO_HEADERS)
        yield b"".join(pieces), count
        start += count


def _fields(
    texts: Sequence[bytes | None],
) -> tuple[Sequence[bytes], Sequence[bytes], Ints]:
    """Return lengths as they are written, what follows them, and how many bytes both are."""
    try:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))  # type: ignore[arg-type]
    except TypeError:  # from a null
        written = [_NOTHING if text is None else varint(len(text)) for text in texts]
        present = [text or b"" for text in texts]
        both = np.array([list(map(len, written)), list(map(len, present))], np.int64)
        return written, present, both.sum(axis=0)
    written = _varints(lengths)
    return written, texts, lengths + _varint_bytes(lengths)  # type: ignore[return-value]


def _tail(headers: Headers) -> bytes:
    fields = [_field(part) for name, text in headers for part in (name.encode(), text)]
    return varint(len(headers)) + b"".join(fields)


def _field(text: bytes | None) -> bytes:
    return _NOTHING if text is None else varint(len(text)) + text


def varint(number: int) -> bytes:
    """Return a number of 0 or more as Kafka writes integers of varying length.

    >>> [varint(number).hex() for number in (0, 63, 64, 8192)]
    ['00', '7e', '8001', '808001']
    """
    if number < _TABLE:
        return _table(b"")[number]
    return _varint(number)


def _varint(number: int) -> bytes:
    found = bytearray()
    encode_varint(number, found.append)
    return bytes(found)


def _varints(numbers: Ints, before: bytes = b"") -> list[bytes]:
    """Return `varint` of each, after the same bytes."""
    if numbers.max(initial=0) < _TABLE:
        return list(map(_table(before).__getitem__, numbers.tolist()))
    return [before + varint(number) for number in numbers.tolist()]


def _offsets(count: int) -> list[bytes]:
    """Return what says where in the batch each of its records is, and that it has no time."""
    if count <= _TABLE:
        return _table(_NO_TIME)[:count]
    return [_NO_TIME + varint(offset) for offset in range(count)]


@cache
def _table(before: bytes) -> list[bytes]:
    return [before + _varint(number) for number in range(_TABLE)]


def _varint_bytes(numbers: Ints) -> Ints:
    """Return how many bytes `varint` gives for each."""
    counts = np.ones(len(numbers), np.int64)
    for bits in (6, 13, 20, 27):
        counts += numbers >> bits > 0
    return counts
