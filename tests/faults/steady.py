"""Steady load: memory and file descriptors of worker and server stay what they are."""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stream_infer.processes import wait_until
from tests.faults.draining import ASKED, check, serve
from tests.faults.harness import Run, Worker
from tests.faults.http_load import CONNECTIONS
from tests.faults.reading import stored_rows
from tests.faults.verifier import Figures, Judge

RATE = 800.0
LONG_RATE = 200.0
SHORT_MAX_S = 120.0
"""Up to this, all is judged; a longer run has fewer events a second and leaves out features."""
ROWS_MAX = 500
"""Rows of a view in memory; each partition has several times as many."""
SAMPLE_S = 1.0
GROWTH_MAX_BYTES = 8 << 20
"""What the resident memory may grow over the second half, by its regression line."""
FILES_MAX = 3
"""What the open files may grow, likewise; a server's by its clients' connections more."""


@dataclass
class Samples:
    """Resident memory and open files of one process, over time."""

    worker: Worker
    files_max: int = FILES_MAX
    at_s: list[float] = field(default_factory=list)
    rss_bytes: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)

    def take(self) -> None:
        """Look at the process now."""
        pid = self.worker.process.pid
        text = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)
        assert found is not None
        self.at_s.append(time.monotonic())
        self.rss_bytes.append(int(found[1]) << 10)
        self.files.append(len(os.listdir(f"/proc/{pid}/fd")))

    def judge(self, figures: Figures, name: str) -> None:
        """Fail for what grew over the second half."""
        half = len(self.at_s) // 2
        rss, files = self._growth(self.rss_bytes, half), self._growth(self.files, half)
        figures.notes[name] = {
            "rss_mb": [round(self.rss_bytes[i] / 1e6, 1) for i in (0, half, -1)],
            "rss_growth_mb": round(rss / 1e6, 2),
            "files": [int(self.files[i]) for i in (0, half, -1)],
            "second_half_s": round(self.at_s[-1] - self.at_s[half]),
        }
        if rss > GROWTH_MAX_BYTES or files > self.files_max:
            figures.failures.append(f"{name} grew: {figures.notes[name]}")

    def _growth(self, values: list[float], half: int) -> float:
        """Return what the regression line of the second half rises."""
        times = np.array(self.at_s[half:])
        slope = np.polyfit(times - times[0], np.array(values[half:]), 1)[0]
        return float(slope * (times[-1] - times[0]))


def steady(run: Run) -> Figures:
    """Events and requests at a steady rate, with rows leaving memory all the time."""
    seconds = run.bench.steady_s
    short = seconds <= SHORT_MAX_S
    rate = RATE if short else LONG_RATE
    run.finish_max_s = seconds + 300
    worker = run.worker(state_rows_max=ROWS_MAX)
    run.until_reading(worker)
    server, load = serve(run, ASKED if short else ASKED / 3)
    run.generate(int(seconds * rate), rate)
    samples = {"worker": Samples(worker), "server": Samples(server, FILES_MAX + CONNECTIONS)}
    with load:
        end_s = time.monotonic() + seconds
        for number in range(int(seconds / SAMPLE_S)):
            due_s = end_s - seconds + (number + 1) * SAMPLE_S
            wait_until(lambda due_s=due_s: time.monotonic() >= due_s, timeout_s=60, interval_s=0.05)
            for one in samples.values():
                one.take()
    answers = load.stop()
    check(run, server, answers, ended=False)
    if (code := server.stop()) != 0:
        run.figures.failures.append(f"the server ended with {code}: {server.log}")
    figures = run.finish(worker, judge=Judge(features=short))
    for name, one in samples.items():
        one.judge(figures, name)
    rows = sum(key.startswith("0}:@ids:") for key in stored_rows(run.store_url, run.name))
    figures.notes |= {"asked": answers.said(), "rows_of_one_view": rows}
    if rows <= 2 * ROWS_MAX:
        figures.failures.append(f"nothing had to leave memory: {rows} rows")
    return figures
