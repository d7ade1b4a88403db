"""What is taken of a fetch by whole batches is what aiokafka would give record by record."""

import gc
import weakref
from types import SimpleNamespace

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.stream.record_batches import by_batch, taken

TP = TopicPartition("t", 0)
PRODUCER = 7
NO_PRODUCER = -1
CONTROL, TRANSACTIONAL = 0x20, 0x10
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"


class State:
    """Where a partition is read."""

    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def consumed_to(self, position: int) -> None:
        self.position = position


def built(offset: int, count: int, *, producer: int = NO_PRODUCER, compression: int = 0) -> bytes:
    transactional = int(producer != NO_PRODUCER)
    builder = DefaultRecordBatchBuilder(2, compression, transactional, producer, 0, 0, 100_000)
    for number in range(count):
        value = str(offset + number).encode()
        builder.append(number, timestamp=1, key=b"k", value=value, headers=[("h", b"1")])
    data = bytearray(builder.build())
    data[:8] = offset.to_bytes(8, "big")
    return bytes(data)


def marker(offset: int, kind: bytes) -> bytes:
    """Return the batch that ends a transaction; its checksum is that of another batch."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, PRODUCER, 0, 0, 1_000)
    builder.append(0, timestamp=1, key=kind, value=b"", headers=[])
    data = bytearray(builder.build())
    data[:8] = offset.to_bytes(8, "big")
    data[22] |= CONTROL
    return bytes(data)


def result(data: bytes, position: int = 0, aborted: list[tuple[int, int]] | None = None, **how):
    state = State(position)
    assignment = SimpleNamespace(active=True, state_value=lambda tp: state)
    how = {"check_crcs": False, "isolation_level": READ_COMMITTED, **how}
    records = PartitionRecords(TP, MemoryRecords(data), aborted, position, None, None, **how)
    fetched = FetchResult(TP, assignment=assignment, partition_records=records, backoff=0)
    return fetched, state


def values(records) -> list[bytes]:
    return [record.value for record in records]


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    gap=st.integers(0, 3),
    start=st.integers(0, 12),
    records_max=st.integers(1, 12),
    compression=st.sampled_from([0, 1]),
)
def test_batches_give_the_records_and_the_positions_that_records_one_by_one_give(
    sizes, gap, start, records_max, compression
):
    data, offset = b"", 0
    for size in sizes:
        data += built(offset, size, compression=compression)
        offset += size + gap  # of records that are no longer there
    theirs, their_state = result(data, start)
    one_by_one = values(theirs.getall())
    fetched, state = result(data, start)
    by_batch(fetched)
    found: list[bytes] = []
    while fetched.has_more():
        before = len(found)
        found += values(taken(fetched, records_max))
        # Whole batches: less than one more than was asked for.
        assert len(found) - before < records_max + max(sizes)
        assert not found or state.position > int(found[-1])
    assert found == one_by_one
    assert state.position == their_state.position


def test_aborted_transactions_and_their_markers_are_left_out():
    data = (
        built(0, 2, producer=PRODUCER)
        + built(2, 1)
        + marker(3, ABORT)
        + built(4, 3, producer=PRODUCER)
        + marker(7, COMMIT)
    )
    fetched, state = result(data, aborted=[(PRODUCER, 0)])
    by_batch(fetched)
    assert values(taken(fetched, 100)) == [b"2", b"4", b"5", b"6"]
    assert state.position == 8
    assert not fetched.has_more()


def test_what_was_left_is_taken_later_and_headers_stay():
    fetched, state = result(built(0, 3) + built(3, 2))
    by_batch(fetched)
    first = taken(fetched, 1)
    assert (values(first), state.position) == ([b"0", b"1", b"2"], 3)
    assert list(first[0].headers) == [("h", b"1")]
    assert values(taken(fetched, 1)) == [b"3", b"4"]
    assert taken(fetched, 1) == []


def test_a_corrupt_batch_is_said_to_be_so():
    data = bytearray(built(0, 2))
    data[-1] ^= 1
    fetched, state = result(bytes(data), check_crcs=True)
    by_batch(fetched)
    with pytest.raises(CorruptRecordException, match="CRC"):
        taken(fetched, 10)
    assert state.position == 0


def test_a_corrupt_batch_takes_nothing_away_that_came_before_it():
    data = bytearray(built(0, 2) + built(2, 3))
    data[-1] ^= 1
    fetched, state = result(bytes(data), check_crcs=True)
    by_batch(fetched)
    assert values(taken(fetched, 10)) == [b"0", b"1"]
    assert state.position == 2
    # Nothing is left of it: it is fetched again, and fails if it still is so.
    assert taken(fetched, 10) == []
    again, state = result(bytes(data[-len(built(2, 3)) :]), 2, check_crcs=True)
    by_batch(again)
    with pytest.raises(CorruptRecordException, match="CRC"):
        taken(again, 10)


def test_nothing_is_taken_of_a_partition_that_was_moved_elsewhere_meanwhile():
    fetched, state = result(built(0, 2))
    by_batch(fetched)
    state.position = 1
    assert taken(fetched, 10) == []
    assert not fetched.has_more()


def test_what_was_taken_is_not_kept_by_a_cycle():
    fetched, _ = result(built(0, 2))
    by_batch(fetched)
    partition = weakref.ref(fetched._partition_records)
    gc.disable()
    try:
        assert len(taken(fetched, 10)) == 2
        assert partition() is None
    finally:
        gc.enable()
