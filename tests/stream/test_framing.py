"""Record batches of our framing: the bytes that aiokafka makes of the same records."""

import random
from collections.abc import Sequence

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_infer.core.arrays import FEW
from stream_infer.stream.framing import HEADER_BYTES, RecordBatch, frames, varint
from stream_infer.stream.processing import OutgoingRecord, OutgoingRecords

NOW_MS = 1_700_000_000_123
PRODUCER = 7, 3, 11
NO_END = 1 << 40
texts = st.binary(max_size=70) | st.sampled_from([b"x" * n for n in (63, 64, 8_191, 8_192, 20_000)])
header = st.tuples(st.text(max_size=4), st.none() | st.binary(max_size=4))
headers = st.lists(header, max_size=3).map(tuple)
ordinary = st.builds(OutgoingRecord, st.just("t"), texts, texts)
any_record = st.builds(OutgoingRecord, st.just("t"), st.none() | texts, st.none() | texts, headers)


def appended(records: Sequence[OutgoingRecord], transactional: bool = False) -> bytes:
    """What aiokafka makes of records."""
    builder = DefaultRecordBatchBuilder(2, 0, int(transactional), -1, -1, 0, NO_END)
    for offset, record in enumerate(records):
        builder.append(offset, NOW_MS, record.key, record.value, list(record.headers))
    builder.set_producer_state(*PRODUCER)
    return bytes(builder.build())


def built(
    framed: bytes, count: int, compression: str | None = None, transactional: bool = False
) -> bytes:
    batch = RecordBatch(framed, count, NOW_MS, compression=compression, transactional=transactional)
    batch._set_producer_state(*PRODUCER)
    assert batch._build() is batch._build()  # The same when it is sent again.
    return batch._build()


@settings(deadline=None)
@given(
    st.lists(ordinary | any_record, min_size=1, max_size=FEW)
    | st.lists(ordinary, min_size=FEW + 1, max_size=4 * FEW)
    | st.lists(any_record, min_size=FEW + 1, max_size=4 * FEW),
    st.booleans(),
)
@example([OutgoingRecord("t", b"%d" % n, b"v" * (n % 90)) for n in range(9_000)], False)
def test_batches_are_those_of_aiokafka_to_the_bit(records, transactional):
    ((framed, count),) = frames(records, NO_END)
    wanted = appended(records, transactional)
    assert count == len(records)
    assert built(framed, count, transactional=transactional) == wanted
    if all(r.key is not None and r.value is not None and not r.headers for r in records):
        columns = OutgoingRecords("t", [r.key for r in records], [r.value for r in records])
        assert list(frames(columns, NO_END)) == [(framed, count)]


@settings(deadline=None)
@given(st.lists(ordinary | any_record, min_size=1, max_size=3 * FEW), st.integers(1, 30_000))
def test_each_batch_has_as_many_records_as_fit(records, bytes_max):
    start = 0
    for framed, count in frames(records, bytes_max):
        assert count
        assert framed == appended(records[start : start + count])[HEADER_BYTES:]
        assert len(framed) <= bytes_max or count == 1
        further = records[start : start + count + 1]
        assert len(further) == count or len(appended(further)) - HEADER_BYTES > bytes_max
        start += count
    assert start == len(records)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_what_is_compressed_is_read_again(compression):
    records = [OutgoingRecord("t", b"key %d" % n, b"value" * n, (("h", b"x"),)) for n in range(99)]
    (batch,) = read(built(*next(frames(records, NO_END)), compression))
    assert batch.validate_crc()
    found = [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch]
    assert found == [(n, NOW_MS, r.key, r.value, r.headers) for n, r in enumerate(records)]


def test_what_grows_by_compression_is_sent_as_it_is():
    records = [OutgoingRecord("t", b"key", random.Random(1).randbytes(5_000))]
    ((framed, count),) = frames(records, NO_END)
    assert built(framed, count, "gzip") == appended(records)


def read(data: bytes) -> list:
    records, found = MemoryRecords(data), []
    while records.has_next():
        found.append(records.next_batch())
    return found


@given(st.integers(0, 1 << 31))
def test_integers_are_written_as_protobuf_writes_them(number):
    data = varint(number)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data)) == number << 1
    assert [byte >> 7 for byte in data] == [1] * (len(data) - 1) + [0]
