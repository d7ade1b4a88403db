"""Several worker processes of one group, started, watched and stopped together."""

import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import msgspec

from stream_infer.cli.output import say
from stream_infer.demo.environment import environment
from stream_infer.processes import Guarded
from stream_infer.settings import Settings

WATCH_S = 0.5


def supervise(topologies: Sequence[str], settings: Settings, processes: int) -> int:
    """Run N workers until SIGTERM or Ctrl-C, which gives 0, or until one ends by itself.

    Then the others are stopped as well and its exit code is returned (1 where it was 0): whoever
    runs this program sees to a restart.
    """
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    workers = [_start(topologies, settings, number) for number in range(processes)]
    ended: int | None = None
    while ended is None and not stopping.wait(WATCH_S):
        for number, worker in enumerate(workers):
            code = worker.poll()
            if code is not None:
                say(f"worker {number + 1} of {processes} ended with exit code {code}")
                ended = code or 1
    # All at a time: each takes its drain to end, and theirs need not add up.
    with ThreadPoolExecutor(processes) as pool:
        codes = list(pool.map(Guarded.stop, workers))
    return ended if ended is not None else max(codes)


def _start(topologies: Sequence[str], settings: Settings, number: int) -> Guarded:
    own = msgspec.structs.replace(
        settings,
        metrics_port=settings.metrics_port + number if settings.metrics_port else 0,
        group_instance=f"{settings.group_instance}-{number}" if settings.group_instance else "",
    )
    return Guarded(
        [sys.executable, "-m", "stream_infer.cli", "worker", *topologies],
        stdout=sys.stdout.fileno(),
        stderr=sys.stderr.fileno(),
        env=environment(own),
        grace_s=settings.drain_timeout_s + 5.0,
    )
