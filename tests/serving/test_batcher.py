"""The batcher: no delay, everybody answered, bounded."""

import asyncio
from collections.abc import Sequence

import pytest

from stream_infer.serving.batcher import Batcher
from stream_infer.serving.errors import OverloadedError


class Work:
    """Work that a test lets go on, batch by batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)

    async def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        self.started.release()
        await self.go.acquire()
        return [ValueError(item) if item < 0 else item * 10 for item in items]


def batcher(work: Work, *, batch_max: int = 3, waiting_max: int = 5) -> Batcher:  # type: ignore[type-arg]
    return Batcher(work, lambda _: 1, batch_max=batch_max, waiting_max=waiting_max)


async def test_what_comes_while_a_batch_is_under_way_shares_the_next_one() -> None:
    work = Work()
    tested = batcher(work)
    first = asyncio.create_task(tested.submit(1))
    await work.started.acquire()
    rest = [asyncio.create_task(tested.submit(item)) for item in (2, 3, 4, 5)]
    for _ in range(3):
        work.go.release()
    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40, 50]
    assert work.batches == [[1], [2, 3, 4], [5]]
    assert tested.waiting_size == 0


async def test_more_than_may_wait_is_refused_and_the_rest_served() -> None:
    work = Work()
    tested = batcher(work, waiting_max=2)
    tasks = [asyncio.create_task(tested.submit(1))]
    await work.started.acquire()
    tasks += [asyncio.create_task(tested.submit(item)) for item in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await tested.submit(4)
    work.go.release()
    work.go.release()
    assert await asyncio.gather(*tasks) == [10, 20, 30]


async def test_an_error_reaches_its_item_only_and_a_failed_batch_all_of_its_items() -> None:
    work = Work()
    tested = batcher(work)
    for _ in range(2):
        work.go.release()
    results = await asyncio.gather(
        *(tested.submit(item) for item in (1, -2, 3)), return_exceptions=True
    )
    assert (results[0], results[2]) == (10, 30)
    assert isinstance(results[1], ValueError)

    async def broken(_: Sequence[int]) -> Sequence[int | Exception]:
        raise OSError("gone")

    failing: Batcher[int, int] = Batcher(broken, lambda _: 1, batch_max=9, waiting_max=9)
    results = await asyncio.gather(failing.submit(1), failing.submit(2), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]


async def test_a_caller_that_left_costs_the_others_nothing() -> None:
    work = Work()
    tested = batcher(work)
    first = asyncio.create_task(tested.submit(1))
    await work.started.acquire()
    gone, stays = (asyncio.create_task(tested.submit(item)) for item in (2, 3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    work.go.release()
    work.go.release()
    assert await first == 10
    assert await stays == 30
    assert work.batches == [[1], [3]]


async def test_a_caller_waits_no_longer_than_the_time_limit_queue_included() -> None:
    work = Work()
    tested: Batcher[int, int] = Batcher(
        work, lambda _: 1, batch_max=1, waiting_max=9, timeout_s=0.2
    )
    hanging = asyncio.create_task(tested.submit(1))
    await work.started.acquire()
    waiting = asyncio.create_task(tested.submit(2))
    answers = await asyncio.gather(hanging, waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [TimeoutError, TimeoutError]
    work.go.release()
    work.go.release()
    assert tested.waiting_size == 1
    assert await tested.submit(3) == 30
    assert work.batches == [[1], [3]]


async def test_nobody_joins_a_queue_that_does_not_move() -> None:
    work = Work()
    tested: Batcher[int, int] = Batcher(
        work,
        lambda _: 1,
        batch_max=1,
        waiting_max=9,
        wait_max_s=0.1,
        clock=lambda: now_s,
    )
    now_s = 0.0
    first = asyncio.create_task(tested.submit(1))
    await work.started.acquire()
    second = asyncio.create_task(tested.submit(2))
    await asyncio.sleep(0)
    now_s += 0.05
    third = asyncio.create_task(tested.submit(3))
    await asyncio.sleep(0)
    now_s += 0.06
    with pytest.raises(OverloadedError, match="too many events wait"):
        await tested.submit(4)
    for _ in range(3):
        work.go.release()
    assert await asyncio.gather(first, second, third) == [10, 20, 30]


async def test_what_comes_in_the_moment_when_the_last_batch_has_ended_is_worked_on() -> None:
    loop = asyncio.get_running_loop()
    results: asyncio.Queue[int | Exception] = asyncio.Queue()

    async def work(items: Sequence[int]) -> Sequence[int | Exception]:
        return items

    tested: Batcher[int, int] = Batcher(work, lambda _: 1, batch_max=9, waiting_max=9)

    def again(result: int | Exception) -> None:
        # Its call runs after the task's last step, and before the loop's callbacks for its end.
        loop.call_soon(tested.offer, 2, results.put_nowait)

    tested.offer(1, again)
    async with asyncio.timeout(20):
        assert await results.get() == 2


async def test_as_many_may_wait_as_are_begun_in_time_judged_by_earlier_batches() -> None:
    now_s = 0.0
    work = Work()
    tested: Batcher[int, int] = Batcher(
        work, lambda _: 1, batch_max=2, waiting_max=99, wait_max_s=1.0, clock=lambda: now_s
    )
    for _ in range(40):  # Batches of 0.3 s: three of them begin within a second.
        done = asyncio.create_task(tested.submit(0))
        await work.started.acquire()
        now_s += 0.3
        work.go.release()
        await done
        await asyncio.sleep(0)
    assert tested.batch_s == pytest.approx(0.3)
    tasks = [asyncio.create_task(tested.submit(0))]
    await work.started.acquire()
    for _ in range(6):
        assert not tested.is_full()
        tasks.append(asyncio.create_task(tested.submit(1)))
        await asyncio.sleep(0)
    assert tested.is_full()
    with pytest.raises(OverloadedError):
        await tested.submit(2)
    for _ in range(5):
        work.go.release()
    await asyncio.gather(*tasks)
    assert not tested.is_full(99)


async def test_a_batchs_worth_may_wait_however_long_the_last_batch_takes() -> None:
    now_s = 0.0
    work = Work()
    tested: Batcher[int, int] = Batcher(
        work, lambda _: 1, batch_max=3, waiting_max=99, wait_max_s=0.1, clock=lambda: now_s
    )
    tasks = [asyncio.create_task(tested.submit(0))]
    await work.started.acquire()
    for _ in range(3):
        now_s += 5.0
        assert not tested.is_full()
        tasks.append(asyncio.create_task(tested.submit(1)))
        await asyncio.sleep(0)
    assert tested.is_full()
    for _ in range(2):
        work.go.release()
    assert await asyncio.gather(*tasks) == [0, 10, 10, 10]
    assert work.batches == [[0], [1, 1, 1]]
