"""A worker whose group has given its place away ends, and says why."""

import asyncio

import pytest

from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.membership import MembershipLost, watch_membership
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

    async def _do_heartbeat(self) -> bool:
        return True

    def reset_generation(self) -> None:
        self.resets += 1


@pytest.mark.parametrize(
    ("member_id", "silent_s", "lost"),
    [("a", 1.0, True), ("a", SESSION_S + 1, False), (None, 1.0, False)],
)
async def test_a_member_unknown_within_its_session_was_replaced(
    member_id: str | None, silent_s: float, lost: bool
) -> None:
    found: list[MembershipLost] = []
    now_s = 100.0
    coordinator = Coordinator()
    watch_membership(coordinator, member_id, SESSION_S, found.append, lambda: now_s)
    assert await coordinator._do_heartbeat()
    now_s += silent_s
    coordinator.reset_generation()
    assert coordinator.resets == 1
    assert [("group_instance 'a'" in str(error)) for error in found] == [True] * lost


async def test_a_member_that_leaves_by_itself_was_not_replaced() -> None:
    found: list[MembershipLost] = []
    coordinator = Coordinator()
    watch_membership(coordinator, "a", SESSION_S, found.append)
    assert await coordinator._do_heartbeat()
    coordinator._closing.set_result(None)
    coordinator.reset_generation()
    assert coordinator.resets == 1
    assert found == []


@pytest.mark.parametrize("member_id", ["a", None])
async def test_a_worker_whose_coordination_ended_is_told(member_id: str | None) -> None:
    found: list[MembershipLost] = []
    coordinator = Coordinator()
    watch_membership(coordinator, member_id, SESSION_S, found.append)
    await asyncio.wait([coordinator._coordination_task])
    await asyncio.sleep(0)
    (error,) = found
    assert "UnknownError" in str(error)
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
