"""Whether a worker's event loop moves, and the end of the process when it does not."""

import asyncio
import faulthandler
import os
import time
from _thread import start_new_thread
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self

EXIT_STUCK = 75
"""`EX_TEMPFAIL` of sysexits.h: try again."""
BEAT_S = 1.0
STANDSTILL_MAX_S = 60.0
REPORT_MAX_S = 5.0


class Heartbeat:
    """When an event loop last moved; written by the loop, read by any thread.

    A loop that has not moved for longer than `standstill_max_s` is stuck; before its first beat it
    is not judged. `now_s` is monotonic.
    """

    def __init__(
        self,
        standstill_max_s: float = STANDSTILL_MAX_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.standstill_max_s = standstill_max_s
        self.interval_s = min(BEAT_S, standstill_max_s / 4)
        self.now_s = now_s
        self._beat_s: float | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat from now on, as long as the loop moves."""
        self.beat()
        loop.call_later(self.interval_s, self.start, loop)

    def beat(self) -> None:
        """Note that the loop moves."""
        self._beat_s = self.now_s()

    def problem(self) -> str | None:
        """Return what is wrong with a loop that is stuck, None where it is not."""
        beat_s = self._beat_s
        if beat_s is None:
            return None
        still_s = self.now_s() - beat_s
        if still_s <= self.standstill_max_s:
            return None
        return f"the event loop has not moved for {still_s:.0f} s"


class Watchdog:
    """A thread that ends the process with code 75 when a loop is stuck, for a restart.

    What stands still as a whole (SIGSTOP, a machine asleep) is not stuck: the watchdog was late
    itself then, and the loop has its whole time again. `end` is called once, with a report.
    """

    def __init__(self, heartbeat: Heartbeat, end: Callable[[str], None] | None = None) -> None:
        self._heartbeat = heartbeat
        self._end = end or end_process
        self._checked_s = heartbeat.now_s()
        self._closing = Event()
        self._thread = Thread(target=self._run, name="watchdog", daemon=True)

    def check(self) -> bool:
        """Say whether the loop is stuck, and end the process then."""
        now_s, before_s = self._heartbeat.now_s(), self._checked_s
        self._checked_s = now_s
        problem = self._heartbeat.problem()
        if problem is None:
            return False
        if now_s - before_s > self._heartbeat.standstill_max_s / 2:
            self._heartbeat.beat()
            return False
        self._end(f"{problem}; ending with code {EXIT_STUCK}, to be restarted")
        return True

    def _run(self) -> None:
        while not self._closing.wait(self._heartbeat.interval_s):
            if self.check():
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._thread.join()


def end_process(report: str) -> None:
    """Write a report and the stacks of all threads to standard error, and end at once."""
    written = Event()

    def write() -> None:
        os.write(2, f"stream-infer: {report}\n".encode() + stacks())
        written.set()

    try:
        # The loop may be stuck because nobody reads standard error: that must not stop us as well.
        # Nor must want of memory: `Thread.start` waits for ever for one that found none to begin.
        start_new_thread(write, ())
        written.wait(REPORT_MAX_S)
    finally:
        os._exit(EXIT_STUCK)


def stacks() -> bytes:
    """Return the stacks of all threads; what exceeds a pipe's capacity is left out."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    try:
        faulthandler.dump_traceback(writing, all_threads=True)
        return os.read(reading, 1 << 16)
    finally:
        os.close(reading)
        os.close(writing)
