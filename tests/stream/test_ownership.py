"""The loop of a topology, on fakes of Kafka: overlap, order, fencing, revocation."""

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from stream_infer.core.errors import FencedError
from stream_infer.stream import storing
from stream_infer.stream.at_least_once import AtLeastOnce
from stream_infer.stream.commits import CommitResult
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.ownership import Ownership
from stream_infer.stream.processing import TP, PartitionsFenced
from stream_infer.stream.settings import StreamSettings
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import eventually

A, B = TP("t", 0), TP("t", 1)


class FakeGroup:
    def __init__(self, committed: Mapping[TP, int] | None = None, end: int = 1_000) -> None:
        self.known = dict(committed or {})
        self.log_end = end
        self.seeks: list[dict[TP, int]] = []

    async def committed(self, partitions: Sequence[TP]) -> dict[TP, int | None]:
        return {tp: self.known.get(tp) for tp in partitions}

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, tuple[int, int]]:
        return dict.fromkeys(partitions, (2, self.log_end))

    async def seek_positions(self, positions: Mapping[TP, int]) -> None:
        self.seeks.append(dict(positions))

    async def commit_positions(self, positions: Mapping[TP, int]) -> CommitResult:
        self.known.update(positions)
        return CommitResult.DONE

    def end(self, tp: TP) -> int:
        return self.log_end


class FakeProducer:
    """Acknowledges a delivery once it is told to."""

    def __init__(self, held: bool = False) -> None:
        self.acks: list[asyncio.Event] = []
        self.held = held
        self.abandoned = 0

    async def submit(self, records: Any) -> asyncio.Event:
        ack = asyncio.Event()
        if not self.held:
            ack.set()
        self.acks.append(ack)
        return ack

    async def settle(self, delivery: asyncio.Event) -> list[Any]:
        await delivery.wait()
        return []

    async def abandon(self) -> None:
        self.abandoned += 1


def own(
    echo: Echo, group: FakeGroup, producer: FakeProducer, partitions: Sequence[TP], **changes: Any
) -> Ownership:
    quick: dict[str, Any] = {
        "retry_delay_min_s": 0.001,
        "commit_interval_s": 0.0,
        "flush_interval_s": 0.01,
        "drain_timeout_s": 0.5,
    }

    def failed(error: Exception) -> None:
        raise AssertionError("a defect") from error

    settings, counters = StreamSettings(**{**quick, **changes}), StreamCounters()
    delivering = AtLeastOnce(
        producer,  # type: ignore[arg-type]
        group=group,
        replace=echo.refused,
        settings=settings,
        counters=counters,
    )
    ownership = Ownership(
        partitions,
        processor=echo,
        delivering=delivering,
        group=group,
        settings=settings,
        counters=counters,
        failed=failed,
    )
    ownership.start()
    return ownership


def records(first: int, count: int) -> list[Any]:
    return [SimpleNamespace(offset=first + n, key=None, value=b"v") for n in range(count)]


async def opened(ownership: Ownership, *partitions: TP) -> None:
    await eventually(lambda: set(partitions) <= ownership.pickup.open_partitions)


async def test_positions_come_from_the_processor_else_the_commit_else_the_start_of_the_log():
    group = FakeGroup({A: 7})
    echo = Echo("out", start={A: 5})
    ownership = own(echo, group, FakeProducer(), [A, B])
    await opened(ownership, A, B)
    assert group.seeks == [{A: 5, B: 2}]
    assert echo.committed_seen == {A: 7, B: None}
    await ownership.close()
    assert ownership.pickup.open_partitions == set()


async def test_a_position_beyond_the_end_of_the_log_is_refused_until_it_is_not(
    caplog: pytest.LogCaptureFixture,
):
    group = FakeGroup({A: 50}, end=40)
    ownership = own(Echo("out"), group, FakeProducer(), [A])
    await eventually(lambda: "offset 50, but its log ends at 40" in caplog.text)
    assert group.seeks == []
    group.log_end = 60
    await opened(ownership, A)
    await ownership.close()


async def test_work_overlaps_unacknowledged_batches_up_to_the_bound_and_nothing_is_stored_early():
    echo, group, producer = Echo("out"), FakeGroup(), FakeProducer(held=True)
    ownership = own(echo, group, producer, [A], in_flight_batches_max=2, batch_records_max=1)
    await opened(ownership, A)
    ownership.pickup.put(A, records(2, 5))
    await eventually(lambda: len(producer.acks) == 2)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(producer.acks) == 2
    assert echo.positions == {}
    producer.acks[1].set()  # out of order: still nothing to store
    for _ in range(50):
        await asyncio.sleep(0)
    assert echo.positions == group.known == {}
    producer.acks[0].set()
    await eventually(lambda: group.known == {A: 4})
    assert echo.positions == {A: 4}
    producer.held = False
    for ack in producer.acks:
        ack.set()
    await eventually(lambda: len(producer.acks) == 4)
    for ack in producer.acks:
        ack.set()
    await eventually(lambda: group.known == {A: 7})
    await ownership.close()


async def test_what_cannot_be_acknowledged_in_time_is_neither_stored_nor_committed():
    echo, group, producer = Echo("out"), FakeGroup(), FakeProducer(held=True)
    ownership = own(echo, group, producer, [A], drain_timeout_s=0.2)
    await opened(ownership, A)
    ownership.pickup.put(A, records(2, 5))
    await eventually(lambda: len(producer.acks) == 1)
    await ownership.close()
    assert echo.positions == group.known == {}
    assert echo.revoked == [A]
    assert producer.abandoned == 1


async def test_a_failing_store_is_tried_again():
    class Failing(Echo):
        left = 3

        async def store(self) -> None:
            if self.left:
                self.left -= 1
                raise ConnectionError("the store is away")
            await super().store()

    echo, group = Failing("out"), FakeGroup()
    ownership = own(echo, group, FakeProducer(), [A])
    await opened(ownership, A)
    ownership.pickup.put(A, records(2, 5))
    await eventually(lambda: group.known == {A: 7})
    await eventually(lambda: "store" in echo.calls)
    assert echo.positions == {A: 7}
    await ownership.close()


async def test_a_write_that_takes_long_holds_up_what_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(storing, "LAG_MAX_S", 0.0)

    class Slow(Echo):
        stored = asyncio.Event()

        async def store(self) -> None:
            await super().store()
            await self.stored.wait()

    echo, producer = Slow("out"), FakeProducer()
    ownership = own(echo, FakeGroup(), producer, [A])
    await opened(ownership, A)
    await eventually(lambda: "store" in echo.calls)
    ownership.pickup.put(A, records(2, 5))
    await eventually(lambda: echo.positions == {A: 7})
    ownership.pickup.put(A, records(7, 5))
    await eventually(lambda: len(producer.acks) == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert echo.positions == {A: 7}
    echo.stored.set()
    await eventually(lambda: echo.positions == {A: 12})
    await ownership.close()


@pytest.mark.parametrize("lose", [False, True])
async def test_a_full_batch_is_taken_ahead_and_comes_next_without_what_was_lost_meanwhile(
    lose: bool,
):
    class Looking(Echo):
        ahead: Any = None
        lose = False

        async def process(self, batch: Any, ahead: Any = None) -> Any:
            found = ahead()
            if found is not None:
                assert self.ahead is None
                self.ahead = found
                if self.lose:
                    ownership._partitions.fence({A}, FencedError("epoch 3 is newer than 2"))
            elif self.ahead is not None:
                assert self.lose or batch is self.ahead
            return await super().process(batch)

    echo, group = Looking("out"), FakeGroup()
    echo.lose = lose
    ownership = own(echo, group, FakeProducer(), [A, B], batch_records_max=4)
    await opened(ownership, A, B)
    ownership.pickup.put(A, records(2, 6))
    ownership.pickup.put(B, records(2, 2))
    await eventually(lambda: group.known.get(B) == 4)
    await ownership.close()
    assert {tp: len(found) for tp, found in echo.ahead.items()} == {A: 2, B: 2}
    found = [offset for tp, offset in echo.processed if tp == A]
    assert found == ([2, 3, 4, 5] if lose else [2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize("where", ["process", "store"])
async def test_a_fenced_partition_is_dropped_and_the_others_go_on(where: str):
    class Fenced(Echo):
        def check(self, partitions: Any) -> None:
            if A in partitions:
                raise PartitionsFenced(frozenset({A}), "epoch 3 is newer than 2")

        async def process(self, batch: Any, ahead: Any = None) -> Any:
            if where == "process":
                self.check(batch)
            return await super().process(batch)

        async def store(self) -> None:
            if where == "store":
                self.check(self.positions)
            await super().store()

    echo, group = Fenced("out"), FakeGroup()
    ownership = own(echo, group, FakeProducer(), [A, B])
    await opened(ownership, A, B)
    ownership.pickup.put(A, records(2, 5))
    ownership.pickup.put(B, records(2, 5))
    await eventually(lambda: ownership.pickup.open_partitions == {B})
    await eventually(lambda: group.known.get(B) == 7)
    assert echo.positions[B] == 7
    await ownership.close()
    assert echo.revoked == [B]


async def test_a_fenced_partition_that_stays_ours_is_taken_over_again():
    class FencedOnce(Echo):
        fences = 1

        async def process(self, batch: Any, ahead: Any = None) -> Any:
            if self.fences:
                self.fences -= 1
                raise FencedError("epoch 3 is newer than 2")
            return await super().process(batch)

    echo, group = FencedOnce("out"), FakeGroup()
    ownership = own(
        echo, group, FakeProducer(), [A], session_timeout_s=1.0, heartbeat_interval_s=0.1
    )
    await opened(ownership, A)
    ownership.pickup.put(A, records(2, 5))
    await eventually(lambda: echo.calls.count("assign") == 2)
    await opened(ownership, A)
    ownership.pickup.put(A, records(2, 5))
    await eventually(lambda: group.known == {A: 7})
    await ownership.close()


async def test_pending_state_is_written_while_nothing_comes():
    echo = Echo("out")
    ownership = own(echo, FakeGroup(), FakeProducer(), [A])
    await eventually(lambda: "store" in echo.calls)
    await ownership.close()


async def test_records_taken_before_a_partition_was_lost_are_not_processed_once_it_is_ours_again():
    class LostMeanwhile(Echo):
        state = "calm"

        async def process(self, batch: Any, ahead: Any = None) -> Any:
            if self.state == "calm":
                self.state = "retrying"
                raise ConnectionError("the store is away")
            return await super().process(batch)

        async def store(self) -> None:
            if self.state == "retrying":
                self.state = "fenced"
                raise PartitionsFenced(frozenset({A}), "epoch 3 is newer than 2")

    echo, group = LostMeanwhile("out"), FakeGroup()
    ownership = own(
        echo,
        group,
        FakeProducer(),
        [A],
        session_timeout_s=1.0,
        heartbeat_interval_s=0.1,
        retry_delay_min_s=2.0,
        retry_delay_max_s=2.0,
    )
    await opened(ownership, A)
    ownership.pickup.put(A, records(5, 3))
    await eventually(lambda: echo.calls.count("assign") == 2)
    await opened(ownership, A)
    ownership.pickup.put(A, records(2, 6))
    await eventually(lambda: group.known == {A: 8})
    assert echo.processed == [(A, offset) for offset in range(2, 8)]
    await ownership.close()


async def test_what_is_left_of_an_earlier_assignment_is_not_taken_over_again():
    class Leftover(Echo):
        async def store(self) -> None:
            await super().store()
            raise PartitionsFenced(frozenset({B}), "epoch 3 is newer than 2")

    echo = Leftover("out")
    ownership = own(
        echo, FakeGroup(), FakeProducer(), [A], session_timeout_s=1.0, heartbeat_interval_s=0.1
    )
    await opened(ownership, A)
    await eventually(lambda: "store" in echo.calls)
    assert ownership._tasks.named("open again") == []
    assert ownership.pickup.open_partitions == echo.owned == {A}
    await ownership.close()


async def test_a_partition_without_state_is_taken_again_once_all_its_results_are_acknowledged():
    class Blind(Echo):
        back = False

        def readable_again(self) -> frozenset[TP]:
            return frozenset({A}) if self.back else frozenset()

        async def assign(self, partitions: Any, committed: Any) -> Any:
            self.back = False
            return await super().assign(partitions, committed)

    echo, group, producer = Blind("out", start={A: 5}), FakeGroup(), FakeProducer(held=True)
    ownership = own(echo, group, producer, [A, B])
    await opened(ownership, A, B)
    ownership.pickup.put(A, records(5, 3))
    await eventually(lambda: len(producer.acks) == 1)
    ownership.pickup.put(A, records(8, 2))
    await eventually(lambda: len(producer.acks) == 2)
    echo.back = True
    producer.acks[0].set()
    await eventually(lambda: group.known.get(A) == 8)
    await eventually(lambda: ownership.pickup.open_partitions == {B})
    assert echo.calls.count("assign") == 1
    producer.acks[1].set()
    await eventually(lambda: echo.calls.count("assign") == 2)
    await opened(ownership, A, B)
    assert group.seeks == [{A: 5, B: 2}, {A: 5}]
    producer.held = False
    ownership.pickup.put(A, records(5, 2))
    await eventually(lambda: echo.processed.count((A, 6)) == 2)
    ownership.pickup.put(A, records(7, 5))
    await eventually(lambda: group.known[A] == 12)
    await ownership.close()
    assert ownership.pickup.open_partitions == set()
