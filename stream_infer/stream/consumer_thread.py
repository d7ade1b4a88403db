"""The thread that runs aiokafka's consumer for Faust."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver

from stream_infer.stream.membership import MembershipLost, watch_membership
from stream_infer.stream.processing import TP
from stream_infer.stream.retry import GaveUp, persist
from stream_infer.stream.settings import StreamSettings

T = TypeVar("T")
log = logging.getLogger("stream_infer.stream")
faust_log = logging.getLogger("faust.transport")


ENDED = "the consumer's thread has ended"


class Drawn(NamedTuple):
    """All records of a partition from `start` up to `end`: offsets in between may have none."""

    records: list[Any]
    start: int
    end: int


class _Unwrapped(OrderedDict[Any, Any]):
    """What a fetcher has fetched, by partition; its records stay unwrapped."""

    def __setitem__(self, tp: Any, result: Any) -> None:
        if isinstance(result, FetchResult):
            result._partition_records._consumer_record = _as_decoded
        super().__setitem__(tp, result)


def _as_decoded(tp: Any, record: Any) -> Any:
    return record


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Runs aiokafka's consumer: connects patiently, with our fetch and session settings.

    `drawn_to` says, by partition, where what was taken of it ends, whoever has got it.
    """

    logger = faust_log

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drawn_to: dict[TP, int] = {}
        self._asked: set[Future[Any]] = set()
        self._ended = False

    async def on_start(self) -> None:
        """Connect, one clear line for each failure, until Kafka answers or the app stops."""
        settings = self.app.stream_settings
        stop = asyncio.Event()
        waiting = asyncio.ensure_future(self._stopped.wait())
        waiting.add_done_callback(lambda _: stop.set())
        self.time_started = time.monotonic()
        try:
            await persist(
                f"consuming from Kafka at {','.join(settings.bootstrap)}",
                self._connect,
                stop=stop,
                counters=self.app.counters,
                delay_min_s=settings.retry_delay_min_s,
                delay_max_s=settings.retry_delay_max_s,
            )
        except GaveUp:
            log.info("stopped before Kafka was reachable")
        finally:
            waiting.cancel()

    async def _connect(self) -> None:
        settings: StreamSettings = self.app.stream_settings
        consumer = self._create_consumer(loop=self.thread_loop)
        try:
            await consumer.start()
        except BaseException:
            with contextlib.suppress(Exception):
                await consumer.stop()
            raise
        # Each record as decoded: aiokafka's own wrapping costs as much as decoding it.
        consumer._fetcher._records = _Unwrapped(consumer._fetcher._records)
        watch_membership(
            consumer._coordinator, settings.member_id, settings.session_timeout_s, self._lost
        )
        self._consumer = consumer

    async def stop(self) -> None:
        """Stop the thread, or find that it has ended already and closed its loop."""
        try:
            await super().stop()
        except RuntimeError:
            if not self.thread_loop.is_closed():
                raise

    def _lost(self, error: MembershipLost) -> None:
        """Tell the app, in its own loop."""
        self.app.loop.call_soon_threadsafe(self.app.fail, error)

    def _create_worker_consumer(self, transport: Any) -> Any:
        settings: StreamSettings = self.app.stream_settings
        return AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap,
            client_id=self.app.conf.broker_client_id,
            group_id=self.app.conf.id,
            group_instance_id=settings.member_id,
            # By range, so that partition n of all topics of a topology has one owner.
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            isolation_level=(
                "read_committed" if settings.delivery == "exactly_once" else "read_uncommitted"
            ),
            auto_offset_reset=settings.offset_reset,
            max_poll_records=settings.batch_records_max,
            max_poll_interval_ms=int(settings.poll_interval_max_s * 1000),
            max_partition_fetch_bytes=settings.fetch_partition_bytes_max,
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            fetch_min_bytes=settings.fetch_min_bytes,
            request_timeout_ms=int(settings.request_timeout_s * 1000),
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.heartbeat_interval_s * 1000),
            rebalance_timeout_ms=int(settings.rebalance_timeout_s * 1000),
        )

    async def run_inside(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in this thread's loop from the worker's loop.

        Raises ConsumerStoppedError where the thread has ended or ends meanwhile, as it does by
        itself when the app fails: whoever asked is not cancelled by that.
        """
        if self._ended:
            raise ConsumerStoppedError(ENDED)
        work = call()
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.thread_loop)
        except RuntimeError:  # the loop was closed since the look above
            work.close()
            raise ConsumerStoppedError(ENDED) from None
        self._asked.add(future)
        if self._ended:  # since then: the thread may not have seen this one
            future.cancel()
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            work.close()  # it may never have begun
            raise ConsumerStoppedError(ENDED) from None
        finally:
            self._asked.discard(future)

    def _start_thread(self) -> None:
        """Run the thread's loop to its end; then nothing that was asked may wait for it."""
        try:
            super()._start_thread()
        finally:
            self._ended = True
            for future in tuple(self._asked):
                future.cancel()

    def pace(self, min_bytes: int, max_wait_ms: int) -> None:
        """Set how long the broker may gather records for a fetch, from the next fetch on."""
        fetcher = self._ensure_consumer()._fetcher
        fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = min_bytes, max_wait_ms

    def touch(self) -> None:
        """Tell the group that the worker lives although it does not fetch now."""
        subscriptions = self._ensure_consumer()._subscription

        def fetch_nothing() -> None:
            with subscriptions.fetch_context():
                pass

        self.thread_loop.call_soon_threadsafe(fetch_nothing)

    async def seek(self, positions: Mapping[TP, int]) -> None:
        """Let the next records of partitions be those from an offset on."""
        consumer = self._ensure_consumer()

        async def seek() -> None:
            for tp, offset in positions.items():
                consumer.seek(TopicPartition(*tp), offset)
                self.drawn_to[tp] = offset

        await self.run_inside(seek)

    async def fetch(
        self, partitions: set[TP], timeout_s: float, records_max: int
    ) -> dict[TP, Drawn]:
        """Return what is there by partition; nothing once the timeout is over."""
        consumer = self._ensure_consumer()

        async def draw() -> dict[TP, Drawn]:
            found: dict[Any, list[Any]] = await self._fetch_records(
                consumer, partitions, timeout=timeout_s, max_records=records_max
            )
            drawn: dict[TP, Drawn] = {}
            assignment = consumer._subscription.subscription.assignment
            for where, records in found.items():
                if records:
                    tp = TP(where.topic, where.partition)
                    start = self.drawn_to.get(tp, records[0].offset)
                    end = max(assignment.state_value(where).position, records[-1].offset + 1)
                    self.drawn_to[tp] = end
                    drawn[tp] = Drawn(records, start, end)
            return drawn

        return await self.run_inside(draw)
