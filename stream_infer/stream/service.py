"""A topology as a Faust app over real servers, and the process that runs it."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import cast

from redis.asyncio import Redis

from stream_infer.core.errors import DeclarationError, SettingsError
from stream_infer.core.merging import event_times
from stream_infer.core.rekeyed_state import rekeyed_schema
from stream_infer.core.topology import Topology
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.monitoring.pages import Pages
from stream_infer.monitoring.watchdog import STANDSTILL_MAX_S, Heartbeat, Watchdog
from stream_infer.monitoring.worker import StreamState, worker_pages
from stream_infer.settings import Settings, load
from stream_infer.store.connection import connect
from stream_infer.store.state import StateStore
from stream_infer.stream.app import StreamApp, build_app
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.dependencies import reachable
from stream_infer.stream.merging import Merging
from stream_infer.stream.processing import Processor
from stream_infer.stream.processor import TopologyProcessor
from stream_infer.stream.rekeyed import RekeyedStage
from stream_infer.stream.rekeying import Rekeying
from stream_infer.stream.runtime import Runtime, build_runtime
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.stages import Staged
from stream_infer.stream.topics import TopicSpec
from stream_infer.stream.worker import run_worker

log = logging.getLogger("stream_infer.stream")
MESSAGE_BYTES_KAFKA = 1_048_588
"""What a Kafka topic accepts unless told otherwise."""
FORWARDED_EXTRA_BYTES = 8_192
"""The most that an event sent on takes beside its bytes: its key, header and batch."""


def topic_specs(topology: Topology, settings: Settings) -> tuple[list[TopicSpec], list[TopicSpec]]:
    """Return the topics that a topology reads, and those that it writes."""
    copies = settings.replication_factor
    source = [TopicSpec(name=stream.name, replication=copies) for stream in topology.streams]
    written = [topology.output, topology.dead_letters]
    if topology.label is not None:
        written.append(topology.outcomes)
    if topology.rekeyed:
        source.append(_rekeyed_topic(topology, copies))
    return source, [TopicSpec(name=name, replication=copies) for name in written]


def _rekeyed_topic(topology: Topology, copies: int | None) -> TopicSpec:
    """Return the topic of events sent on: it takes whatever the stream's own takes."""
    size = topology.stream.max_bytes + FORWARDED_EXTRA_BYTES
    config = {"max.message.bytes": str(size)} if size > MESSAGE_BYTES_KAFKA else {}
    return TopicSpec(name=topology.rekeyed_events, replication=copies, config=config)


def connect_redis(settings: Settings) -> Redis:
    """Return a Redis client; it connects when first used, and its callers do the retrying."""
    return connect(settings.redis, timeout_s=settings.request_timeout_s)


def stream_settings(settings: Settings, topology: Topology) -> StreamSettings:
    """Return the part of the settings that concerns the stream side."""
    return StreamSettings(
        broker=settings.broker,
        group=settings.group or f"stream-infer.{topology.name}",
        member_id=settings.group_instance or None,
        topic_partitions=settings.partitions,
        batch_records_max=settings.batch_records_max,
        batch_bytes_max=settings.batch_bytes_max,
        in_flight_batches_max=settings.in_flight_batches_max,
        commit_interval_s=settings.commit_interval_s,
        flush_interval_s=settings.flush_interval_s,
        merge_wait_ms=settings.merge_wait_ms,
        merge_idle_ms=settings.merge_idle_ms,
        drain_timeout_s=settings.drain_timeout_s,
        retry_delay_max_s=settings.retry_max_s,
        session_timeout_s=settings.session_timeout_s,
        heartbeat_interval_s=settings.heartbeat_interval_s,
        request_timeout_s=max(settings.request_timeout_s, settings.session_timeout_s),
        delivery=settings.delivery,
        transaction_timeout_s=settings.transaction_timeout_s,
        fetch_max_wait_ms=max(settings.fetch_max_wait_ms, 1),
        fetch_min_bytes=settings.fetch_min_bytes,
        message_bytes_max=settings.result_bytes_max,
    )


def merging_of(topology: Topology) -> Merging | None:
    """Return how a topology's topics are one log, None where it has one topic."""
    if len(topology.streams) == 1:
        return None
    return Merging(
        tuple(stream.name for stream in topology.streams),
        tuple(event_times(stream) for stream in topology.streams),
    )


def common_count(topology: Topology, partitions: Mapping[str, int]) -> int:
    """Return how many partitions each of a topology's topics has; raises DeclarationError."""
    first = topology.streams[0].name
    for stream in topology.streams:
        if partitions[stream.name] != partitions[first]:
            raise DeclarationError(
                f"topology {topology.name!r}",
                f"topic {first!r} has {partitions[first]} partitions, but {stream.name!r} has "
                f"{partitions[stream.name]}: streams of one topology need equal numbers, so that "
                "events of one key meet. Publish one of them anew to a topic with as many",
            )
    return partitions[first]


def faust_app(
    topology: Topology,
    settings: Settings | None = None,
    *,
    runtime: Runtime | None = None,
    counters: StreamCounters | None = None,
    ends: TopologyCounters | None = None,
) -> StreamApp:
    """Return a topology's Faust app; nothing is loaded or connected before it starts.

    `settings` default to those of the environment; `runtime` may bring models loaded before.
    """
    settings = settings or load()
    redis = connect_redis(settings)
    closing = contextlib.AsyncExitStack()
    closing.push_async_callback(redis.aclose)
    source, written = topic_specs(topology, settings)

    async def make_processor(partitions: Mapping[str, int]) -> Processor:
        loaded = runtime or build_runtime(topology, settings)
        count = common_count(topology, partitions)
        timeout_s = settings.request_timeout_s
        schema = loaded.engine.schema
        store = StateStore(redis, topology.name, schema, count, timeout_s=timeout_s)
        await store.check()
        counted = ends or TopologyCounters()
        if not topology.rekeyed:
            only = TopologyProcessor(loaded, redis, store, settings, counted)
            closing.push_async_callback(only.close)
            return only
        topic = topology.rekeyed_events
        rekeyed_store = StateStore(
            redis, topic, rekeyed_schema(topology), partitions[topic], timeout_s=timeout_s
        )
        await rekeyed_store.check()
        rekeying = Rekeying(topology, partitions[topic], counted.rekeyed)
        first = TopologyProcessor(loaded, redis, store, settings, counted, rekeyed=rekeying)
        closing.push_async_callback(first.close)
        stage = RekeyedStage(loaded.engine, redis, rekeyed_store, settings, counted.rekeyed)
        return Staged(first, stage, topic)

    return build_app(
        topology.name,
        source_topics=source,
        other_topics=written,
        processor_factory=make_processor,
        settings=stream_settings(settings, topology),
        counters=counters,
        on_close=closing.aclose,
        merging=merging_of(topology),
    )


def run(topologies: Sequence[Topology], settings: Settings) -> int:
    """Run topologies in this process until told to stop; return its exit code.

    With `metrics_port`, metrics and health are served there meanwhile; with `watchdog_timeout_s`,
    a stuck event loop ends the process with code 75. Raises DeclarationError or ModelError when a
    topology's parts do not fit, SettingsError where that port is taken.
    """
    started_s = time.monotonic()
    streams = {topology.name: StreamCounters() for topology in topologies}
    ends = {topology.name: TopologyCounters() for topology in topologies}
    apps = [
        faust_app(
            topology,
            settings,
            runtime=build_runtime(topology, settings),
            counters=streams[topology.name],
            ends=ends[topology.name],
        )
        for topology in topologies
    ]
    log.info("models loaded in %.1f s", time.monotonic() - started_s)
    heartbeat = Heartbeat(settings.watchdog_timeout_s or STANDSTILL_MAX_S)
    with contextlib.ExitStack() as stack:
        if settings.metrics_port:
            stack.enter_context(_pages(ends, streams, heartbeat, settings))
        if settings.watchdog_timeout_s:
            stack.enter_context(Watchdog(heartbeat))
        return run_worker(apps, grace_s=settings.drain_timeout_s * 2, heartbeat=heartbeat)


def _pages(
    ends: Mapping[str, TopologyCounters],
    streams: Mapping[str, StreamCounters],
    heartbeat: Heartbeat,
    settings: Settings,
) -> Pages:
    port = settings.metrics_port
    dependencies = reachable(StreamSettings(broker=settings.broker).bootstrap, settings.redis)
    try:
        # A TP is a pair of topic and partition, but keys of a Mapping are matched to the letter.
        states = cast(Mapping[str, StreamState], streams)
        return worker_pages(ends, states, heartbeat, dependencies, port=port)
    except OSError as error:
        raise SettingsError(
            f"metrics_port {port} cannot be listened on: {error.strerror}"
        ) from error
