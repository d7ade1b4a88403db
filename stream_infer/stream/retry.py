"""Retries with bounded exponential backoff that stop when told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from stream_infer.core.errors import FencedError
from stream_infer.stream.counters import StreamCounters

T = TypeVar("T")
log = logging.getLogger("stream_infer.stream")


class Persist(Protocol):
    """Attempts a call with these arguments until it succeeds (see `persist`)."""

    async def __call__(self, what: str, call: Callable[..., Awaitable[T]], /, *arguments: Any) -> T:
        """Return what the call returns at last."""
        ...


class GaveUp(Exception):  # noqa: N818
    """Told to stop before an attempt succeeded."""


async def wait_for_event(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until the event is set, at most `timeout_s`; return whether it is set."""
    if timeout_s <= 0 or event.is_set():
        return event.is_set()
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def persist(
    what: str,
    attempt: Callable[[], Awaitable[T]],
    *,
    stop: asyncio.Event,
    counters: StreamCounters,
    delay_min_s: float,
    delay_max_s: float,
) -> T:
    """Attempt until it succeeds, logging one line a failure.

    Raises `FencedError` and `MemoryError` as they come, and `GaveUp` once `stop` is set after a
    failure.
    """
    delay_s = delay_min_s
    while True:
        try:
            result = await attempt()
        except (FencedError, asyncio.CancelledError, MemoryError):
            counters.retrying.pop(what, None)
            raise
        except Exception as error:
            counters.retries += 1
            counters.retrying[what] = reason = _describe(error)
            if not stop.is_set():
                log.warning("%s: %s; trying again in %.2g s", what, reason, delay_s)
                log.debug("%s failed", what, exc_info=True)
            if stop.is_set() or await wait_for_event(stop, delay_s):
                counters.retrying.pop(what, None)
                raise GaveUp(what) from error
            delay_s = min(delay_s * 2, delay_max_s)
        else:
            counters.retrying.pop(what, None)
            return result


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    if text.startswith(name):  # aiokafka's errors name themselves
        return text
    return f"{name}: {text}" if text else name
