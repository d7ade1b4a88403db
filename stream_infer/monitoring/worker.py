"""A worker's own pages, made from what it counts."""

from collections.abc import Mapping
from typing import Protocol

from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.monitoring.exposition import StreamCounts, StreamInferCollector, registry, render
from stream_infer.monitoring.pages import Pages
from stream_infer.monitoring.watchdog import Heartbeat


class StreamState(StreamCounts, Protocol):
    """What is asked of the stream side for health (`stream.counters.StreamCounters` has it)."""

    ready: bool
    retrying: str | None


def live_checks(heartbeat: Heartbeat) -> dict[str, str | None]:
    """Return whether the worker's loop moves; the watchdog ends the process by the same measure.

    A loop that waits for Kafka or Redis moves: that is no reason for a restart.
    """
    return {"loop": heartbeat.problem()}


def ready_checks(streams: Mapping[str, StreamState]) -> dict[str, str | None]:
    """Return, by topology, what keeps it from working, None where nothing does."""
    return {
        name: state.retrying or (None if state.ready else "partitions are not assigned yet")
        for name, state in streams.items()
    }


def worker_pages(
    counters: Mapping[str, TopologyCounters],
    streams: Mapping[str, StreamState],
    heartbeat: Heartbeat,
    *,
    port: int,
    host: str = "127.0.0.1",
) -> Pages:
    """Serve a worker's metrics and health until closed; both mappings are by topology."""
    metrics = registry(StreamInferCollector(counters, streams))
    return Pages(
        lambda: render(metrics),
        lambda: live_checks(heartbeat),
        lambda: ready_checks(streams),
        port=port,
        host=host,
    )
