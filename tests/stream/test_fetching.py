"""What a fetch brings is read as aiokafka reads it, or left to aiokafka."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from stream_infer.stream.fetching import Fetching
from stream_infer.stream.processing import TP

A = TP("t", 0)
CONTROL = 0x20
COMMIT = b"\0\0\0\1"
ATTRIBUTES_AT, CRC_AT = 21, 17


def batch(
    first: int,
    offsets: Sequence[int],
    *,
    last: int | None = None,
    codec: int = 0,
    key: bytes = b"k",
) -> bytes:
    """A record batch from `first` on that has records at these offsets, and ends after `last`."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 10_000)
    for offset in offsets:
        headers = [("h", b"x")] if offset % 2 else []
        builder.append(offset - first, timestamp=offset, key=key, value=b"v", headers=headers)
    built = bytearray(builder.build())
    built[:8] = first.to_bytes(8, "big")
    if last is not None:
        built[23:27] = (last - first).to_bytes(4, "big")
    return summed(built)


def summed(built: bytearray) -> bytes:
    built[CRC_AT:ATTRIBUTES_AT] = calc_crc32c(memoryview(built)[ATTRIBUTES_AT:]).to_bytes(4, "big")
    return bytes(built)


def control(offset: int) -> bytes:
    """The mark of a transaction's end, as a transaction's coordinator writes it."""
    built = bytearray(batch(offset, [offset], key=COMMIT))
    built[ATTRIBUTES_AT + 1] |= CONTROL
    return summed(built)


def drawn(data: bytes, position: int) -> Any:
    fetching = Fetching(SimpleNamespace(_check_crcs=True), taker=None)  # type: ignore[arg-type]
    return fetching._drawn(A, position, data)


def as_aiokafka(data: bytes, position: int) -> tuple[list[tuple[Any, ...]], int]:
    where = TopicPartition(*A)
    read = PartitionRecords(
        where, MemoryRecords(data), [], position, None, None, True, READ_COMMITTED
    )
    records = [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in read]
    return records, read.next_fetch_offset


@pytest.mark.parametrize(
    ("parts", "position"),
    [
        ([], 5),
        ([batch(5, [5])], 5),
        ([batch(5, [5, 6, 7]), batch(8, [8, 9])], 5),
        ([batch(5, [5, 6, 7]), batch(8, [8, 9])], 7),
        ([batch(5, [5, 6, 7], codec=1)], 6),
        ([batch(5, [6, 9], last=12), batch(20, [20])], 5),
        ([batch(5, [], last=9), batch(10, [10])], 5),
        ([batch(5, [5]), control(6), batch(7, [7])], 5),
        ([control(5)], 5),
        ([batch(5, [5]), batch(6, [6])[:-3]], 5),
    ],
    ids=[
        "nothing",
        "one",
        "two batches",
        "from within a batch",
        "compressed",
        "compacted",
        "compacted away",
        "a transaction's mark",
        "only a mark",
        "the last batch is not whole",
    ],
)
def test_plain_answers_are_read_as_aiokafka_reads_them(parts: list[bytes], position: int) -> None:
    data = b"".join(parts)
    found = drawn(data, position)
    records = [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in found.records]
    assert (found.tp, records, found.end) == (A, *as_aiokafka(data, position))


@pytest.mark.parametrize(
    "data",
    [
        batch(5, [5])[:-1] + b"?",
        batch(5, [5])[:-3],
    ],
    ids=["corrupt", "part of a record"],
)
def test_what_is_not_plain_is_left_to_aiokafka(data: bytes) -> None:
    assert drawn(data, 5) is None
