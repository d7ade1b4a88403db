"""No record is passed over: whatever a rebalance overtakes, what nobody got is read again."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from stream_infer.stream.consumer_thread import Drawn
from stream_infer.stream.pickup import Pickup
from stream_infer.stream.processing import TP
from stream_infer.stream.transport import MicroBatchConsumer

A, B = TP("t", 0), TP("t", 1)


class Thread:
    """A log of consecutive records, and a consumer that goes through it."""

    def __init__(self) -> None:
        self.drawn_to = {A: 0, B: 0}
        self.seeks: list[dict[TP, int]] = []

    def draw(self, tp: TP, count: int) -> dict[TP, Drawn]:
        start = self.drawn_to[tp]
        self.drawn_to[tp] = start + count
        return {tp: Drawn([_record(start + n) for n in range(count)], start, start + count)}

    async def seek(self, positions: Mapping[TP, int]) -> None:
        self.seeks.append(dict(positions))
        self.drawn_to.update(positions)


def _record(offset: int) -> Any:
    return SimpleNamespace(offset=offset, key=None, value=b"v")


def consumer(**positions: int) -> tuple[Any, Thread, Pickup]:
    pickup = Pickup(
        batch_records_max=1_000,
        batch_bytes_max=1_000,
        waiting_records_max=1_000,
        waiting_bytes_max=1_000,
    )
    for name, position in positions.items():
        pickup.open({"a": A, "b": B}[name], position)
    made = object.__new__(MicroBatchConsumer)
    made.app = SimpleNamespace(pickup=pickup, deliver=pickup.put)
    made._thread = thread = Thread()
    return made, thread, pickup


async def test_records_that_join_what_is_there_are_delivered() -> None:
    made, thread, pickup = consumer(a=0, b=0)
    assert made._deliver(thread.draw(A, 3)) == 3
    assert made._deliver(thread.draw(A, 2)) == 2
    await made._fetch_again()
    assert [record.offset for record in (await pickup.take())[A]] == [0, 1, 2, 3, 4]
    assert thread.seeks == []


async def test_records_that_an_overtaken_call_drew_are_read_again() -> None:
    made, thread, pickup = consumer(a=0, b=0)
    thread.draw(A, 3)  # nobody hears of these
    assert made._deliver(thread.draw(A, 2)) == 0
    await made._fetch_again()
    assert thread.seeks == [{A: 0}]
    made._deliver(thread.draw(A, 5))
    assert [record.offset for record in (await pickup.take())[A]] == [0, 1, 2, 3, 4]


async def test_they_are_read_again_though_nothing_more_comes() -> None:
    made, thread, _ = consumer(a=0, b=0)
    thread.draw(B, 3)
    made._deliver({})
    await made._fetch_again()
    assert thread.seeks == [{B: 0}]


async def test_records_from_before_a_seek_are_taken_only_from_the_position_on() -> None:
    made, thread, pickup = consumer(b=4)
    early = thread.draw(B, 6)
    await thread.seek({B: 4})
    assert made._deliver(early) == 6
    assert made._deliver(thread.draw(B, 4)) == 4
    assert [record.offset for record in (await pickup.take())[B]] == [4, 5, 6, 7]


async def test_offsets_without_records_are_no_gap() -> None:
    """Such as the marks of transactions, or records that a compacted topic has dropped."""
    made, thread, pickup = consumer(a=0)
    made._deliver({A: Drawn([_record(0), _record(7)], 0, 9)})
    thread.drawn_to[A] = 9
    await made._fetch_again()
    assert pickup.positions == {A: 9}
    assert made._deliver(thread.draw(A, 1)) == 1
    assert thread.seeks == []


async def test_a_closed_partition_is_left_to_whoever_opens_it() -> None:
    made, thread, pickup = consumer(a=0)
    assert made._deliver(thread.draw(B, 3)) == 0
    await made._fetch_again()
    assert thread.seeks == []
    pickup.open(B, 1)
    await made._fetch_again()
    assert thread.seeks == [{B: 1}]
