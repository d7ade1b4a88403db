"""Faust transport that hands what a fetch brought to the app, at once."""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver

from stream_infer.stream.commits import CommitResult
from stream_infer.stream.fetching import Drawn
from stream_infer.stream.group_consumer import GroupConsumer, faust_log
from stream_infer.stream.merging import AnyPickup
from stream_infer.stream.processing import TP
from stream_infer.stream.settings import StreamSettings

log = logging.getLogger("stream_infer.stream")

POLL_TIMEOUT_S = 1.0
UNREADY_POLL_TIMEOUT_S = 0.02
"""What was fetched of a partition that is not open yet is looked at again so soon."""

WANTING_MAX_S = 0.1
"""What is fetched while work stands still shows how far behind it is."""


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
    def fail(self, error: Exception) -> None: ...


class MicroBatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, but whole fetches instead of records, and offsets kept by the app.

    Faust commits nothing (its topics are not acked): the app commits through `commit_positions`.
    """

    logger = faust_log
    _thread: GroupConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ends: dict[TP, int] = {}
        self._left = asyncio.Event()
        self._failure: Exception | None = None

    def _new_consumer_thread(self) -> GroupConsumer:
        return GroupConsumer(self, loop=self.loop, beacon=self.beacon, taker=self)

    # -- fetching (`accepts` to `wanting`: the `Taker` protocol)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Deliver until told to stop: Faust's own loop creates tasks for each message."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                await asyncio.sleep(0)  # nothing below may have waited
                await self._poll()
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.app.should_stop:
                raise

    def accepts(self, partitions: Collection[TP]) -> bool:
        pickup: AnyPickup | None = self.app.pickup
        return (
            pickup is not None
            and self.flow_active
            and not self.should_stop
            and pickup.has_room
            and pickup.open_partitions.issuperset(partitions)
        )

    def deliver(self, drawn: Sequence[Drawn]) -> None:
        app: Worker = self.app
        try:
            for item in drawn:
                app.deliver(*item)
        except MemoryError as error:  # What was drawn may be lost: nothing may follow it.
            app.fail(error)
        else:
            app.polled()
            self._thread.touch()

    def fetched(self) -> None:
        try:
            waits = self._take()
        except MemoryError as error:  # What was drawn may be lost: nothing may follow it.
            self.app.fail(error)
            return
        except Exception as error:
            self._failure, waits = error, True
        if waits:
            self._left.set()

    async def wanting(self) -> None:
        """Wait until the app could do with more, unless half a micro-batch waits or nothing does.

        The next fetch then brings all that came while the last one's records were worked on, which
        would else wait for the micro-batch after the next. With a backlog, it is fetched ahead.
        """
        pickup: AnyPickup | None = self.app.pickup
        if pickup is None:
            return
        settings: StreamSettings = self.app.stream_settings
        records, size = pickup.waiting
        records_few, bytes_few = settings.batch_records_max / 2, settings.batch_bytes_max / 2
        if not (0 < records < records_few and size < bytes_few):
            return
        pickup.wanting.clear()
        anyway = self.loop.call_later(WANTING_MAX_S, pickup.wanting.set)
        try:
            await pickup.wanting.wait()
        finally:
            anyway.cancel()

    def _take(self) -> bool:
        """Let the app have what was fetched; return whether some of it has to wait."""
        app: Worker = self.app
        pickup = app.pickup
        if pickup is None or self.should_stop or not self.flow_active:
            return True
        records_max = app.stream_settings.batch_records_max
        while pickup.has_room and (drawn := self._thread.draw(pickup.open_partitions, records_max)):
            app.deliver(*drawn)
        app.polled()
        self._thread.touch()
        return self._thread.has_fetched

    async def _poll(self) -> None:
        """Deliver what had to wait: for room, for its partition's turn, for the flow."""
        app: Any = self.app
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
            return
        pickup: AnyPickup | None = app.pickup
        if pickup is None:
            await self._pause(self.suspend_flow.wait(), UNREADY_POLL_TIMEOUT_S)
            return
        if not pickup.has_room:
            await self._pause(pickup.room(), POLL_TIMEOUT_S)
            if not pickup.has_room:
                app.measure_lag()
                if app.is_retrying():
                    self._thread.touch()
                return
        self._left.clear()
        try:
            self._raise_failure()
            waits = self._take()
        except (*self.consumer_stopped_errors, MemoryError):
            raise
        except Exception as error:  # it must not end the app; Faust would
            app.counters.retries += 1
            log.warning("fetching failed: %r; trying again", error)
            await self._pause(self.suspend_flow.wait(), app.stream_settings.retry_delay_min_s)
            return
        await self._pause(self._left.wait(), UNREADY_POLL_TIMEOUT_S if waits else POLL_TIMEOUT_S)

    def _raise_failure(self) -> None:
        """Raise what a fetch, or handing over what it brought, has failed with."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        self._thread.check()

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

    def close(self) -> None:
        """Leave closing to the consumer's own service."""

    # -- what the app asks (the `Group` protocol)

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, int | None]:
        consumer = self._thread._ensure_consumer()
        found: dict[TP, int | None] = {}
        for tp in partitions:
            asked = TopicPartition(*tp)
            found[tp] = await self._thread.ask(partial(consumer.committed, asked))
        return found

    async def bounds(self, partitions: Sequence[TP]) -> Mapping[TP, tuple[int, int]]:
        consumer = self._thread._ensure_consumer()
        wanted = [TopicPartition(*tp) for tp in partitions]
        first = await self._thread.ask(lambda: consumer.beginning_offsets(wanted))
        end = await self._thread.ask(lambda: consumer.end_offsets(wanted))
        self._ends.update((TP(*tp), end[tp]) for tp in wanted)
        return {TP(*tp): (first[tp], end[tp]) for tp in wanted}

    async def seek_positions(self, positions: Mapping[TP, int]) -> None:
        self._thread.seek_to(positions)
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
                await self._thread.ask(lambda: consumer.commit(offsets))
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
