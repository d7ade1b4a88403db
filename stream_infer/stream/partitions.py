"""The partitions of one assignment: how they are taken over, lost and taken again."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence, Set

from stream_infer.core.errors import FencedError
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.delivering import Delivering
from stream_infer.stream.group import Group, readable_position
from stream_infer.stream.merging import AnyPickup
from stream_infer.stream.processing import TP, PartitionsFenced, Processor
from stream_infer.stream.retry import Persist, wait_for_event
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.tasks import Tasks
from stream_infer.stream.watermark import Watermark

log = logging.getLogger("stream_infer.stream")


class Partitions:
    """Opens partitions, and opens them again where they were lost and are still ours.

    `marks` has the watermark of each partition that is read, `owned` those whose state is taken. A
    partition that is taken again has another watermark. `together` names the partitions that are
    one log with some.
    """

    def __init__(
        self,
        assigned: Sequence[TP],
        *,
        pickup: AnyPickup,
        processor: Processor,
        delivering: Delivering,
        group: Group,
        settings: StreamSettings,
        counters: StreamCounters,
        together: Callable[[Sequence[TP]], set[TP]],
        tasks: Tasks,
        persist: Persist,
        closing: asyncio.Event,
    ) -> None:
        self.assigned = assigned
        self.marks: dict[TP, Watermark] = {}
        self.owned: set[TP] = set()
        self._pickup = pickup
        self._processor = processor
        self._delivering = delivering
        self._group = group
        self._settings = settings
        self._counters = counters
        self._together = together
        self._tasks = tasks
        self._persist = persist
        self._closing = closing

    def is_held(self, tp: TP, marks: Mapping[TP, Watermark]) -> bool:
        """Say whether a partition, with those that are one log with it, is ours since `marks`."""
        return all(self.marks.get(one) is marks[one] for one in self._together([tp]))

    async def open(self, partitions: Sequence[TP]) -> None:
        """Take ownership, seek, accept records."""
        committed: dict[TP, int | None] = {}
        stored: dict[TP, int] = {}

        async def assign() -> Mapping[TP, int]:
            committed.update(await self._delivering.take(partitions))
            positions = {
                tp: offset
                for tp, offset in committed.items()
                if offset is not None and tp in partitions
            }
            stored.update(await self._processor.assign(partitions, committed))
            positions.update(stored)
            bounds = await self._group.bounds(partitions)
            reset = 0 if self._settings.offset_reset == "earliest" else 1
            return {
                tp: readable_position(tp, positions.get(tp, bounds[tp][reset]), bounds[tp])
                for tp in partitions
            }

        while not self._closing.is_set():
            try:
                positions = await self._persist("taking over partitions", assign)
                self.owned.update(partitions)
            except FencedError as error:
                await self._await_reassignment(error)
                continue
            await self._persist("seeking", self._group.seek_positions, positions)
            if self._closing.is_set():
                return
            for tp in partitions:
                self.marks[tp] = Watermark(positions[tp])
                self._pickup.open(tp, positions[tp])
                # Stored, thus acknowledged, but not committed by whoever died in between: without
                # a further event nobody would.
                if (committed.get(tp) or 0) < stored.get(tp, 0):
                    self._delivering.commit({tp: stored[tp]})
            log.info(
                "reading %s",
                ", ".join(f"{tp.topic}/{tp.partition} from {positions[tp]}" for tp in partitions),
            )
            self._counters.ready = True
            return

    def fence(self, lost: Set[TP], error: FencedError) -> None:
        """Drop the work of partitions that another worker took; take them again if still ours."""
        partitions = lost & set(self.assigned)
        if not partitions:
            return  # What is left of an earlier assignment is not ours to take again.
        self._counters.fenced += len(partitions)
        names = ", ".join(f"{topic}/{number}" for topic, number in sorted(partitions))
        log.warning("lost %s: %s", names, error)
        self._pickup.close(sorted(partitions))
        for tp in partitions:
            self.marks.pop(tp, None)
        self.owned -= partitions
        if not self._closing.is_set():
            reopening = self._reopen(sorted(partitions), error)
            self._tasks.run(f"open again {names}", reopening)

    def take_back(self, working: Set[int]) -> None:
        """Open partitions anew whose state can be read again, once all is acknowledged of them.

        What was predicted without state is folded then, and must not be published again. The
        partitions of the numbers `working` are being worked on.
        """
        back = self._processor.readable_again() & self.marks.keys()
        if not back or self._closing.is_set():
            return
        self._pickup.close(sorted(back))
        for number in {tp.partition for tp in back} - working:
            members = sorted(tp for tp in back if tp.partition == number)
            if any(self.marks[tp].in_flight for tp in members):
                continue
            for tp in members:
                del self.marks[tp]
            self.owned.difference_update(members)
            self._tasks.run(f"open again {number}", self.open(members))

    async def _reopen(self, partitions: Sequence[TP], error: FencedError) -> None:
        await self._await_reassignment(error)
        if not self._closing.is_set():
            await self.open(partitions)

    async def _await_reassignment(self, error: FencedError) -> None:
        """Give the group a session's time to take the partitions away, if we are late."""
        if isinstance(error, PartitionsFenced) and not error.reassigned:
            return
        log.debug("waiting for a rebalance after %r", error)
        await wait_for_event(self._closing, self._settings.session_timeout_s)
