"""When rows are written: soon while that costs little, rarely while the worker is behind."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream_infer.core.state import PartitionState, Snapshot
from stream_infer.settings import Settings
from stream_infer.store.eviction import UNKNOWN
from stream_infer.store.state import Ownership, StateStore
from stream_infer.stream.holdings import Holdings
from stream_infer.stream.processing import TP

TPS = [TP("events", number) for number in range(4)]
WRITE_S = 0.005
WRITE_PROCESSOR_S = 0.0045


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class SlowStore:
    """Takes a while to write, and some processor time; counts how often it had to."""

    def __init__(self, clock: Clock, processor: Clock) -> None:
        self._clock = clock
        self._processor = processor
        self.rounds = 0

    async def acquire(self, partition: int) -> Ownership:
        return Ownership(partition, 1, None, None, UNKNOWN)

    async def write_all(self, writes: list[tuple[Ownership, Snapshot]]) -> list[Ownership]:
        self._clock.now_s += WRITE_S
        self._processor.now_s += WRITE_PROCESSOR_S
        self.rounds += 1
        return [ownership for ownership, _ in writes]


def state_of(_: Any, partition: int, /, **options: Any) -> PartitionState:
    return PartitionState(partition, (0,), (0,), (0,), (0,), {}, {})


@pytest.mark.parametrize(("batch", "expected"), [(80, range(45, 51)), (2_000, range(1, 3))])
async def test_rows_are_written_by_what_it_costs_and_rarely_by_a_worker_that_is_behind(
    batch: int, expected: range
) -> None:
    clock, processor = Clock(), Clock()
    store = SlowStore(clock, processor)
    holdings = Holdings(
        cast(Any, None),
        cast(StateStore, store),
        Settings(flush_interval_s=0.1, batch_records_max=2_000),
        clock,
        make_state=state_of,
        topics=["events"],
        processor_s=processor,
    )
    await holdings.acquire(TPS, {})
    record = cast(Any, SimpleNamespace(key=b"1", value=b"{}"))

    async def work(for_s: float) -> None:
        end_s = clock.now_s + for_s
        while clock.now_s < end_s:
            clock.now_s += 0.008
            for tp in TPS:
                holdings[tp].changed = True
            holdings.take_snapshots([[record] * batch])
            await holdings.write_pending()

    await work(3.0)
    store.rounds = 0
    await work(1.0)
    assert store.rounds in expected
