"""A stuck event loop ends its process; nothing else does."""

import asyncio
import subprocess
import sys
from pathlib import Path

from stream_infer.monitoring.watchdog import EXIT_STUCK, Heartbeat, Watchdog
from stream_infer.monitoring.worker import live_checks

ROOT = Path(__file__).parents[2]


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


class Watched:
    """A heartbeat and its watchdog on one clock; what would end the process is kept."""

    def __init__(self, standstill_max_s: float = 60.0) -> None:
        self.clock = Clock()
        self.reports: list[str] = []
        self.heartbeat = Heartbeat(standstill_max_s, self.clock)
        self.watchdog = Watchdog(self.heartbeat, self.reports.append)

    def pass_time(self, seconds: int, *, beating: bool) -> None:
        for _ in range(seconds):
            self.clock.s += 1
            if beating:
                self.heartbeat.beat()
            self.watchdog.check()


def test_a_loop_that_stands_still_for_too_long_ends_the_process() -> None:
    watched = Watched()
    watched.pass_time(300, beating=True)
    watched.pass_time(60, beating=False)
    assert watched.reports == []
    assert live_checks(watched.heartbeat) == {"loop": None}
    watched.pass_time(1, beating=False)
    assert watched.reports == [
        "the event loop has not moved for 61 s; ending with code 75, to be restarted"
    ]
    assert live_checks(watched.heartbeat) == {"loop": "the event loop has not moved for 61 s"}


def test_a_loop_that_has_not_begun_is_not_judged() -> None:
    watched = Watched()
    watched.pass_time(300, beating=False)
    assert watched.reports == []
    assert live_checks(watched.heartbeat) == {"loop": None}


def test_a_process_that_was_frozen_as_a_whole_has_its_time_again() -> None:
    watched = Watched()
    watched.pass_time(5, beating=True)
    watched.clock.s += 3_600
    assert not watched.watchdog.check()
    watched.pass_time(60, beating=False)
    assert watched.reports == []
    watched.pass_time(1, beating=False)
    assert len(watched.reports) == 1


async def test_the_loop_beats_by_itself() -> None:
    beats: list[float] = []
    enough = asyncio.Event()

    def now_s() -> float:
        beats.append(asyncio.get_running_loop().time())
        if len(beats) == 3:
            enough.set()
        return beats[-1]

    heartbeat = Heartbeat(0.02, now_s)
    heartbeat.start(asyncio.get_running_loop())
    async with asyncio.timeout(30):
        await enough.wait()


def test_a_worker_whose_loop_is_stuck_ends_with_code_75_and_says_where() -> None:
    program = """
import threading
from stream_infer.monitoring.watchdog import Heartbeat, Watchdog
from stream_infer.stream.worker import run_worker

def stands_here_for_ever():
    threading.Event().wait()

heartbeat = Heartbeat(0.5)
with Watchdog(heartbeat):
    run_worker([], on_started=stands_here_for_ever, heartbeat=heartbeat)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        timeout=60,
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == EXIT_STUCK == 75
    assert "stream-infer: the event loop has not moved for" in ended.stderr
    assert "in stands_here_for_ever" in ended.stderr


def test_nobody_reading_standard_error_does_not_keep_a_stuck_process_alive() -> None:
    program = """
import os
from stream_infer.monitoring import watchdog

watchdog.REPORT_MAX_S = 0.2
_, full = os.pipe()
os.dup2(full, 2)
os.set_blocking(2, False)
try:
    while True:
        os.write(2, bytes(4096))
except BlockingIOError:
    os.set_blocking(2, True)
watchdog.end_process("stuck")
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, cwd=ROOT)
    assert ended.returncode == EXIT_STUCK


def test_threads_that_find_no_memory_to_begin_do_not_keep_a_stuck_process_alive() -> None:
    program = """
import threading
from stream_infer.monitoring import watchdog

watchdog.REPORT_MAX_S = 0.1
watchdog.start_new_thread = threading._start_new_thread = lambda run, arguments: None
watchdog.end_process("stuck")
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, cwd=ROOT)
    assert ended.returncode == EXIT_STUCK
