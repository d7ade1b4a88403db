"""Named tasks of one assignment: their defects are reported, their ends bounded."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from stream_infer.core.errors import FencedError
from stream_infer.stream.retry import GaveUp

log = logging.getLogger("stream_infer.stream")


class Tasks:
    """Runs loops; `failed` hears of defects, after which work would stand still unnoticed."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin a task."""
        self._tasks[name] = asyncio.create_task(self._guarded(name, work), name=f"stream-{name}")

    def named(self, prefix: str) -> list[str]:
        """Return the names of all tasks, ended ones too, that begin so."""
        return [name for name in self._tasks if name.startswith(prefix)]

    def cancel(self, name: str) -> None:
        """Cancel a task."""
        self._tasks[name].cancel()

    async def finish(self, name: str, deadline_s: float) -> bool:
        """Let a task end by the deadline, else cancel it; return whether it ended by itself."""
        task = self._tasks[name]
        await asyncio.wait([task], timeout=max(deadline_s - time.monotonic(), 0.0))
        if task.done():
            return True
        task.cancel()
        await asyncio.wait([task])
        return False

    async def _guarded(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except GaveUp:
            log.debug("%s: gave up, as partitions are given back", name)
        except MemoryError as error:
            self._failed(error)
        except Exception as error:
            log.exception("the %s loop ended by a defect", name)
            self._failed(error)


async def bounded(what: str, call: Awaitable[object], timeout_s: float) -> None:
    """Await one last step; what goes wrong is logged, as nobody can try it again."""
    try:
        async with asyncio.timeout(timeout_s):
            await call
    except TimeoutError:
        log.warning("%s did not end in time", what)
    except FencedError as error:
        log.info("%s: %s", what, error)
    except Exception as error:
        log.warning("%s failed: %r", what, error)
