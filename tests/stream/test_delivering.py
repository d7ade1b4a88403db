"""How much may be on its way, and what is not sent once its partition is lost."""

import asyncio
from typing import Any

from stream_infer.stream.delivering import Room
from stream_infer.stream.processing import TP, Outcome, PartitionsFenced
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import eventually
from tests.stream.test_ownership import FakeGroup, FakeProducer, opened, own, records

A, B = TP("t", 0), TP("t", 1)


async def test_small_batches_are_bounded_by_their_number_and_large_ones_by_their_records():
    room = Room(batches_max=3, records_max=100)

    async def roomy() -> bool:
        try:
            async with asyncio.timeout(0):
                await room.wait()
        except TimeoutError:
            return False
        return True

    for _ in range(2):
        room.take(1)
        assert await roomy()
    room.take(1)
    assert not await roomy()
    room.give(1)
    assert await roomy()
    room.give(1)
    room.take(99)
    assert not await roomy()
    room.give(99)
    assert await roomy()


async def test_results_of_a_partition_that_was_lost_while_they_were_computed_are_not_sent():
    lose, go = asyncio.Event(), asyncio.Event()

    class Slow(Echo):
        async def process(self, batch: Any, ahead: Any = None) -> Outcome:
            if B in batch:
                await go.wait()
            return await super().process(batch)

    class Losing(FakeProducer):
        def __init__(self) -> None:
            super().__init__()
            self.sent: list[list[Any]] = []

        async def submit(self, records: Any) -> asyncio.Event:
            self.sent.append(list(records))
            return await super().submit(records)

        async def settle(self, delivery: asyncio.Event) -> list[Any]:
            if len(self.sent) == 1:
                await lose.wait()
                raise PartitionsFenced(frozenset({A}), "another producer has taken t/0")
            return await super().settle(delivery)

    echo, group, producer = Slow("out"), FakeGroup(), Losing()
    ownership = own(echo, group, producer, [A, B], session_timeout_s=1.0, heartbeat_interval_s=0.1)
    await opened(ownership, A, B)
    ownership.pickup.put(A, records(2, 1))
    await eventually(lambda: len(producer.sent) == 1)
    ownership.pickup.put(A, records(3, 1))
    ownership.pickup.put(B, records(2, 1))
    await eventually(lambda: echo.calls.count("process") == 1 and ownership._busy)
    lose.set()
    await eventually(lambda: ownership.pickup.open_partitions == {B})
    go.set()
    await eventually(lambda: group.known == {B: 3})
    assert [record.value for record in producer.sent[1]] == [b'["t", 1, 2, "v"]']
    await ownership.close()
    assert echo.positions == {B: 3}
