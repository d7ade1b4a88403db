"""How long Redis is waited for, and that it is noticed when it is back."""

import asyncio
import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from stream_infer.settings import Settings
from stream_infer.stream.absence import Absence
from tests.stream.kafka_tools import eventually


def absence(probe=None, after_s: float = 0.2) -> Absence:
    async def answers() -> None:
        return None

    settings = Settings(while_state_away="degrade", state_away_after_s=after_s)
    return Absence(settings, probe or answers)


async def test_a_short_failure_is_tried_again_and_not_taken_for_an_absence():
    failures = [RedisConnectionError("away"), TimeoutError(), OSError("reset")]

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "rows"

    assert await absence().tried(call) == "rows"


async def test_redis_counts_as_away_when_it_fails_or_says_nothing_for_too_long():
    async def failing() -> None:
        raise RedisConnectionError("refused")

    cancelled = asyncio.Event()

    async def silent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(RedisConnectionError, match="refused"):
        await absence().tried(failing)
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        await absence().tried(silent)
    assert cancelled.is_set()


async def test_any_other_error_is_the_callers_at_once():
    async def full() -> None:
        raise ResponseError("OOM command not allowed")

    with pytest.raises(ResponseError):
        await absence(after_s=60).tried(full)


async def test_a_busy_worker_does_not_blame_redis():
    answered = asyncio.Event()

    async def call() -> str:
        await answered.wait()
        return "rows"

    async def busy() -> None:
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            pass
        answered.set()

    found, _ = await asyncio.gather(absence().tried(call), busy())
    assert found == "rows"


async def test_a_caller_who_is_cancelled_takes_its_call_along():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def call() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(absence(after_s=60).tried(call))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_it_is_noticed_when_redis_is_back():
    failures = [ResponseError("LOADING"), RedisConnectionError("refused")]

    async def probe() -> None:
        if failures:
            raise failures.pop()

    tested = absence(probe)
    tested.begin(RedisConnectionError("refused"))
    assert not tested.over
    await eventually(lambda: tested.over)
    tested.begin(RedisConnectionError("refused"))
    assert not tested.over
    await tested.end()
