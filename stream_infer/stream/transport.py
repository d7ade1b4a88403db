"""Faust transport that hands what a fetch brought to the app, at once."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol, TypeVar

from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver

from stream_infer.stream.commits import CommitResult
from stream_infer.stream.consumer_thread import ConsumerThread, Drawn, faust_log
from stream_infer.stream.merging import AnyPickup
from stream_infer.stream.pacing import Pacer
from stream_infer.stream.processing import TP
from stream_infer.stream.settings import StreamSettings

T = TypeVar("T")
log = logging.getLogger("stream_infer.stream")

POLL_TIMEOUT_S = 1.0
UNREADY_POLL_TIMEOUT_S = 0.02
"""A poll that leaves out partitions must end soon after they have become readable."""


class Worker(Protocol):
    """What the transport asks of the app: who takes the records, and the turns of a rebalance."""

    stream_settings: StreamSettings

    @property
    def pickup(self) -> AnyPickup | None: ...
    def is_retrying(self) -> bool: ...
    def polled(self) -> None: ...
    def measure_lag(self) -> None: ...
    def deliver(self, tp: TP, records: Sequence[Any], end: int) -> None: ...
    def begin(self, partitions: Sequence[TP]) -> None: ...
    async def drain(self) -> None: ...


class MicroBatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, but whole fetches instead of records, and offsets kept by the app.

    Faust commits nothing (its topics are not acked): the app commits through `commit_positions`.
    """

    logger = faust_log
    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings: StreamSettings = self.app.stream_settings
        self._pacer = Pacer(settings, time.monotonic())
        self._ends: dict[TP, int] = {}

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- fetching

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and deliver until told to stop: Faust's own loop creates tasks for each message."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                await asyncio.sleep(0)  # a fetch may end without having waited
                await self._fetch()
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.app.should_stop:
                raise

    async def _fetch(self) -> None:
        """Let the app have what one fetch brings, with the checks of Faust's `getmany`."""
        app: Any = self.app
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
            return
        pickup: AnyPickup | None = app.pickup
        active = await self._fetchable(pickup)
        if pickup is None or not active:
            return
        complete = len(active) >= len(self._get_active_partitions())
        self.not_waiting_next_records.clear()
        try:
            fetched = await self._thread.fetch(
                active,
                POLL_TIMEOUT_S if complete else UNREADY_POLL_TIMEOUT_S,
                app.stream_settings.batch_records_max,
            )
        except self.consumer_stopped_errors:
            raise
        except Exception as error:  # it must not end the app; Faust would
            app.counters.retries += 1
            log.warning("fetching failed: %r; trying again", error)
            await self._pause(self.suspend_flow.wait(), app.stream_settings.retry_delay_min_s)
            return
        finally:
            self.not_waiting_next_records.set()
        app.polled()
        if self.should_stop:
            return
        count = self._deliver(fetched)
        await self._fetch_again()
        if self._pacer.fetched(count, time.monotonic()):
            self._thread.pace(self._pacer.min_bytes, self._pacer.max_wait_ms)

    def _deliver(self, fetched: Mapping[TP, Drawn]) -> int:
        """Let the app have what joins what it has; return the number of records."""
        app: Worker = self.app
        positions = app.pickup.positions if app.pickup is not None else {}
        count = 0
        for tp, drawn in fetched.items():
            # What is closed is sought again by whoever opens it.
            if tp in positions and drawn.start <= positions[tp]:
                count += len(drawn.records)
                app.deliver(tp, drawn.records, drawn.end)
        return count

    async def _fetch_again(self) -> None:
        """Seek what the consumer has passed and nobody has got.

        A call that a rebalance overtakes may still draw records of the next assignment.
        """
        app: Worker = self.app
        positions = app.pickup.positions if app.pickup is not None else {}
        drawn_to = self._thread.drawn_to
        missed = {tp: at for tp, at in positions.items() if drawn_to.get(tp, at) > at}
        if missed:
            log.info("reading again %s", ", ".join(f"{t}/{p}" for t, p in sorted(missed)))
            with contextlib.suppress(IllegalStateError):  # revoked meanwhile: not ours to read
                await self._thread.seek(missed)

    async def _fetchable(self, pickup: AnyPickup | None) -> set[TP]:
        """Wait for room and for something to read; return what may be fetched, perhaps nothing."""
        app: Any = self.app
        if pickup is None:
            await self._pause(self.suspend_flow.wait(), UNREADY_POLL_TIMEOUT_S)
            return set()
        if not pickup.has_room:
            await self._pause(pickup.room(), POLL_TIMEOUT_S)
            if not pickup.has_room:
                app.measure_lag()
                if app.is_retrying():
                    self._thread.touch()
                return set()
        active = self._get_active_partitions() & pickup.open_partitions
        if not active:
            await self._pause(self.suspend_flow.wait(), UNREADY_POLL_TIMEOUT_S)
        return {TP(*tp) for tp in active}

    async def _pause(self, until: Coroutine[Any, Any, object], timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.wait_first(until, self.suspend_flow.wait())

    def track_message(self, message: Any) -> None:
        """Track nothing: what is in flight is the app's to know."""

    # -- rebalance: Faust calls these with the flow stopped

    async def perform_seek(self) -> None:
        """Let the app take over its partitions and seek; it retries, here nothing may fail."""
        self._read_offset.clear()
        self.app.begin([TP(*tp) for tp in self.assignment()])

    async def wait_empty(self) -> None:
        """Drain, store, commit: called before partitions are given away, and on stop."""
        await self.app.drain()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit nothing: Faust has no offsets of ours."""
        return False

    async def verify_all_partitions_active(self) -> None:
        """Skip Faust's livelock detector, which compares different clocks."""

    def close_unstarted(self) -> None:
        """Close the loop of a thread that was never started: nobody else will."""
        if not self._thread._thread_started.is_set():
            self._thread.thread_loop.close()

    def close(self) -> None:
        """Leave closing to the thread that runs the consumer."""

    # -- what the app asks (the `Group` protocol)

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, int | None]:
        consumer = self._thread._ensure_consumer()
        found: dict[TP, int | None] = {}
        for tp in partitions:
            asked = TopicPartition(*tp)
            found[tp] = await self._thread.run_inside(partial(consumer.committed, asked))
        return found

    async def bounds(self, partitions: Sequence[TP]) -> Mapping[TP, tuple[int, int]]:
        consumer = self._thread._ensure_consumer()
        wanted = [TopicPartition(*tp) for tp in partitions]
        first = await self._thread.run_inside(lambda: consumer.beginning_offsets(wanted))
        end = await self._thread.run_inside(lambda: consumer.end_offsets(wanted))
        self._ends.update((TP(*tp), end[tp]) for tp in wanted)
        return {TP(*tp): (first[tp], end[tp]) for tp in wanted}

    async def seek_positions(self, positions: Mapping[TP, int]) -> None:
        await self._thread.seek(positions)
        for tp in positions:
            self._read_offset.pop(tp, None)

    def end(self, tp: TP) -> int | None:
        """Return the highest end that was heard, None where `bounds` never asked for one.

        A fetch may have told an older end than `bounds`, and the consumer tells none while the
        partition is being given away: what was heard before still holds.
        """
        asked, fetched = self._ends.get(tp), None
        with contextlib.suppress(Exception):
            fetched = self._thread._ensure_consumer().highwater(TopicPartition(*tp))
        return max((end for end in (asked, fetched) if end is not None), default=None)

    async def commit_positions(self, positions: Mapping[TP, int]) -> CommitResult:
        """Commit; raises what went wrong, other than a rebalance that came first."""
        consumer = self._thread._ensure_consumer()
        owned = self.assignment()
        offsets = {
            TopicPartition(*tp): OffsetAndMetadata(offset, "")
            for tp, offset in positions.items()
            if tp in owned
        }
        if not offsets:
            return CommitResult.REBALANCED
        settings: StreamSettings = self.app.stream_settings
        try:
            async with asyncio.timeout(settings.request_timeout_s):
                await self._thread.run_inside(lambda: consumer.commit(offsets))
        except (CommitFailedError, IllegalStateError):
            return CommitResult.REBALANCED
        except ConsumerStoppedError:
            return CommitResult.ENDED
        return CommitResult.DONE


class ResultlessProducer(driver.Producer):  # type: ignore[misc]
    """Faust's producer, for `app.send` in a user's code; results go through `ResultProducer`."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "enable_idempotence": True}


class MicroBatchTransport(driver.Transport):  # type: ignore[misc]
    """The transport `stream-infer://`; `build_app` sets it without the entry point, too."""

    Consumer: ClassVar[type[MicroBatchConsumer]] = MicroBatchConsumer
    Producer: ClassVar[type[ResultlessProducer]] = ResultlessProducer
