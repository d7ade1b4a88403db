"""A worker's own pages, made from what it counts."""

from collections.abc import Mapping
from typing import Protocol

from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.monitoring.exposition import StreamCounts, StreamInferCollector, registry, render
from stream_infer.monitoring.pages import Checks, Pages
from stream_infer.monitoring.watchdog import Heartbeat


class StreamState(StreamCounts, Protocol):
    """What is asked of the stream side for health (`stream.counters.StreamCounters` has it)."""

    ready: bool

    @property
    def retrying(self) -> Mapping[str, str]: ...


def live_checks(heartbeat: Heartbeat) -> dict[str, str | None]:
    """Return whether the worker's loop moves; the watchdog ends the process by the same measure.

    A loop that waits for Kafka or Redis moves: that is no reason for a restart.
    """
    return {"loop": heartbeat.problem()}


def ready_checks(
    streams: Mapping[str, StreamState], dependencies: Checks = dict
) -> dict[str, str | None]:
    """Return what keeps each topology, and each of the worker's `dependencies`, from working.

    None where nothing does. Models need no look: a worker loads and warms them before anything.
    """
    return {**{name: _problem(state) for name, state in streams.items()}, **dependencies()}


def _problem(state: StreamState) -> str | None:
    if retrying := dict(state.retrying):
        return "; ".join(f"{what}: {why}" for what, why in retrying.items())
    return None if state.ready else "partitions are not assigned yet"


def worker_pages(
    counters: Mapping[str, TopologyCounters],
    streams: Mapping[str, StreamState],
    heartbeat: Heartbeat,
    dependencies: Checks = dict,
    *,
    port: int,
    host: str = "127.0.0.1",
) -> Pages:
    """Serve a worker's metrics and health until closed; both mappings are by topology."""
    metrics = registry(StreamInferCollector(counters, streams))
    return Pages(
        lambda: render(metrics),
        lambda: live_checks(heartbeat),
        lambda: ready_checks(streams, dependencies),
        port=port,
        host=host,
    )
