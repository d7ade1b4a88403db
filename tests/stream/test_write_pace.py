"""Rows are written as soon as that costs little, and rarely by a worker that is behind."""

import asyncio
from itertools import pairwise
from typing import NamedTuple

import pytest

from stream_infer.settings import Settings
from stream_infer.stream.write_pace import Metered, WritePace

FLUSH_S = 0.1
BATCH_MAX = 2_000
SETTINGS = Settings(flush_interval_s=FLUSH_S, batch_records_max=BATCH_MAX, batch_bytes_max=1 << 20)


class Record(NamedTuple):
    value: bytes = b"{}"
    key: bytes = b"1"
    offset: int = 0
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


SMALL, LARGE = Record(), Record(bytes(4_096))


def batch(records: int, record: Record = SMALL) -> list[list[Record]]:
    """Return so many records, in two parts."""
    return [[record] * (records // 2), [record] * (records - records // 2)]


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Worker:
    """Folds micro-batches, each of which takes a while, and writes when that is due."""

    def __init__(self, cost_s: float) -> None:
        self.clock = Clock()
        self.pace = WritePace(SETTINGS, self.clock)
        self._cost_s = cost_s

    def work(
        self, records: int, batch_s: float, *, for_s: float, record: Record = SMALL
    ) -> list[float]:
        """Return the times between the writes."""
        end_s, written = self.clock.now_s + for_s, []
        while self.clock.now_s < end_s:
            self.clock.now_s += batch_s
            if records:
                self.pace.folded(batch(records, record))
            if self.pace.due:
                self.pace.begin()
                self.pace.spend(self._cost_s)
                written.append(self.clock.now_s)
        return [b - a for a, b in pairwise(written)]


@pytest.mark.parametrize(("cost_s", "pause_s"), [(0.0005, 0.008), (0.005, 0.02), (0.05, FLUSH_S)])
def test_writing_takes_a_fifth_of_the_processor_at_most_or_comes_every_flush_interval(
    cost_s: float, pause_s: float
) -> None:
    pauses = Worker(cost_s).work(10, 0.001, for_s=2.0)
    assert all(pause_s <= pause + 1e-9 and pause < pause_s + 0.0021 for pause in pauses[1:])


@pytest.mark.parametrize(("records", "record"), [(BATCH_MAX, SMALL), (255, LARGE)])
@pytest.mark.parametrize("cost_s", [0.0005, 0.02])
def test_a_worker_whose_batches_are_full_writes_every_ten_flush_intervals(
    cost_s: float, records: int, record: Record
) -> None:
    worker = Worker(cost_s)
    worker.work(records, 0.04, for_s=3.0, record=record)
    pauses = worker.work(records, 0.04, for_s=5.0, record=record)
    assert all(0.9 < pause < 1.1 for pause in pauses)
    assert len(pauses) >= 3


@pytest.mark.parametrize("stall_s", [0.3, 10.0])
def test_one_large_batch_after_standing_still_changes_nothing(stall_s: float) -> None:
    worker = Worker(0.0005)
    worker.work(80, 0.008, for_s=1.0)
    worker.clock.now_s += stall_s
    worker.pace.folded(batch(BATCH_MAX))
    assert max(worker.work(80, 0.008, for_s=1.0)) < 0.02


@pytest.mark.parametrize("records", [0, 80])
def test_rows_are_soon_written_often_again_after_a_backlog_or_in_a_lull(records: int) -> None:
    worker = Worker(0.0005)
    worker.work(BATCH_MAX, 0.04, for_s=5.0)
    worker.work(records, 0.008, for_s=1.0)
    assert max(worker.work(records, 0.008, for_s=1.0)) < 0.02


def test_between_the_two_the_time_between_writes_grows_gradually() -> None:
    worker = Worker(0.0005)
    worker.work(80, 0.008, for_s=1.0)
    pauses = []
    for _ in range(100):
        worker.work(BATCH_MAX, 0.04, for_s=0.04)
        pauses.append(worker.pace.pause_s)
    steps = [b - a for a, b in pairwise(pauses)]
    assert all(0 <= step < 0.2 for step in steps)
    assert pauses[0] < 0.01 < 0.9 < pauses[-1] <= 1.0


def test_a_write_that_has_not_ended_does_not_make_the_next_one_due_sooner() -> None:
    worker = Worker(0.005)
    worker.work(10, 0.001, for_s=1.0)
    worker.clock.now_s += 1
    worker.pace.begin()
    assert worker.pace.pause_s == pytest.approx(0.02)


async def test_what_runs_while_a_call_waits_is_not_counted() -> None:
    spent_s = Clock()
    others_turn = asyncio.Event()

    async def call() -> str:
        spent_s.now_s += 2
        await others_turn.wait()
        spent_s.now_s += 3
        return "done"

    metered = Metered(call(), spent_s)
    waiting = asyncio.ensure_future(metered)
    await asyncio.sleep(0)
    spent_s.now_s += 100
    others_turn.set()
    assert await waiting == "done"
    assert metered.spent_s == 5


async def test_an_error_and_a_cancellation_pass_through_a_metered_call() -> None:
    caught: list[BaseException] = []

    async def call(failing: asyncio.Future[None]) -> str:
        try:
            await failing
        except (ValueError, asyncio.CancelledError) as error:
            caught.append(error)
            raise
        return "never"

    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failing.set_exception(ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        await Metered(call(failing))
    waiting = asyncio.ensure_future(Metered(call(asyncio.get_running_loop().create_future())))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [type(error) for error in caught] == [ValueError, asyncio.CancelledError]
