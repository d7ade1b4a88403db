"""Whether the group still knows this worker: aiokafka goes on quietly where it does not."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from stream_infer.core.errors import StreamInferError
from stream_infer.stream.ending import want_of_memory

log = logging.getLogger("stream_infer.stream")
_NAMELESS = "UnknownError"
"""What aiokafka calls an answer that it has no name for: FENCED_INSTANCE_ID is one."""


class MembershipLost(StreamInferError):  # noqa: N818
    """The group has no place for this worker any more; only a restart gives it a new one."""


def watch_membership(
    coordinator: Any,
    member_id: str | None,
    session_timeout_s: float,
    failed: Callable[[Exception], None],
    *,
    now_s: Callable[[], float] = time.monotonic,
    rejoin_delay_s: float = 1.0,
) -> None:
    """Tell `failed` when another worker took our static member id, or coordination has ended.

    A member that was heard within its session, and is unknown all the same, was replaced. aiokafka
    would join again under that id, and so would the other: none of them would work. So it does not
    join again; after any other refusal it does.
    """
    heartbeat, reset = coordinator._do_heartbeat, coordinator.reset_generation
    heard_s: list[float] = []
    lost = False

    async def do_heartbeat() -> bool:
        began_s = now_s()
        answered: bool = await heartbeat()
        if answered:
            heard_s[:] = [began_s]
        return answered

    def is_replaced() -> bool:
        nonlocal lost
        leaving = coordinator._closing.done()
        recent = heard_s and now_s() - heard_s[0] < session_timeout_s
        if member_id and recent and not leaving and not lost:
            lost = True
            failed(MembershipLost(_replaced(member_id)))
        return lost

    def reset_generation() -> None:
        if not is_replaced():
            reset()

    async def push_error(error: Exception) -> None:
        """Join again after a while. aiokafka would wait for somebody to ask for the error; with
        Faust nobody does.
        """
        if want_of_memory(error) is not None:
            failed(error)
        if _NAMELESS in str(error) and is_replaced():
            await asyncio.wait([coordinator._closing])
            return
        log.warning("refused by the consumer group (%s); joining it again", error)
        heard_s.clear()
        reset()
        await asyncio.wait([coordinator._closing], timeout=rejoin_delay_s)

    def ended(task: Any) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            remedy = f"; {_replaced(member_id)}" if member_id else "; start the worker again"
            left = MembershipLost(f"left by its consumer group ({error}){remedy}")
            left.__cause__ = error
            failed(left)

    coordinator._do_heartbeat = do_heartbeat
    coordinator.reset_generation = reset_generation
    coordinator._push_error_to_user = push_error
    coordinator._coordination_task.add_done_callback(ended)


def _replaced(member_id: str) -> str:
    return (
        f"another worker has joined the group with this one's group_instance {member_id!r}; give "
        "each worker one of its own, and stop the old worker before its successor starts"
    )
