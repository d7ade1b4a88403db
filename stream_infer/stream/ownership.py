"""One assignment of partitions, from its beginning to its revocation: the loop of a topology."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from stream_infer.core.errors import FencedError
from stream_infer.failpoints import failpoint
from stream_infer.stream.commits import Committer
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.group import Group, readable_position
from stream_infer.stream.parcels import Delivery
from stream_infer.stream.pickup import Batch, Pickup
from stream_infer.stream.processing import TP, Outcome, OutgoingRecord, PartitionsFenced, Processor
from stream_infer.stream.producer import ResultProducer
from stream_infer.stream.retry import GaveUp, persist, wait_for_event
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.watermark import Watermark

T = TypeVar("T")
log = logging.getLogger("stream_infer.stream")


@dataclass(slots=True, frozen=True)
class _InFlight:
    delivery: Delivery
    tickets: list[tuple[TP, Watermark, int]]
    taken_s: float


class Ownership:
    """Pickup → process → produce → acknowledged → commit, for the partitions of one assignment.

    What fails is tried again until it succeeds or the partitions are revoked; `failed` hears of
    defects only.
    """

    def __init__(
        self,
        partitions: Sequence[TP],
        *,
        processor: Processor,
        producer: ResultProducer,
        group: Group,
        settings: StreamSettings,
        counters: StreamCounters,
        failed: Callable[[Exception], None],
    ) -> None:
        self.partitions = sorted(partitions)
        self.pickup = Pickup(
            batch_records_max=settings.batch_records_max,
            batch_bytes_max=settings.batch_bytes_max,
            waiting_records_max=settings.waiting_records_max,
            waiting_bytes_max=settings.waiting_bytes_max,
        )
        self._processor = processor
        self._producer = producer
        self._group = group
        self._settings = settings
        self._counters = counters
        self._failed = failed
        self._closing = asyncio.Event()
        self._watermarks: dict[TP, Watermark] = {}
        self._owned: set[TP] = set()
        self._slots = asyncio.Semaphore(settings.in_flight_batches_max)
        self._in_flight: asyncio.Queue[_InFlight | None] = asyncio.Queue()
        self._busy = False
        self._committer = Committer(group.commit_positions, settings.commit_interval_s, counters)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Open the partitions in the background and start to work."""
        for name, work in (
            ("open", self._open(self.partitions)),
            ("work", self._work()),
            ("settle", self._settle()),
            ("commit", self._committer.run()),
        ):
            self._run(name, work)

    async def close(self) -> None:
        """Drain within the drain timeout, let the processor store the rest, commit, forget.

        What waits is dropped (the next owner reads it again); what is in flight is finished.
        """
        self._counters.ready = False
        self._closing.set()
        self.pickup.close(self.partitions)
        deadline_s = time.monotonic() + self._settings.drain_timeout_s
        for name in [name for name in self._tasks if name.startswith("open")]:
            await self._finish(name, deadline_s)
        if not self._busy:
            self._tasks["work"].cancel()
        drained = await self._finish("work", deadline_s)
        self._in_flight.put_nowait(None)
        drained &= await self._finish("settle", deadline_s)
        if not drained:
            log.warning(
                "not drained within %.0f s; what is unacknowledged is processed again by its "
                "next owner",
                self._settings.drain_timeout_s,
            )
        await self._producer.abandon()
        self._committer.stop()
        await self._finish("commit", deadline_s)
        if self._owned:
            revoke = self._processor.revoke(sorted(self._owned))
            await self._bounded("storing the state of revoked partitions", revoke, deadline_s)
        await self._bounded("the last commit", self._committer.flush(), deadline_s)
        self._owned.clear()
        self._counters.in_flight_batches = 0
        self._counters.oldest_in_flight_s = None
        self._counters.lag_records.clear()

    def measure_lag(self) -> None:
        """Count, per partition, what the log holds beyond the last acknowledged event."""
        for tp, mark in self._watermarks.items():
            if (end := self._group.end(tp)) is not None:
                self._counters.lag_records[tp] = max(end - mark.position, 0)

    async def _open(self, partitions: Sequence[TP]) -> None:
        """Take ownership, seek, accept records."""
        committed = await self._persist(
            "reading committed offsets", self._group.committed, partitions
        )

        stored: dict[TP, int] = {}

        async def assign() -> Mapping[TP, int]:
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
                self._owned.update(partitions)
            except FencedError as error:
                await self._await_reassignment(error)
                continue
            await self._persist("seeking", self._group.seek_positions, positions)
            if self._closing.is_set():
                return
            for tp in partitions:
                self._watermarks[tp] = Watermark(positions[tp])
                self.pickup.open(tp, positions[tp])
                # Stored, thus acknowledged, but not committed by whoever died in between: without
                # a further event nobody would.
                if (committed.get(tp) or 0) < stored.get(tp, 0):
                    self._committer.note({tp: stored[tp]})
            log.info(
                "reading %s",
                ", ".join(f"{tp.topic}/{tp.partition} from {positions[tp]}" for tp in partitions),
            )
            self._counters.ready = True
            return

    async def _work(self) -> None:
        counters = self._counters
        while not self._closing.is_set():
            await self._slots.acquire()
            batch = await self.pickup.take()
            self._busy = True
            counters.batches += 1
            counters.consumed += sum(map(len, batch.values()))
            counters.waiting_records, counters.waiting_bytes = self.pickup.waiting
            item = await self._attempt(batch)
            self._busy = False
            if item is None:
                self._slots.release()
                continue
            counters.in_flight_batches += 1
            counters.last_progress_s = time.monotonic()
            self._in_flight.put_nowait(item)

    async def _attempt(self, batch: Batch) -> _InFlight | None:
        """Process and submit a batch, without the partitions that turn out to be fenced."""
        taken_s = time.monotonic()
        marks = {tp: self._watermarks[tp] for tp in batch}
        while batch:
            try:
                outcome: Outcome = await self._persist(
                    "processing a batch", self._process, batch, marks
                )
            except FencedError as error:
                lost = set(error.partitions if isinstance(error, PartitionsFenced) else batch)
                self._fence(lost & set(batch), error)
                batch = {tp: records for tp, records in batch.items() if tp not in lost}
                continue
            delivery = await self._producer.submit(outcome.records)
            failpoint("submitted")
            tickets = []
            for tp, position in outcome.positions.items():
                tickets.append((tp, marks[tp], marks[tp].take(position)))
            return _InFlight(delivery, tickets, taken_s)
        return None

    async def _process(self, batch: Batch, marks: Mapping[TP, Watermark]) -> Outcome:
        """Process what is ours since before it was taken.

        A partition that was lost and taken over between two attempts is read from another offset.
        """
        ours = {tp: rows for tp, rows in batch.items() if self._watermarks.get(tp) is marks[tp]}
        return await self._processor.process(ours)

    async def _settle(self) -> None:
        """Await acknowledgements in order; store and commit up to the watermarks."""
        while True:
            item = await self._next_in_flight()
            if item is None:
                return
            self._counters.oldest_in_flight_s = item.taken_s
            await self._deliver(item.delivery)
            await self._acknowledge(item)
            self._slots.release()
            self._counters.in_flight_batches -= 1
            self._counters.oldest_in_flight_s = None
            self._counters.last_progress_s = time.monotonic()

    async def _next_in_flight(self) -> _InFlight | None:
        """Return the next batch; let the processor write pending state while there is none."""
        while True:
            try:
                async with asyncio.timeout(self._settings.flush_interval_s):
                    return await self._in_flight.get()
            except TimeoutError:
                pass
            try:
                await self._persist("storing pending state", self._processor.idle)
            except FencedError as error:
                lost = error.partitions if isinstance(error, PartitionsFenced) else self._owned
                self._fence(set(lost), error)
            except GaveUp:
                continue  # closing: what remains is stored on revocation

    async def _deliver(self, delivery: Delivery) -> None:
        refused = await self._producer.settle(delivery)
        for attempt in (1, 2):
            if not refused:
                return
            replacements: list[OutgoingRecord] = []
            for error in refused:
                log.error("%s", error)
                if attempt == 1:
                    replacements.extend(self._processor.refused(error.record, error))
            refused = await self._producer.settle(await self._producer.submit(replacements))

    async def _acknowledge(self, item: _InFlight) -> None:
        advanced: dict[TP, int] = {}
        for tp, mark, ticket in item.tickets:
            before = mark.position
            if mark.acknowledge(ticket) > before and self._watermarks.get(tp) is mark:
                advanced[tp] = mark.position
        while advanced:
            try:
                await self._persist("storing state", self._processor.acknowledged, advanced)
            except FencedError as error:
                lost = set(error.partitions if isinstance(error, PartitionsFenced) else advanced)
                self._fence(lost & set(advanced), error)
                advanced = {tp: offset for tp, offset in advanced.items() if tp not in lost}
                continue
            self._committer.note(advanced)
            return

    def _fence(self, partitions: set[TP], error: FencedError) -> None:
        """Drop the work of partitions that another worker took; take them again if still ours."""
        partitions = partitions & set(self.partitions)
        if not partitions:
            return  # What is left of an earlier assignment is not ours to take again.
        self._counters.fenced += len(partitions)
        names = ", ".join(f"{topic}/{number}" for topic, number in sorted(partitions))
        log.warning("lost %s: %s", names, error)
        self.pickup.close(sorted(partitions))
        for tp in partitions:
            self._watermarks.pop(tp, None)
        self._owned -= partitions
        if not self._closing.is_set():
            reopening = self._reopen(sorted(partitions), error)
            self._run(f"open again {names}", reopening)

    async def _reopen(self, partitions: Sequence[TP], error: FencedError) -> None:
        await self._await_reassignment(error)
        if not self._closing.is_set():
            await self._open(partitions)

    async def _await_reassignment(self, error: FencedError) -> None:
        """Give the group a session's time to take the partitions away, if we are late."""
        if isinstance(error, PartitionsFenced) and not error.reassigned:
            return
        log.debug("waiting for a rebalance after %r", error)
        await wait_for_event(self._closing, self._settings.session_timeout_s)

    async def _persist(self, what: str, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        return await persist(
            what,
            lambda: call(*arguments),
            stop=self._closing,
            counters=self._counters,
            delay_min_s=self._settings.retry_delay_min_s,
            delay_max_s=self._settings.retry_delay_max_s,
        )

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(self._guarded(name, work), name=f"stream-{name}")

    async def _guarded(self, name: str, work: Awaitable[None]) -> None:
        """Report what no retry covers: a defect, after which work would stand still unnoticed."""
        try:
            await work
        except GaveUp:
            log.debug("%s: gave up, as partitions are given back", name)
        except Exception as error:
            log.exception("the %s loop ended by a defect", name)
            self._failed(error)

    async def _finish(self, name: str, deadline_s: float) -> bool:
        """Let a task end by the deadline, else cancel it; return whether it ended by itself."""
        task = self._tasks[name]
        await asyncio.wait([task], timeout=max(deadline_s - time.monotonic(), 0.0))
        if task.done():
            return True
        task.cancel()
        await asyncio.wait([task])
        return False

    async def _bounded(self, what: str, call: Awaitable[object], deadline_s: float) -> None:
        """Await one last step until the deadline, or a tenth of the drain timeout."""
        least_s = self._settings.drain_timeout_s / 10
        try:
            async with asyncio.timeout(max(deadline_s - time.monotonic(), least_s)):
                await call
        except TimeoutError:
            log.warning("%s did not end in time", what)
        except FencedError as error:
            log.info("%s: %s", what, error)
        except Exception as error:
            log.warning("%s failed: %r", what, error)
