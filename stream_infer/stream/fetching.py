"""aiokafka's fetches, one right after the other, each when the worker can make use of it.

aiokafka's own routine looks at all partitions and waits for all that may happen before each fetch:
some 150 calls and three turns of the loop. Where nothing has changed but positions, which is nearly
always, the next fetch of a broker is asked for within the task of the one before.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

ROUTINE_EVERY_S = 0.1
"""So often aiokafka's own routine decides what to fetch: partitions may have moved to a broker."""

TURNS_TO_WAKE = 3
"""Turns of the event loop from drawing until aiokafka's routine has looked at what there is."""


class Fetching:
    """Stands in the place of `Fetcher._proc_fetch_request`.

    `on_fetched` is called whenever a fetch has brought something; `wanting` is awaited after it, so
    that the next one brings all that the log has got meanwhile.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        on_fetched: Callable[[], None],
        wanting: Callable[[], Awaitable[object]],
    ) -> None:
        self._fetcher: Any = fetcher
        self._fetch: Callable[..., Awaitable[bool]] = self._fetcher._proc_fetch_request
        self._on_fetched = on_fetched
        self._wanting = wanting

    async def run(self, assignment: Any, node: int, request: Any) -> bool:
        """Fetch from a broker until something changes; return whether the last one had records."""
        until_s = time.monotonic() + ROUTINE_EVERY_S
        while await self._fetch(assignment, node, request):
            self._on_fetched()
            try:
                await self._wanting()
            except asyncio.CancelledError:  # As aiokafka's own: whoever cancels awaits the task.
                return False
            following = None
            if time.monotonic() < until_s:
                following = self._following(assignment, node, request.topics)
            if following is None:
                # aiokafka's routine may be about to wake by what was drawn; if it saw this task
                # done and its broker still asked, it would wait for something else to happen.
                for _ in range(TURNS_TO_WAKE):
                    await asyncio.sleep(0)
                return True
            request = following
        return False

    def _following(self, assignment: Any, node: int, topics: Any) -> Any:
        """Return the request for what comes next, None where it is for the routine to decide."""
        fetcher = self._fetcher
        if not assignment.active:
            return None
        leader = fetcher._client.cluster.leader_for_partition
        wanted = []
        for topic, partitions in topics:
            own = []
            for partition, _, bytes_max in partitions:
                tp = TopicPartition(topic, partition)
                state = assignment.state_value(tp)
                if (
                    tp in fetcher._records
                    or not state.has_valid_position
                    or state.paused
                    or leader(tp) != node
                ):
                    return None
                own.append((partition, state.position, bytes_max))
            # The broker reads partitions in the order of the request, up to its limit of bytes.
            own.append(own.pop(0))
            wanted.append((topic, own))
        wanted.append(wanted.pop(0))
        return FetchRequest(
            fetcher._fetch_max_wait_ms,
            fetcher._fetch_min_bytes,
            fetcher._fetch_max_bytes,
            fetcher._isolation_level,
            wanted,
            rack_id=fetcher._client_rack or "",
        )
