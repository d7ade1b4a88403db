"""When rows are written, and in which pieces: soon while that costs little, rarely while behind."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from stream_infer.core.shard import Shard
from stream_infer.core.state import PartitionState, Snapshot, StoredRows
from stream_infer.settings import Settings
from stream_infer.store.eviction import UNKNOWN
from stream_infer.store.state import Ownership, StateStore
from stream_infer.stream.holdings import Holdings
from stream_infer.stream.owned import PENDING_MAX
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


def state_changing(rows: int) -> Any:
    """Return what makes partitions of which so many rows change between two writes."""

    class Changing(PartitionState):
        def snapshot(self) -> Snapshot:
            changed = [(str(number), b"row") for number in range(rows)]
            return Snapshot(self.position, (0,), [StoredRows("view", 1, changed)])

    def make(_: Any, partition: int, /, **options: Any) -> PartitionState:
        return Changing(partition, (0,), (0,), (0,), (0,), {}, {})

    return make


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
        make_state=state_changing(500),
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


class Store:
    """Notes what is written; fails as often as it is told to."""

    def __init__(self) -> None:
        self.written: list[Snapshot] = []
        self.failures = 0

    async def acquire(self, partition: int) -> Ownership:
        return Ownership(partition, 1, None, None, UNKNOWN)

    async def write_all(
        self, writes: list[tuple[Ownership, Snapshot]]
    ) -> list[Ownership | BaseException]:
        self.written += [snapshot for _, snapshot in writes]
        if self.failures:
            self.failures -= 1
            return [OSError("gone")]
        return [ownership for ownership, _ in writes]


class Fold:
    """One partition of ours, folded on and on: an event of key "a" at each offset."""

    def __init__(self, rows_max: int = 100) -> None:
        self.store = Store()
        self.clock = Clock()
        self.holdings = Holdings(
            cast(Any, None),
            cast(StateStore, self.store),
            Settings(state_rows_max=rows_max),
            self.clock,
            make_state=self._made,
            topics=["events"],
            processor_s=Clock(),
        )
        self.shard = Shard(np.dtype([("count", "<i8")]), max_rows=1_000)

    def _made(self, _: Any, partition: int, /, **options: Any) -> PartitionState:
        nowhere = (0,)
        shards, ttl_ms = {"view": self.shard}, {"view": 60, "@results": 60}
        return PartitionState(partition, nowhere, nowhere, nowhere, nowhere, shards, ttl_ms)

    async def event(self, key: str = "a") -> None:
        """Fold one event and take a snapshot, if one may be taken."""
        self.clock.now_s += 1.0
        owned = self.holdings[TPS[0]]
        rows, absent = self.shard.lookup([key])
        if absent:
            self.shard.insert(absent, [None])
            rows, _ = self.shard.lookup([key])
        self.shard.rows["count"][rows] += 1
        self.shard.touch(rows)
        owned.state.position = (owned.state.position[0] + 1,)
        owned.changed = True
        self.holdings.take_snapshots()

    def acknowledge(self, offset: int) -> None:
        self.holdings.acknowledge({TPS[0]: offset})

    def stored(self) -> list[tuple[int, list[tuple[str, int]]]]:
        """What was written each time: the position, and the rows with their counts."""
        return [
            (
                snapshot.position[0],
                [(key, int.from_bytes(row, "little")) for key, row in snapshot.rows[0].rows],
            )
            for snapshot in self.store.written
        ]


async def test_what_is_acknowledged_is_written_without_waiting_for_what_comes_after_it() -> None:
    fold = Fold()
    await fold.holdings.acquire(TPS[:1], {})
    for _ in range(3):
        await fold.event()
    fold.acknowledge(2)
    await fold.holdings.write_pending()
    assert fold.stored() == [(2, [("a", 2)])]
    fold.acknowledge(3)
    await fold.holdings.write_pending()
    await fold.holdings.write_pending()
    assert fold.stored()[1:] == [(3, [("a", 3)])]


async def test_what_may_be_stored_already_is_repeated_as_it_was() -> None:
    fold = Fold()
    await fold.holdings.acquire(TPS[:1], {})
    await fold.event()
    await fold.event()
    fold.acknowledge(1)
    fold.store.failures = 2
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            await fold.holdings.write_pending()
        fold.acknowledge(2)
    await fold.holdings.write_pending()
    await fold.holdings.write_pending()
    assert fold.stored() == [(1, [("a", 1)])] * 3 + [(2, [("a", 2)])]


async def test_all_that_is_acknowledged_is_written_when_a_partition_is_given_back() -> None:
    fold = Fold()
    await fold.holdings.acquire(TPS[:1], {})
    for _ in range(7):
        await fold.event()
    fold.acknowledge(1)
    fold.store.failures = 1
    with pytest.raises(OSError, match="gone"):
        await fold.holdings.write_pending()
    fold.acknowledge(7)
    await fold.holdings.give_back(TPS[:1])
    assert [position for position, _ in fold.stored()] == [1, 1, 4, 7]
    assert fold.stored()[-1][1] == [("a", 7)]


async def test_rows_leave_memory_although_snapshots_are_taken_all_the_time() -> None:
    fold = Fold(rows_max=3)
    await fold.holdings.acquire(TPS[:1], {})
    for number in range(40):
        await fold.event(f"key {number}")
        # Each is acknowledged when the next two are folded.
        fold.acknowledge(number - 1)
        await fold.holdings.write_pending()
        assert len(fold.shard) <= 3 + PENDING_MAX + 3
    last = {key: count for _, rows in fold.stored() for key, count in rows}
    assert last == {f"key {number}": 1 for number in range(len(last))}
    assert len(last) > 30
