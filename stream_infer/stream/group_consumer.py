"""aiokafka's consumer for Faust, in the worker's own loop.

Faust would run it in a thread of its own. Each fetch then crosses from thread to thread three times
and waits for the interpreter's lock each time: longer than a small micro-batch takes.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Set
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchError, FetchResult
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver

from stream_infer.stream.fetching import Drawn, Fetching, Taker
from stream_infer.stream.kafka_tasks import watch_consumer
from stream_infer.stream.membership import watch_membership
from stream_infer.stream.processing import TP
from stream_infer.stream.record_batches import by_batch, taken
from stream_infer.stream.retry import GaveUp, persist
from stream_infer.stream.settings import StreamSettings

T = TypeVar("T")
log = logging.getLogger("stream_infer.stream")
faust_log = logging.getLogger("faust.transport")


ENDED = "the consumer has ended"


class _ByBatch(OrderedDict[Any, Any]):
    """What a fetcher has fetched, by partition, a record batch at a time."""

    def __setitem__(self, tp: Any, result: Any) -> None:
        if isinstance(result, FetchResult):
            by_batch(result)
        super().__setitem__(tp, result)


class _InLoop:
    """In the place of Faust's thread: runs the consumer's service as a task of the same loop."""

    def __init__(self, consumer: "GroupConsumer") -> None:
        self._consumer = consumer

    def start(self) -> None:
        serving = self._consumer.parent_loop.create_task(self._consumer.serve())
        # What it failed with has ended the app already.
        serving.add_done_callback(lambda task: task.cancelled() or task.exception())

    def stop(self) -> None:
        """Wait for nothing: the service's own stop has waited for its end."""


class GroupConsumer(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Runs aiokafka's consumer: connects patiently, with our fetch and session settings.

    `taker` has what is fetched; what it does not accept, it draws later.
    """

    logger = faust_log
    Worker = _InLoop

    def __init__(self, *args: Any, taker: Taker, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, thread_loop=asyncio.get_event_loop())
        self._taker = taker
        self._asked: set[asyncio.Future[Any]] = set()
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
        self._listen(consumer._fetcher)
        watch_membership(
            consumer._coordinator, settings.member_id, settings.session_timeout_s, self.app.fail
        )
        watch_consumer(consumer, self.app.fail)
        self._consumer = consumer

    def _listen(self, fetcher: Fetcher) -> None:
        """Have what is fetched handed over, a record batch at a time."""
        fetcher._records = _ByBatch(fetcher._records)
        fetcher._proc_fetch_request = Fetching(fetcher, self._taker).run

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

    async def serve(self) -> None:
        """Consume until stopped; then nothing that was asked may wait for it."""
        try:
            await self._serve()
        finally:
            self._ended = True
            for future in tuple(self._asked):
                future.cancel()

    async def on_thread_stop(self) -> None:
        """Close the consumer, also where one of its own tasks has ended by an error."""
        try:
            await super().on_thread_stop()
        except Exception as error:  # That error, which was told when it came.
            log.debug("closing the consumer: %r", error)
            await self._consumer._client.close()

    async def _gather_remaining_tasks(self) -> None:
        """Leave the loop's tasks alone: they are not the consumer's."""

    async def ask(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await what the consumer is asked.

        Raises ConsumerStoppedError where the consumer has ended or ends meanwhile, as it does by
        itself when the app fails: whoever asked is not cancelled by that.
        """
        if self._ended:
            raise ConsumerStoppedError(ENDED)
        future = asyncio.ensure_future(call())
        self._asked.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ConsumerStoppedError(ENDED) from None
        finally:
            self._asked.discard(future)

    def touch(self) -> None:
        """Tell the group that the worker lives, whether or not it draws anything now."""
        with self._ensure_consumer()._subscription.fetch_context():
            pass

    def seek_to(self, positions: Mapping[TP, int]) -> None:
        """Let the next records of partitions be those from an offset on."""
        consumer = self._ensure_consumer()
        for tp, offset in positions.items():
            consumer.seek(TopicPartition(*tp), offset)

    @property
    def has_fetched(self) -> bool:
        """Whether something that was fetched was not drawn yet."""
        return bool(self._ensure_consumer()._fetcher._records)

    def draw(self, partitions: Set[TP], records_max: int) -> Drawn | None:
        """Take what was fetched of one of these partitions; None where there is nothing.

        That is whole record batches: the last one may go beyond `records_max`.
        """
        consumer = self._ensure_consumer()
        fetcher, subscriptions = consumer._fetcher, consumer._subscription
        if consumer._closed or subscriptions.reassignment_in_progress:
            return None
        for where, fetched in list(fetcher._records.items()):
            tp = TP(where.topic, where.partition)
            if not subscriptions.is_assigned(where):
                self._forget(fetcher, where)
            elif tp in partitions and isinstance(fetched, FetchResult):
                records = taken(fetched, records_max)
                if not fetched.has_more():
                    self._forget(fetcher, where)
                if records:
                    position = subscriptions.subscription.assignment.state_value(where).position
                    return Drawn(tp, records, max(position, records[-1].offset + 1))
        return None

    def check(self) -> None:
        """Raise what a fetch has failed with, once."""
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError(ENDED)
        for where, fetched in list(fetcher._records.items()):
            if isinstance(fetched, FetchError):
                self._forget(fetcher, where)
                fetched.check_raise()

    @staticmethod
    def _forget(fetcher: Any, where: TopicPartition) -> None:
        """Let a partition be fetched again."""
        fetcher._records.pop(where, None)
        fetcher._notify(fetcher._wait_consume_future)
