"""What was fetched reaches whoever it belongs to, and nobody else."""

import asyncio
from collections import deque
from collections.abc import Mapping, Set
from types import SimpleNamespace
from typing import Any

import pytest

from stream_infer.stream import transport
from stream_infer.stream.fetching import Drawn
from stream_infer.stream.pickup import Pickup
from stream_infer.stream.processing import TP
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.transport import MicroBatchConsumer

A, B = TP("t", 0), TP("t", 1)


class Fetched:
    """In the place of the consumer's service: what was fetched and not drawn."""

    def __init__(self) -> None:
        self.waiting: deque[Drawn] = deque()
        self.touched = 0

    @property
    def has_fetched(self) -> bool:
        return bool(self.waiting)

    def draw(self, partitions: Set[TP], records_max: int) -> Drawn | None:
        for drawn in self.waiting:
            if drawn.tp in partitions:
                self.waiting.remove(drawn)
                return drawn
        return None

    def touch(self) -> None:
        self.touched += 1

    def brings(self, tp: TP, *offsets: int, end: int = 0) -> None:
        records = [SimpleNamespace(offset=n, key=None, value=b"v") for n in offsets]
        self.waiting.append(Drawn(tp, records, end or offsets[-1] + 1))


def consumer(positions: Mapping[TP, int]) -> tuple[Any, Fetched, Pickup]:
    pickup = Pickup(
        batch_records_max=1_000,
        batch_bytes_max=1_000,
        waiting_records_max=4,
        waiting_bytes_max=1_000,
    )
    for tp, position in positions.items():
        pickup.open(tp, position)
    made = object.__new__(MicroBatchConsumer)
    settings = StreamSettings()
    made.app = SimpleNamespace(
        pickup=pickup, deliver=pickup.put, polled=lambda: None, stream_settings=settings
    )
    made._left = asyncio.Event()
    made._failure = None
    made._stopped, made._crashed = asyncio.Event(), asyncio.Event()
    made.flow_active = True
    made._thread = fetched = Fetched()
    return made, fetched, pickup


async def offsets(pickup: Pickup) -> dict[TP, list[int]]:
    return {tp: [r.offset for r in records] for tp, records in (await pickup.take()).items()}


async def test_what_a_fetch_brings_is_delivered_at_once() -> None:
    made, fetched, pickup = consumer({A: 0, B: 5})
    fetched.brings(A, 0, 1)
    fetched.brings(B, 5)
    made.fetched()
    assert not made._left.is_set()
    assert await offsets(pickup) == {A: [0, 1], B: [5]}
    assert fetched.touched == 1


async def test_what_was_drawn_and_found_no_memory_ends_the_app_before_more_is_drawn() -> None:
    """Else what follows would be taken for all that there is, and be committed."""
    made, fetched, pickup = consumer({A: 0})
    failed: list[Exception] = []

    def deliver(*_: object) -> None:
        raise MemoryError("no room")

    made.app.deliver, made.app.fail = deliver, failed.append
    fetched.brings(A, 0, 1)
    made.fetched()
    assert [str(error) for error in failed] == ["no room"]
    assert made._failure is None  # which would be told, and more fetched
    fetched.check = lambda: None  # type: ignore[attr-defined]
    fetched.brings(A, 2)
    with pytest.raises(MemoryError):
        await made._poll()
    assert not pickup.records


async def test_a_closed_partition_is_left_to_whoever_opens_it() -> None:
    made, fetched, pickup = consumer({A: 0})
    fetched.brings(B, 3)
    made.fetched()
    assert made._left.is_set()
    assert fetched.has_fetched
    pickup.open(B, 3)
    assert not made._take()
    assert await offsets(pickup) == {B: [3]}


async def test_while_the_flow_is_stopped_nothing_is_drawn() -> None:
    """As in a rebalance: what was fetched may be somebody else's by now."""
    made, fetched, pickup = consumer({A: 0})
    made.flow_active = False
    fetched.brings(A, 0)
    made.fetched()
    assert fetched.has_fetched
    assert not pickup.records


async def test_what_has_no_room_waits() -> None:
    made, fetched, pickup = consumer({A: 0})
    for offset in range(6):
        fetched.brings(A, offset)
    made.fetched()
    assert made._left.is_set()
    assert await offsets(pickup) == {A: [0, 1, 2, 3]}
    assert not made._take()
    assert await offsets(pickup) == {A: [4, 5]}


async def test_offsets_without_records_are_no_gap() -> None:
    """Such as the marks of transactions, or records that a compacted topic has dropped."""
    made, fetched, pickup = consumer({A: 0})
    fetched.brings(A, 0, 7, end=9)
    made.fetched()
    assert pickup.positions == {A: 9}
    fetched.brings(A, 9)
    made.fetched()
    assert await offsets(pickup) == {A: [0, 7, 9]}


@pytest.mark.parametrize(("waiting", "waits"), [(0, False), (1, True), (2, True), (3, False)])
async def test_the_next_fetch_waits_for_few_records_until_they_are_worked_on(
    waiting: int, waits: bool
) -> None:
    made, fetched, pickup = consumer({A: 0})
    made.loop, made.app.stream_settings = (
        asyncio.get_running_loop(),
        StreamSettings(batch_records_max=6),
    )
    if waiting:
        fetched.brings(A, *range(waiting))
        made.fetched()
    pickup.wanting.set()
    asking = asyncio.create_task(made.wanting())
    await asyncio.sleep(0)
    assert asking.done() is not waits
    pickup.wanting.set()
    await asking


async def test_while_work_stands_still_more_is_fetched_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "WANTING_MAX_S", 0.0)
    made, fetched, _ = consumer({A: 0})
    made.loop = asyncio.get_running_loop()
    fetched.brings(A, 0)
    made.fetched()
    await made.wanting()


async def test_what_cannot_be_delivered_is_told_by_the_next_poll() -> None:
    """aiokafka's own task must not end by it: nothing would be fetched any more."""
    made, fetched, _ = consumer({A: 0})
    fetched.brings(A, 0)

    def refuse(*_: object) -> None:
        raise ValueError("no")

    made.app.deliver = refuse
    made.fetched()
    assert made._left.is_set()
    with pytest.raises(ValueError, match="no"):
        made._raise_failure()
