"""Pickup: everything that waits, in order, within its bounds, and nothing of closed partitions."""

import asyncio
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from stream_infer.stream.pickup import Pickup, size_bytes
from stream_infer.stream.processing import TP

A, B = TP("t", 0), TP("t", 1)


def records(first: int, count: int, size: int = 1):
    return [SimpleNamespace(offset=first + n, key=None, value=b"x" * size) for n in range(count)]


def pickup(**changes: int) -> Pickup:
    bounds = {
        "batch_records_max": 10,
        "batch_bytes_max": 100,
        "waiting_records_max": 20,
        "waiting_bytes_max": 1_000,
    }
    return Pickup(**{**bounds, **changes})


@given(
    fetches=st.lists(st.tuples(st.sampled_from([A, B]), st.lists(st.integers(0, 70), max_size=25))),
    records_max=st.integers(1, 12),
    bytes_max=st.integers(1, 120),
)
def test_batches_are_the_fetched_records_in_order_and_within_the_caps(
    fetches, records_max, bytes_max
):
    async def run():
        waiting = pickup(batch_records_max=records_max, batch_bytes_max=bytes_max)
        waiting.open(A, 0)
        waiting.open(B, 0)
        ends = {A: 0, B: 0}
        for tp, sizes in fetches:
            fetched = [
                SimpleNamespace(offset=ends[tp] + n, key=None, value=b"x" * size)
                for n, size in enumerate(sizes)
            ]
            ends[tp] += len(fetched)
            waiting.put(tp, fetched)
        assert waiting.records == sum(ends.values())
        taken = {A: [], B: []}
        while waiting.records:
            batch = await waiting.take()
            everything = [record for part in batch.values() for record in part]
            assert 1 <= len(everything) <= records_max
            assert size_bytes(everything) <= bytes_max or len(everything) == 1
            for tp, part in batch.items():
                taken[tp] += [record.offset for record in part]
        assert taken == {tp: list(range(end)) for tp, end in ends.items()}
        assert waiting.bytes == 0

    asyncio.run(run())


async def test_fetches_of_a_partition_join_what_waits():
    waiting = pickup()
    waiting.open(A, 0)
    waiting.put(A, records(0, 3))
    waiting.put(A, records(3, 3))
    assert [r.offset for r in (await waiting.take())[A]] == [0, 1, 2, 3, 4, 5]


async def test_taking_waits_for_a_record_and_for_nothing_else():
    waiting = pickup()
    waiting.open(A, 0)
    taking = asyncio.create_task(waiting.take())
    await asyncio.sleep(0)
    assert not taking.done()
    waiting.put(A, records(0, 1))
    assert len((await taking)[A]) == 1


async def test_records_below_the_position_and_of_closed_partitions_are_dropped():
    waiting = pickup()
    waiting.open(A, 5)
    waiting.put(A, records(0, 4))
    waiting.put(A, records(3, 4))
    waiting.put(A, records(3, 4))
    waiting.put(B, records(0, 4))
    assert {tp: [r.offset for r in part] for tp, part in (await waiting.take()).items()} == {
        A: [5, 6]
    }
    waiting.open(B, 0)
    waiting.put(A, records(7, 2))
    waiting.put(B, records(0, 2))
    waiting.close([A])
    waiting.put(A, records(9, 2))
    assert set(await waiting.take()) == {B}
    assert waiting.waiting == (0, 0)
    assert waiting.open_partitions == {B}


async def test_there_is_room_again_once_less_waits_than_the_bounds():
    waiting = pickup(waiting_records_max=5)
    waiting.open(A, 0)
    waiting.put(A, records(0, 12))
    assert not waiting.has_room
    room = asyncio.create_task(waiting.room())
    await asyncio.sleep(0)
    assert not room.done()
    await waiting.take()
    await room
    assert waiting.has_room
