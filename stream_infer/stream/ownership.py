"""One assignment of partitions, from its beginning to its revocation: the loop of a topology."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from stream_infer.core.errors import FencedError
from stream_infer.failpoints import failpoint
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.delivering import Delivering, Settle
from stream_infer.stream.group import Group
from stream_infer.stream.merging import Merging, complete, make_pickup, together
from stream_infer.stream.partitions import Partitions
from stream_infer.stream.pickup import Batch
from stream_infer.stream.processing import TP, Outcome, PartitionsFenced, Processor
from stream_infer.stream.retry import persist
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.storing import Storing
from stream_infer.stream.tasks import Tasks, bounded
from stream_infer.stream.watermark import Watermark

T = TypeVar("T")
log = logging.getLogger("stream_infer.stream")


class _Taken(Struct, frozen=True):
    """Records that left the pickup, and the watermarks of their partitions at that moment."""

    batch: Batch
    marks: Mapping[TP, Watermark]

    @property
    def records(self) -> int:
        return sum(map(len, self.batch.values()))


class _InFlight(Struct, frozen=True):
    records: int
    settle: Settle
    tickets: list[tuple[TP, Watermark, int]]
    taken_s: float
    submitted_s: float


class Ownership:
    """Pickup → process → deliver → acknowledged → commit, for the partitions of one assignment.

    What fails is tried again until it succeeds or the partitions are revoked; `failed` hears of
    defects only.
    """

    def __init__(
        self,
        partitions: Sequence[TP],
        *,
        processor: Processor,
        delivering: Delivering,
        group: Group,
        settings: StreamSettings,
        counters: StreamCounters,
        failed: Callable[[Exception], None],
        merging: Merging | None = None,
    ) -> None:
        self._together = partial(together, merging)
        self.partitions = complete(merging, partitions)
        self.pickup = make_pickup(merging, settings, counters, group.end)
        self._processor = processor
        self._delivering = delivering
        self._group = group
        self._settings = settings
        self._counters = counters
        self._closing = asyncio.Event()
        self._in_flight: asyncio.Queue[_InFlight | None] = asyncio.Queue()
        self._busy = False
        self._working: set[int] = set()
        self._ahead: _Taken | None = None
        self._tasks = Tasks(failed)
        self._partitions = Partitions(
            self.partitions,
            pickup=self.pickup,
            processor=processor,
            delivering=delivering,
            group=group,
            settings=settings,
            counters=counters,
            together=self._together,
            tasks=self._tasks,
            persist=self._persist,
            closing=self._closing,
        )
        self._storing = Storing(
            partial(self._persist, "storing state", processor.store),
            settings.flush_interval_s,
            lost=self._lost_while_storing,
            done=self._take_back,
        )

    def start(self) -> None:
        """Open the partitions in the background and start to work."""
        for name, work in (
            ("open", self._partitions.open(self.partitions)),
            ("work", self._work()),
            ("settle", self._settle()),
            ("store", self._storing.run()),
            ("deliver", self._delivering.run()),
        ):
            self._tasks.run(name, work)

    async def close(self) -> None:
        """Drain within the drain timeout, let the processor store the rest, commit, forget.

        What waits is dropped (the next owner reads it again); what is in flight is finished.
        """
        self._counters.ready = False
        self._closing.set()
        self.pickup.close(self.partitions)
        drain_s = self._settings.drain_timeout_s
        deadline_s = time.monotonic() + drain_s
        tasks = self._tasks
        for name in tasks.named("open"):
            await tasks.finish(name, deadline_s)
        if not self._busy:
            tasks.cancel("work")
        drained = await tasks.finish("work", deadline_s)
        self._in_flight.put_nowait(None)
        drained &= await tasks.finish("settle", deadline_s)
        self._storing.stop()
        drained &= await tasks.finish("store", deadline_s)
        if not drained:
            log.warning(
                "not drained within %.0f s; what is unacknowledged is processed again by its "
                "next owner",
                drain_s,
            )
        await self._delivering.abandon()
        await tasks.finish("deliver", deadline_s)

        def left_s() -> float:
            return max(deadline_s - time.monotonic(), drain_s / 10)

        if self._partitions.owned:
            revoke = self._processor.revoke(sorted(self._partitions.owned))
            await bounded("storing the state of revoked partitions", revoke, left_s())
        await bounded("the last commit", self._delivering.flush(), left_s())
        self._partitions.owned.clear()
        self._counters.in_flight_batches, self._counters.oldest_in_flight_s = 0, None
        self._counters.lag_records.clear()

    def measure_lag(self) -> None:
        """Count, per partition, what the log holds beyond the last acknowledged event."""
        for tp, mark in self._partitions.marks.items():
            if (end := self._group.end(tp)) is not None:
                self._counters.lag_records[tp] = max(end - mark.position, 0)

    async def _work(self) -> None:
        counters, room = self._counters, self._delivering.room
        while not self._closing.is_set():
            await room.wait()
            taken = self._ahead or self._taken(await self.pickup.take())
            self._ahead = None
            self._busy = True
            counters.batches += 1
            counters.consumed += (records := taken.records)
            counters.waiting_records, counters.waiting_bytes = self.pickup.waiting
            room.take(records)
            self._working = {tp.partition for tp in taken.batch}
            item = await self._attempt(taken)
            self._working = set()
            self._busy = False
            if item is None:
                room.give(records)
                continue
            counters.in_flight_batches += 1
            counters.last_progress_s = time.monotonic()
            self._in_flight.put_nowait(item)

    def _taken(self, batch: Batch) -> _Taken:
        return _Taken(batch, {tp: self._partitions.marks[tp] for tp in self._together(batch)})

    def _take_ahead(self) -> Batch | None:
        """Take the next batch before its turn, if it is a full one: nothing would be added."""
        if self.pickup.waiting[0] < self._settings.batch_records_max or self._closing.is_set():
            return None
        batch = self.pickup.ready()
        self._ahead = self._taken(batch) if batch else None
        return batch or None

    async def _attempt(self, taken: _Taken) -> _InFlight | None:
        """Process and submit a batch, without the partitions that turn out to be fenced."""
        taken_s = time.monotonic()
        batch, marks = taken.batch, taken.marks
        while batch:
            try:
                outcome: Outcome = await self._persist(
                    "processing a batch", self._process, batch, marks
                )
            except FencedError as error:
                named = error.partitions if isinstance(error, PartitionsFenced) else batch
                lost = self._together(named) & set(marks)
                self._partitions.fence(lost, error)
                batch = {tp: records for tp, records in batch.items() if tp not in lost}
                continue
            submitted_s = time.monotonic()
            self.pickup.wanting.set()
            settle = await self._delivering.submit(outcome)
            failpoint("submitted")
            tickets = [
                (tp, marks[tp], marks[tp].take(end)) for tp, end in outcome.positions.items()
            ]
            return _InFlight(taken.records, settle, tickets, taken_s, submitted_s)
        return None

    async def _process(self, batch: Batch, marks: Mapping[TP, Watermark]) -> Outcome:
        """Process what is ours since before it was taken.

        A partition that was lost and taken over between two attempts is read from another offset.
        """

        def is_ours(tp: TP) -> bool:
            return self._partitions.is_held(tp, marks)

        ours = batch if all(map(is_ours, batch)) else {t: r for t, r in batch.items() if is_ours(t)}
        outcome = await self._processor.process(ours, self._take_ahead)
        stale = self._together(tp for tp in batch if not is_ours(tp))
        if not stale:
            return outcome
        return Outcome(
            {tp: found for tp, found in outcome.results.items() if tp not in stale},
            {tp: end for tp, end in outcome.positions.items() if tp not in stale},
        )

    async def _settle(self) -> None:
        """Await acknowledgements in order; let state be stored, and commit up to the watermarks."""
        while True:
            item = await self._in_flight.get()
            if item is None:
                return
            self._counters.oldest_in_flight_s = item.taken_s
            delivered = await self._delivered(item)
            self._counters.publish_s.observe(time.monotonic() - item.submitted_s)
            self._acknowledge(delivered)
            await self._storing.keep_up()
            self._delivering.room.give(item.records)
            self._counters.in_flight_batches -= 1
            self._counters.oldest_in_flight_s = None
            self._counters.last_progress_s = time.monotonic()
            self._take_back()

    async def _delivered(self, item: _InFlight) -> list[tuple[TP, Watermark, int]]:
        """Wait until results are acknowledged; return the tickets of partitions still ours."""
        try:
            await item.settle()
        except PartitionsFenced as error:
            ours = {tp for tp, mark, _ in item.tickets if self._partitions.marks.get(tp) is mark}
            lost = self._together(error.partitions)
            self._partitions.fence(lost & self._together(ours), error)
            return [ticket for ticket in item.tickets if ticket[0] not in lost]
        return item.tickets

    def _acknowledge(self, tickets: Sequence[tuple[TP, Watermark, int]]) -> None:
        advanced: dict[TP, int] = {}
        for tp, mark, ticket in tickets:
            before = mark.position
            if mark.acknowledge(ticket) > before and self._partitions.marks.get(tp) is mark:
                advanced[tp] = mark.position
        if advanced:
            self._processor.acknowledged(advanced)
            self._storing.wake()
            self._delivering.commit(advanced)

    def _take_back(self) -> None:
        self._partitions.take_back(self._working)

    def _lost_while_storing(self, error: FencedError) -> None:
        named = error.partitions if isinstance(error, PartitionsFenced) else self._partitions.owned
        self._partitions.fence(self._together(named), error)

    async def _persist(self, what: str, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        return await persist(
            what,
            lambda: call(*arguments),
            stop=self._closing,
            counters=self._counters,
            delay_min_s=self._settings.retry_delay_min_s,
            delay_max_s=self._settings.retry_delay_max_s,
        )
