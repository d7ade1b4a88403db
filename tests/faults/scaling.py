"""Workers added and removed under load: how long each partition pauses."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from tests.faults.harness import Run, Worker
from tests.faults.reading import read_topic
from tests.faults.verifier import Fault, Figures

RATE = 800.0
EVENTS = 100_000
"""More than are sent: workers start in their own time."""
BEYOND_MAX_S = 2.0
"""How much longer than the group protocol itself a partition may pause."""
ASSIGNED = re.compile(r"^(\S+) INFO \S+ assigned \d+ partitions, (\S+) s after giving back", re.M)


def scale(run: Run) -> Figures:
    """Workers 1 → 2 → 3 → 2 → 1 under load."""
    workers = [run.worker()]
    run.until_reading(*workers)
    run.generate(EVENTS, RATE)
    run.until_sent(1_000)
    for _ in range(2):
        with run.fault():
            joining = run.worker()
            run.until("it has joined", lambda w=joining: bool(w.partitions()), 60)
            workers.append(joining)
    for _ in range(2):
        run.until_sent(run.sent() + 1_000)
        with run.fault():
            leaving = workers.pop(run.random.randrange(len(workers)))
            if (code := leaving.stop()) != 0:
                run.figures.failures.append(f"a leaving worker ended with {code}: {leaving.log}")
    run.until_sent(run.sent() + 2_000)
    run.stop_generating()
    run.until_generated()
    run.until_done()
    replayed = sum(run.ends(worker)["replayed"] for worker in workers)
    everyone = list(run.workers)
    figures = run.finish(*workers)
    judge_pauses(run, everyone)
    # Where a worker folds anew what was answered before, its state was not at the log's position.
    if replayed or figures.repeats:
        figures.failures.append(f"{replayed} events folded anew, {figures.repeats} repeats")
    return figures


def judge_pauses(run: Run, workers: Sequence[Worker]) -> None:
    """Compare, step by step, the longest pause of a partition with the group's own time."""
    results: dict[int, list[int]] = defaultdict(list)
    for message in read_topic(run.broker, f"{run.name}.predictions"):
        partition = int(json.loads(message.value())["prediction_id"].split(":")[-2])
        results[partition].append(message.timestamp()[1])
    steps = []
    for fault, following in pairwise([*run.faults, Fault(1 << 62, 1 << 62)]):
        until_ms = min(following.start_ms, fault.end_ms + 5_000)
        pauses = [
            longest(sorted(times), fault.start_ms, until_ms) for _, times in sorted(results.items())
        ]
        group_s = max((protocol_s(w, fault.start_ms, until_ms) for w in workers), default=0.0)
        steps.append({"pause_s": max(pauses) / 1e3, "group_s": round(group_s, 2)})
        if max(pauses) / 1e3 > group_s + BEYOND_MAX_S:
            run.figures.failures.append(f"a partition paused too long: {steps[-1]}")
    run.figures.notes["pauses"] = steps


def longest(times_ms: Sequence[int], start_ms: int, until_ms: int) -> int:
    """Return the longest time without a result that touches a span of time."""
    gaps = [
        after - before
        for before, after in pairwise(times_ms)
        if after >= start_ms and before <= until_ms
    ]
    return max(gaps, default=until_ms - start_ms)


def protocol_s(worker: Worker, start_ms: int, until_ms: int) -> float:
    """Return how long a worker waited between giving back and being assigned, at most."""
    text = worker.log.read_text(errors="replace")
    waits = [
        float(seconds)
        for at, seconds in ASSIGNED.findall(text)
        if start_ms - 1_000 <= datetime.fromisoformat(f"{at}+00:00").timestamp() * 1e3 <= until_ms
    ]
    return max(waits, default=0.0)
