"""A worker's own pages, made from what it counts."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.monitoring.exposition import StreamCounts, StreamInferCollector, registry, render
from stream_infer.monitoring.pages import Pages

POLL_AGE_MAX_S = 60.0
"""Without a poll for so long, a worker's loop counts as stuck."""


class StreamState(StreamCounts, Protocol):
    """What is asked of the stream side for health (`stream.counters.StreamCounters` has it)."""

    ready: bool
    retrying: str | None


def live_checks(
    streams: Mapping[str, StreamState], now_s: Callable[[], float] = time.monotonic
) -> dict[str, str | None]:
    """Return, by topology, whether its loop moves; None where it does or has not begun."""
    checks: dict[str, str | None] = {}
    for name, state in streams.items():
        age_s = None if state.last_poll_s is None else now_s() - state.last_poll_s
        stuck = age_s is not None and age_s > POLL_AGE_MAX_S
        checks[name] = f"no poll for {age_s:.0f} s" if stuck else None
    return checks


def ready_checks(streams: Mapping[str, StreamState]) -> dict[str, str | None]:
    """Return, by topology, what keeps it from working, None where nothing does."""
    return {
        name: state.retrying or (None if state.ready else "partitions are not assigned yet")
        for name, state in streams.items()
    }


def worker_pages(
    counters: Mapping[str, TopologyCounters],
    streams: Mapping[str, StreamState],
    *,
    port: int,
    host: str = "127.0.0.1",
) -> Pages:
    """Serve a worker's metrics and health until closed; both mappings are by topology."""
    metrics = registry(StreamInferCollector(counters, streams))
    return Pages(
        lambda: render(metrics),
        lambda: live_checks(streams),
        lambda: ready_checks(streams),
        port=port,
        host=host,
    )
