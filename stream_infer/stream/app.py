"""A real Faust app around a processor: one agent, micro-batches, offsets of our own."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import faust
from faust.app.base import BootStrategy
from faust.tables import TableManager
from yarl import URL

from stream_infer.core.errors import DeclarationError, StreamInferError
from stream_infer.stream.at_least_once import SharedProducer
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.delivering import Outlet
from stream_infer.stream.ending import end_without_memory
from stream_infer.stream.exactly_once import TransactionalOutlet
from stream_infer.stream.merging import AnyPickup, Merging
from stream_infer.stream.ownership import Ownership
from stream_infer.stream.processing import TP, Processor
from stream_infer.stream.retry import persist
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.topics import TopicSpec, create_topics, message_bytes_max
from stream_infer.stream.transport import MicroBatchConsumer, MicroBatchTransport

log = logging.getLogger("stream_infer.stream")
LAG_INTERVAL_S = 0.1

faust_log = logging.getLogger("faust")

ProcessorFactory = Callable[[Mapping[str, int]], Awaitable[Processor] | Processor]
"""Makes the processor, given the partition count of every topic; called once, when the app starts.

An error of the project's own ends the start with its message; any other is tried again.
"""


class NoTables(TableManager):  # type: ignore[misc]
    """Faust's table manager for an app without tables: nothing to wait for."""

    logger = faust_log

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class WithoutProducer(BootStrategy):  # type: ignore[misc]
    """Starts no producer of Faust's own: results have theirs."""

    enable_kafka_producer = False


class StreamApp(faust.App):  # type: ignore[misc]
    """A Faust app; an `Ownership` works on its partitions from assignment to revocation."""

    BootStrategy: ClassVar[type[BootStrategy]] = WithoutProducer
    logger = faust_log

    def __init__(
        self,
        name: str,
        *,
        source_topics: Sequence[TopicSpec],
        other_topics: Sequence[TopicSpec],
        processor_factory: ProcessorFactory,
        stream_settings: StreamSettings,
        counters: StreamCounters,
        on_close: Callable[[], Awaitable[None]] | None,
        merging: Merging | None = None,
        **options: Any,
    ) -> None:
        self.stream_settings = stream_settings
        self.counters = counters
        self.source_topics = source_topics
        self.other_topics = other_topics
        self.partition_counts: Mapping[str, int] = {}
        self.processor: Processor | None = None
        self._processor_factory = processor_factory
        self._on_close = on_close
        self._merging = merging
        self._ownership: Ownership | None = None
        self._outlet: Outlet | None = None
        self._stop_connecting = asyncio.Event()
        self._draining = asyncio.Lock()
        self._lag_measured_s = 0.0
        self._gave_back_s: float | None = None
        self.ready = asyncio.Event()
        """Set once partitions (possibly none) were assigned for the first time."""
        super().__init__(name, **options)

    # -- life

    def _new_transport(self) -> MicroBatchTransport:
        urls = [URL(f"kafka://{address}") for address in self.stream_settings.bootstrap]
        return MicroBatchTransport(urls, self)

    async def on_first_start(self) -> None:
        """Leave out Faust's data directories: nothing is kept in files."""

    async def on_start(self) -> None:
        """Reach Kafka, make and check topics, make the processor."""
        await super().on_start()
        watching = asyncio.ensure_future(self._stopped.wait())
        watching.add_done_callback(lambda _: self._stop_connecting.set())
        try:
            await self._prepare()
        finally:
            watching.cancel()

    async def _prepare(self) -> None:
        settings = self.stream_settings
        broker = ",".join(settings.bootstrap)
        refusal: list[StreamInferError] = []

        async def prepare_topics() -> None:
            topics = [*self.source_topics, *self.other_topics]
            try:
                self.partition_counts = await create_topics(
                    settings.bootstrap, topics, partitions_default=settings.topic_partitions
                )
            except DeclarationError as error:
                refusal.append(error)

        async def make_processor() -> None:
            try:
                made = self._processor_factory(self.partition_counts)
                self.processor = await made if isinstance(made, Awaitable) else made
            except StreamInferError as error:
                refusal.append(error)

        async def connect_outlet() -> None:
            try:
                self._outlet = await self._make_outlet()
                await self._outlet.start()
            except StreamInferError as error:
                refusal.append(error)

        for what, step in (
            (f"Kafka at {broker} is not reachable", prepare_topics),
            ("preparing the topology", make_processor),
            (f"producing to Kafka at {broker}", connect_outlet),
        ):
            await self._persist(what, step)
            if refusal:
                raise refusal[0]

    async def _make_outlet(self) -> Outlet:
        settings, counters, group = self.stream_settings, self.counters, self.conf.id
        # A source topic may be written too: that of events sent on by another key.
        topics = [spec.name for spec in (*self.source_topics, *self.other_topics)]
        limits = await message_bytes_max(settings.bootstrap, topics)
        if settings.delivery == "at_least_once":
            return SharedProducer(f"{group}-results", limits, settings, counters, self.fail)
        return TransactionalOutlet(
            group, topics, limits, self._merging, settings, counters, self.fail
        )

    async def _persist(self, what: str, attempt: Callable[[], Awaitable[None]]) -> None:
        await persist(
            what,
            attempt,
            stop=self._stop_connecting,
            counters=self.counters,
            delay_min_s=self.stream_settings.retry_delay_min_s,
            delay_max_s=self.stream_settings.retry_delay_max_s,
        )

    async def on_stop(self) -> None:
        """Drain (through Faust's own order of stopping), then close what is ours."""
        await super().on_stop()
        await self.drain()
        if self._outlet is not None:
            await self._outlet.stop()
        if self._on_close is not None:
            await self._on_close()

    def _on_rebalance_when_stopped(self) -> None:
        """Do nothing: the consumer is closed by its own service."""

    # -- what the transport asks (its `Worker` protocol)

    @property
    def pickup(self) -> AnyPickup | None:
        return self._ownership.pickup if self._ownership is not None else None

    def is_retrying(self) -> bool:
        """Tell whether work stands still because something outside is away."""
        return bool(self.counters.retrying)

    def polled(self) -> None:
        """Note a poll of the log."""
        self.counters.last_poll_s = time.monotonic()
        self.measure_lag()

    def measure_lag(self) -> None:
        """Measure the lag, not too often."""
        now_s = time.monotonic()
        if self._ownership is not None and now_s - self._lag_measured_s > LAG_INTERVAL_S:
            self._lag_measured_s = now_s
            self._ownership.measure_lag()

    def begin(self, partitions: Sequence[TP]) -> None:
        """Start to own partitions, at the end of a rebalance."""
        assert self.processor is not None
        assert self._outlet is not None
        if self._ownership is not None:
            log.warning("partitions were assigned before the earlier ones were given back")
            self.add_future(self._begin_anew(partitions))
            return
        self.counters.rebalances += 1
        took = "" if self._gave_back_s is None else f", {time.monotonic() - self._gave_back_s:.2f}"
        log.info(
            "assigned %d partitions%s", len(partitions), took and f"{took} s after giving back"
        )
        consumer: MicroBatchConsumer = self.consumer
        self._ownership = Ownership(
            partitions,
            processor=self.processor,
            delivering=self._outlet.delivering(consumer, self.processor.refused),
            group=consumer,
            settings=self.stream_settings,
            counters=self.counters,
            failed=self.fail,
            merging=self._merging,
        )
        self._ownership.start()
        self.ready.set()

    async def _begin_anew(self, partitions: Sequence[TP]) -> None:
        await self.drain()
        self.begin(partitions)

    async def _on_partitions_assigned(self, assigned: set[Any], generation_id: int = 0) -> None:
        await super()._on_partitions_assigned(assigned, generation_id)
        if not assigned:  # more workers than partitions: ready, with nothing to do
            self.counters.ready = True
            self.ready.set()

    def fail(self, error: Exception) -> None:
        """End the app with an error; the process at once, where that is want of memory."""
        end_without_memory(error)
        self.add_future(self.crash(error))

    def _crash(self, reason: BaseException) -> None:
        end_without_memory(reason)  # That of a service of Faust's.
        super()._crash(reason)

    async def drain(self) -> None:
        """Finish what is in flight, store, commit and give the partitions back."""
        async with self._draining:  # a rebalance and a stop may ask for it at the same time
            if self._ownership is not None:
                began_s, count = time.monotonic(), len(self._ownership.partitions)
                await self._ownership.close()
                self._ownership = None
                self._gave_back_s = time.monotonic()
                log.info("gave back %d partitions in %.1f s", count, time.monotonic() - began_s)

    def deliver(self, tp: TP, records: Sequence[Any], end: int) -> None:
        """Let all records up to an offset, which were fetched, wait for their turn."""
        if self._ownership is not None:
            pickup = self._ownership.pickup
            pickup.put(tp, records, end)
            self.counters.waiting_records, self.counters.waiting_bytes = pickup.waiting


def build_app(
    name: str,
    *,
    source_topics: Sequence[TopicSpec],
    processor_factory: ProcessorFactory,
    settings: StreamSettings,
    other_topics: Sequence[TopicSpec] = (),
    counters: StreamCounters | None = None,
    on_close: Callable[[], Awaitable[None]] | None = None,
    merging: Merging | None = None,
) -> StreamApp:
    """Return the Faust app of a topology; nothing connects before it is started.

    `other_topics` (results, dead letters, outcomes) are made at the start like the source topics;
    `on_close` is awaited last when the app stops; `merging` makes one log of the source topics.
    """
    group = settings.group or name
    data_dir = settings.data_dir or str(Path(tempfile.gettempdir()) / f"stream-infer-{group}")
    app = StreamApp(
        group,
        source_topics=source_topics,
        other_topics=other_topics,
        processor_factory=processor_factory,
        stream_settings=settings,
        counters=counters or StreamCounters(),
        on_close=on_close,
        merging=merging,
        broker=[URL(f"kafka://{address}") for address in settings.bootstrap],
        broker_client_id=f"stream-infer-{name}",
        broker_request_timeout=settings.request_timeout_s,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_max_poll_records=settings.batch_records_max,
        consumer_auto_offset_reset=settings.offset_reset,
        consumer_group_instance_id=settings.member_id,
        store="memory://",
        datadir=data_dir,
        TableManager=NoTables,
        topic_allow_declare=False,
        topic_disable_leader=True,
        reply_create_topic=False,
        web_enabled=False,
        autodiscover=False,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        worker_redirect_stdouts=False,
    )
    topic = app.topic(
        *(spec.name for spec in source_topics),
        key_serializer="raw",
        value_serializer="raw",
        acks=False,
    )

    @app.agent(topic, name=f"{name}.micro_batches")  # type: ignore[untyped-decorator]
    async def micro_batches(stream: Any) -> None:
        """Subscribe to the topics: the transport hands their records to `deliver` past Faust."""
        async for _ in stream.noack():
            raise AssertionError("the transport delivers all records itself")

    return app
