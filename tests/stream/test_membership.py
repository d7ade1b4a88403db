"""A worker whose group has given its place away ends, and says why."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError

from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.membership import watch_membership
from stream_infer.stream.retry import persist

SESSION_S = 10.0


class Coordinator:
    """The part of aiokafka's coordinator that is watched."""

    def __init__(self) -> None:
        self.resets = 0
        self._closing = asyncio.get_running_loop().create_future()
        self._coordination_task = asyncio.create_task(self._coordinate())

    async def _coordinate(self) -> None:
        raise RuntimeError("UnknownError()")

    def _push_error_to_user(self, error: Exception) -> None:
        raise AssertionError("nobody asks for it")

    async def _do_heartbeat(self) -> bool:
        return True

    def reset_generation(self) -> None:
        self.resets += 1


class Lasting(Coordinator):
    """One whose coordination does not end by itself."""

    async def _coordinate(self) -> None:
        await self._closing


@pytest.mark.parametrize(
    ("member_id", "silent_s", "lost"),
    [("a", 1.0, True), ("a", SESSION_S + 1, False), (None, 1.0, False)],
)
async def test_a_member_unknown_within_its_session_was_replaced(
    member_id: str | None, silent_s: float, lost: bool
) -> None:
    found: list[Exception] = []
    now_s = 100.0
    coordinator = Coordinator()
    watch_membership(coordinator, member_id, SESSION_S, found.append, now_s=lambda: now_s)
    assert await coordinator._do_heartbeat()
    now_s += silent_s
    for _ in range(2):
        coordinator.reset_generation()
    assert coordinator.resets == (0 if lost else 2)  # who was replaced does not join again
    assert [("group_instance 'a'" in str(error)) for error in found] == [True] * lost


async def test_a_member_that_leaves_by_itself_was_not_replaced() -> None:
    found: list[Exception] = []
    coordinator = Coordinator()
    watch_membership(coordinator, "a", SESSION_S, found.append)
    assert await coordinator._do_heartbeat()
    coordinator._closing.set_result(None)
    coordinator.reset_generation()
    assert coordinator.resets == 1
    assert found == []


@pytest.mark.parametrize("member_id", ["a", None])
@pytest.mark.parametrize("said", ["UnknownError()", "not authorised"])
async def test_a_member_that_the_group_refuses_joins_again_after_a_while(
    member_id: str | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[Exception] = []
    coordinator = Lasting()
    watch_membership(coordinator, member_id, SESSION_S, found.append, rejoin_delay_s=0.01)
    pushing: Any = coordinator._push_error_to_user(KafkaError(said))
    await asyncio.wait_for(pushing, 10)
    assert coordinator.resets == 1
    assert found == []
    assert said in caplog.text


async def test_a_member_that_was_heard_and_is_fenced_was_replaced_and_waits_for_its_end() -> None:
    found: list[Exception] = []
    coordinator = Lasting()
    watch_membership(coordinator, "a", SESSION_S, found.append, rejoin_delay_s=0.01)
    assert await coordinator._do_heartbeat()
    error = KafkaError("Unexpected exception in heartbeat task: UnknownError()")
    pushing = asyncio.create_task(cast(Any, coordinator._push_error_to_user(error)))
    done, _ = await asyncio.wait([pushing], timeout=0.1)
    assert not done
    assert ["group_instance 'a'" in str(one) for one in found] == [True]
    coordinator._closing.set_result(None)
    await asyncio.wait_for(pushing, 10)
    assert coordinator.resets == 0


async def test_a_heard_member_that_is_refused_for_another_reason_joins_again() -> None:
    found: list[Exception] = []
    coordinator = Lasting()
    watch_membership(coordinator, "a", SESSION_S, found.append, rejoin_delay_s=0.01)
    assert await coordinator._do_heartbeat()
    pushing: Any = coordinator._push_error_to_user(KafkaError("not authorised"))
    await asyncio.wait_for(pushing, 10)
    assert (coordinator.resets, found) == (1, [])


async def test_a_member_that_lacks_memory_for_the_groups_answer_says_so() -> None:
    found: list[Exception] = []
    coordinator = Lasting()
    watch_membership(coordinator, "a", SESSION_S, found.append, rejoin_delay_s=0.01)
    pushing: Any = coordinator._push_error_to_user(MemoryError("no room"))
    await asyncio.wait_for(pushing, 10)
    assert [str(error) for error in found] == ["no room"]


@pytest.mark.parametrize("member_id", ["a", None])
async def test_a_worker_whose_coordination_ended_is_told(member_id: str | None) -> None:
    found: list[Exception] = []
    coordinator = Coordinator()
    watch_membership(coordinator, member_id, SESSION_S, found.append)
    await asyncio.wait([coordinator._coordination_task])
    await asyncio.sleep(0)
    (error,) = found
    assert "UnknownError" in str(error)
    assert isinstance(error.__cause__, RuntimeError)  # by which want of memory is known
    assert ("group_instance" in str(error)) == (member_id is not None)


async def test_want_of_memory_is_not_tried_again() -> None:
    attempts = []

    async def attempt() -> None:
        attempts.append(1)
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        await persist(
            "working",
            attempt,
            stop=asyncio.Event(),
            counters=StreamCounters(),
            delay_min_s=0.001,
            delay_max_s=0.001,
        )
    assert len(attempts) == 1
