"""Starting apps in a process of their own: signals, logging, exit codes."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import uvloop

from stream_infer import collector
from stream_infer.core.errors import StreamInferError
from stream_infer.monitoring.watchdog import Heartbeat
from stream_infer.stream.app import StreamApp
from stream_infer.stream.ending import end_without_memory, out_of_memory
from stream_infer.stream.kafka_connections import use_lean_connections
from stream_infer.stream.kafka_tasks import hear_want_of_memory
from stream_infer.stream.kafka_wire import pack_requests
from stream_infer.stream.retry import GaveUp

log = logging.getLogger("stream_infer.stream")

EXIT_OK = 0
EXIT_FATAL = 1
AIOKAFKA_PARTS = ("consumer", "producer", "coordinator", "conn")
SWITCH_INTERVAL_S = 0.0005
"""Models of large batches run in threads of their own: none must wait 5 ms for its turn."""


EXPECTED = (StreamInferError, asyncio.CancelledError, MemoryError)


class OneLine(logging.Formatter):
    """Time, level, logger and message on one line; a trace only at debug level or for defects."""

    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Leave out the trace of what is no defect: a refusal, a cancellation, no memory."""
        if record.exc_info and isinstance(record.exc_info[1], EXPECTED):
            record = copy(record)
            record.exc_info = record.exc_text = None
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return super().formatException(ei) if ei[0] is not None else ""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return " ".join(super().formatMessage(record).split())


def set_up_logging(level: str = "info") -> None:
    """Log to standard error, one line a record; third parties only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    chosen = logging.getLevelName(level.upper())
    root.setLevel(max(chosen, logging.WARNING) if chosen > logging.DEBUG else chosen)
    logging.getLogger("stream_infer").setLevel(chosen)
    if chosen > logging.DEBUG:
        for name in ("mode", "faust", *(f"aiokafka.{part}" for part in AIOKAFKA_PARTS)):
            logging.getLogger(name).setLevel(logging.ERROR)
        # Failed connections, at every attempt: reported by us, once for each retry.
        for name in ("aiokafka", "aiokafka.cluster"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def run_worker(
    apps: StreamApp | Sequence[StreamApp],
    *,
    grace_s: float = 30.0,
    on_started: Callable[[], None] | None = None,
    heartbeat: Heartbeat | None = None,
) -> int:
    """Run apps until SIGTERM or SIGINT; return the exit code.

    0 after a drain within `grace_s`; 1 when an app failed, with its reason logged in one line,
    or did not drain in time. Want of memory ends the process with 70, and one line. `on_started` is
    called once all apps have started; `heartbeat` hears that the loop moves.
    """
    together = [apps] if isinstance(apps, StreamApp) else list(apps)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    use_lean_connections()
    hear_want_of_memory()
    pack_requests()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(together, grace_s, on_started, heartbeat or Heartbeat()))


async def _run(
    apps: Sequence[StreamApp],
    grace_s: float,
    on_started: Callable[[], None] | None,
    heartbeat: Heartbeat,
) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_heard)
    heartbeat.start(loop)
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    asking = asyncio.create_task(asked.wait())
    running = [asyncio.create_task(_live(app)) for app in apps]
    starting = asyncio.create_task(_tell_started(apps, on_started))
    done, _ = await asyncio.wait([asking, *running], return_when=asyncio.FIRST_COMPLETED)
    code = EXIT_OK if asking in done else EXIT_FATAL
    if asking in done:
        log.info("stopping: finishing what is in flight, at most %.0f s", grace_s)
    try:
        async with asyncio.timeout(grace_s):
            await asyncio.gather(*(app.stop() for app in apps))
    except TimeoutError:
        log.error("did not stop within %.0f s; what was in flight is processed again", grace_s)
        code = EXIT_FATAL
    for task in (asking, starting, *running):
        task.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(outcome, Exception) and not isinstance(outcome, GaveUp):
            code = EXIT_FATAL
            log.critical("%s", _reason(outcome))
    return code


def _heard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Hear what nobody awaits; transports that lack memory for what they read end in it, too."""
    end_without_memory(context.get("exception"))
    loop.default_exception_handler(context)


async def _live(app: StreamApp) -> None:
    await app.maybe_start()
    await app.wait_until_stopped()
    if app.crash_reason is not None:
        raise app.crash_reason


async def _tell_started(apps: Sequence[StreamApp], on_started: Callable[[], None] | None) -> None:
    await asyncio.gather(*(app.ready.wait() for app in apps))
    collector.settle()
    log.info("working on %s", ", ".join(app.conf.id for app in apps))
    if on_started is not None:
        on_started()


def _reason(error: BaseException) -> str:
    if isinstance(error, StreamInferError):
        return str(error)
    if isinstance(error, MemoryError):
        return out_of_memory(error)
    return f"ended by {type(error).__name__}: {error}"
