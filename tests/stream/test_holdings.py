"""When rows are written: soon while they are few, rarely while thousands change."""

from typing import Any, cast

import pytest

from stream_infer.core.state import PartitionState, Snapshot, StoredRows
from stream_infer.settings import Settings
from stream_infer.store.eviction import UNKNOWN
from stream_infer.store.state import Ownership, StateStore
from stream_infer.stream.holdings import Holdings
from stream_infer.stream.processing import TP

TPS = [TP("events", number) for number in range(4)]
WRITE_S = 0.08


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class SlowStore:
    """Takes a while to write, and counts how often it had to."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rounds = 0

    async def acquire(self, partition: int) -> Ownership:
        return Ownership(partition, 1, None, None, UNKNOWN)

    async def write_all(self, writes: list[tuple[Ownership, Snapshot]]) -> list[Ownership]:
        self._clock.now_s += WRITE_S
        self.rounds += 1
        return [ownership for ownership, _ in writes]


def state_changing(rows: int) -> Any:
    """Return what makes partitions of which so many rows change between two writes."""

    class Changing(PartitionState):
        def snapshot(self) -> Snapshot:
            changed = [(str(number), b"row") for number in range(rows)]
            return Snapshot(self.position, (0,), [StoredRows("view", 1, changed)])

    def make(_: Any, partition: int, /, **options: Any) -> PartitionState:
        return Changing(partition, (0,), (0,), (0,), (0,), {}, {})

    return make


@pytest.mark.parametrize(("rows", "expected"), [(500, (9, 10)), (2_500, (1, 2))])
async def test_changes_are_stored_each_flush_interval_and_thousands_of_rows_each_second(
    rows: int, expected: tuple[int, int]
) -> None:
    clock = Clock()
    store = SlowStore(clock)
    holdings = Holdings(
        cast(Any, None),
        cast(StateStore, store),
        Settings(flush_interval_s=0.1),
        clock,
        make_state=state_changing(rows),
        topics=["events"],
    )
    await holdings.acquire(TPS, {})
    for tp in TPS:
        holdings[tp].changed = True
    holdings.take_snapshots()
    await holdings.write_pending()
    began_s, store.rounds = clock.now_s, 0
    while clock.now_s < began_s + 1.0:
        for tp in TPS:
            holdings[tp].changed = True
        holdings.take_snapshots()
        await holdings.write_pending()
        clock.now_s += 0.01
    assert store.rounds in expected
