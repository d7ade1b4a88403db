"""What a machine runs out of: room for the log, memory; and what must not grow: steady load."""

import os
import re
import resource
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.harness import Run, Worker
from tests.faults.verifier import Figures

RATE = 800.0
ROOM_BYTES = 2 << 20
"""What a worker may take beyond what it needs without load: too little for a large batch."""


def disk_full(run: Run) -> Figures:
    """Standard error on a full disk, then on a pipe that nobody reads: work goes on."""
    with full_disk() as full:
        first = run.worker(stderr=full, group_instance=run.name)
    run.until("it is ready", lambda: is_ready(first), 60)
    run.generate(6_000, RATE)
    run.until_sent(2_000)
    with run.fault():
        # So that there is something to say in the middle of it.
        run.bench.redis.stop()
        run.until_sent(3_000)
        run.bench.redis.start()
    run.until("it has worked on", lambda: run.ends(first).get("consumed", 0) > 3_000, 60)
    stop(run, first)
    with run.fault(), broken_pipe() as pipe:
        second = run.worker(stderr=pipe, group_instance=run.name)
    run.until("it is ready", lambda: is_ready(second), 60)
    run.until_generated()
    run.until_done()
    stop(run, second)  # It has no log that could say how far it is.
    return run.finish()


@contextmanager
def full_disk() -> Iterator[int]:
    """A file of which every write fails with "no space left"."""
    with open("/dev/full", "wb", buffering=0) as file:
        yield file.fileno()


@contextmanager
def broken_pipe() -> Iterator[int]:
    """A pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


def is_ready(worker: Worker) -> bool:
    """Ask a worker's own page."""
    try:
        page = f"http://127.0.0.1:{worker.metrics_port}/health/ready"
        with urllib.request.urlopen(page, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def stop(run: Run, worker: Worker) -> None:
    """Stop a worker; it must drain."""
    if (code := worker.stop()) != 0:
        run.figures.failures.append(f"a worker ended with {code}: {worker.log}")


def memory_limit(run: Run) -> Figures:
    """A worker without room for its load ends, and says why; with room, the next one goes on."""
    poor = run.worker(group_instance=run.name)
    run.until_reading(poor)
    run.generate(12_000, RATE)
    run.until_sent(1_000)
    pid = poor.process.pid
    with run.fault():
        limit = status(pid)["VmSize"] + run.random.randrange(ROOM_BYTES)
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
        # What waited while it was frozen comes as batches larger than any before.
        poor.signal(signal.SIGSTOP)
        run.until_sent(6_000)
        poor.signal(signal.SIGCONT)
        run.until("the worker without memory ends", lambda: not poor.running, 90)
    code, said = poor.process.poll(), poor.log.read_text(errors="replace")
    run.figures.notes |= {"exit_code": code, "last_words": said.splitlines()[-1][-200:]}
    if code == 0 or not re.search(r"out of memory.*STATE_ROWS_MAX", said):
        run.figures.failures.append(f"it ended with {code}, without a clear line: {poor.log}")
    with run.fault():
        rich = run.worker(group_instance=run.name)
        run.until_reading(rich)
    return run.finish(rich)


def status(pid: int) -> dict[str, int]:
    """Return what the kernel says of a process, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: int(size) << 10 for name, size in re.findall(r"^(Vm\w+):\s+(\d+) kB", text, re.M)}
