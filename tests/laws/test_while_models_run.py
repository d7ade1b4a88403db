"""While models run in threads of their own, the loop goes on; state stays a fold of a prefix."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from stream_infer.models.calling import ROWS_IN_TURN, TimedCaller
from stream_infer.models.ensemble import ModelSet
from stream_infer.stream.processing import Outcome
from tests.laws.shop import Blocks, LogMaker, Record, Sum, as_records, shop_runtime, shop_topology
from tests.laws.test_processing import Worker, stored

pytestmark = pytest.mark.redis
AMPLE_S = 30.0


class Begun:
    """A worker at the models of a batch; of two batches before, a snapshot has the first only."""

    def __init__(self, redis: Redis, name: str) -> None:
        topology = shop_topology(name)
        self.model = Blocks()
        models = ModelSet({"sum": Sum(), "first": self.model}, TimedCaller(AMPLE_S))
        self.worker = Worker(shop_runtime(topology, models), redis)
        values = LogMaker(Random(5)).values(4 * ROWS_IN_TURN)
        records = as_records(topology.stream.name, 0, values)
        self.before, self.next = records[: ROWS_IN_TURN * 2], records[ROWS_IN_TURN * 2 :]
        self.task: asyncio.Task[Outcome]

    async def begin(self) -> None:
        await self.worker.start()
        self.model.released.set()
        half = len(self.before) // 2
        for records in (self.before[:half], self.before[half:]):
            outcome = await self.worker.processor.process({self.worker.tp: records})
            self.worker.processor.acknowledged(outcome.positions)
        self.model.released.clear()
        self.model.entered.clear()
        self.task = asyncio.create_task(self.worker.processor.process({self.worker.tp: self.next}))
        await asyncio.to_thread(self.model.entered.wait, AMPLE_S)

    async def end(self) -> None:
        self.model.released.set()
        outcome = await self.task
        self.worker.processor.acknowledged(outcome.positions)


@pytest.fixture
async def begun(redis: Redis, unique: str) -> AsyncIterator[Begun]:
    made = Begun(redis, unique)
    try:
        await made.begin()
        yield made
    finally:
        made.model.released.set()


async def folded(redis: Redis, name: str, records: list[Record]) -> dict[bytes, bytes]:
    """What is stored of events that were processed at once, under that name."""
    worker = Worker(shop_runtime(shop_topology(name)), redis)
    await worker.start()
    await worker.consume(records)
    return await stored(redis, name)


def of(found: dict[bytes, bytes], name: str) -> dict[bytes, bytes]:
    return {key: value.replace(name.encode(), b"T") for key, value in found.items()}


async def test_nothing_that_moves_is_stored_and_all_of_it_afterwards(
    redis: Redis, unique: str, begun: Begun
) -> None:
    worker = begun.worker
    await worker.processor.store()
    await worker.processor.store()
    first = await folded(redis, f"{unique}_first", begun.before[: len(begun.before) // 2])
    assert of(await stored(redis, unique), unique) == of(first, f"{unique}_first")
    await begun.end()
    await worker.processor.revoke([worker.tp])
    whole = await folded(redis, f"{unique}_whole", begun.before + begun.next)
    assert of(await stored(redis, unique), unique) == of(whole, f"{unique}_whole")


async def test_a_batch_that_never_ends_leaves_the_state_before_it(
    redis: Redis, unique: str, begun: Begun
) -> None:
    worker = begun.worker
    begun.task.cancel()
    await asyncio.wait([begun.task])
    await worker.processor.revoke([worker.tp])
    first = await folded(redis, f"{unique}_first", begun.before[: len(begun.before) // 2])
    assert of(await stored(redis, unique), unique) == of(first, f"{unique}_first")


async def test_rows_are_not_let_go_under_the_hands_of_a_batch(begun: Begun) -> None:
    custody = begun.worker.processor._custody
    left: list[bool] = []
    custody._degrades = True
    custody._absence = SimpleNamespace(tried=_fails, begin=lambda error: None)  # type: ignore[assignment]
    custody._holdings.leave = lambda: left.append(begun.task.done())  # type: ignore[method-assign]
    leaving = asyncio.create_task(begun.worker.processor.store())
    await asyncio.sleep(0)
    assert not leaving.done()
    await begun.end()
    await leaving
    assert left == [True]


async def _fails(call: object) -> None:
    raise RedisConnectionError("away")
