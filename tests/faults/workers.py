"""Faults of workers: killed, frozen, added, removed, stopped."""

import signal

from tests.faults.harness import Run, Worker
from tests.faults.verifier import Figures

RATE = 800.0


def kill(run: Run) -> Figures:
    """kill -9 at random moments under load; the next worker has the same static member id."""
    worker = run.worker(group_instance=run.name)
    run.until_reading(worker)
    run.generate(9_000, RATE)
    for _ in range(3):
        run.until_reading(worker)
        run.until_sent(min(run.sent() + run.random.randrange(1, 900), 9_000))
        with run.fault():
            worker.process.kill()
            worker = run.worker(group_instance=run.name)
    return run.finish(worker)


def takeover(run: Run) -> Figures:
    """One of two workers is killed: the other takes its partitions, then a new one joins."""
    first, second = run.worker(), run.worker()
    run.until_reading(first, second)
    run.generate(10_000, RATE)
    run.until_sent(run.random.randrange(1_000, 4_000))
    with run.fault():
        second.process.kill()
        run.until("the other takes over", lambda: len(first.partitions()) == 4, 60)
    third = run.worker()
    run.until("a new one joins", lambda: bool(third.partitions()), 60)
    return run.finish(first, third)


def failpoint(run: Run, point: str) -> Figures:
    """kill -9 at a failpoint, at a visit that the seed chooses."""
    visit = 1 if point in ("acquiring", "acquired", "revoking") else run.random.randrange(1, 12)
    run.figures.notes["visit"] = visit
    armed = run.worker(group_instance=run.name, failpoints=f"{point}=kill@{visit}")
    run.until("the worker starts", lambda: armed.said("working on") or not armed.running, 60)
    run.generate(3_000, RATE)
    if point == "revoking":
        run.until_sent(1_000)
        with run.fault():
            armed.signal(signal.SIGTERM)
    run.until(f"it is killed at {point}", lambda: not armed.running, 60)
    with run.fault():
        heir = run.worker(group_instance=run.name)
    return run.finish(heir)


def zombie(run: Run) -> Figures:
    """A worker frozen past its session, its partitions taken over, then continued."""
    frozen, heir = run.worker(), run.worker()
    run.until_reading(frozen, heir)
    run.generate(12_000, RATE)
    run.until_sent(run.random.randrange(1_000, 3_000))
    owned = frozen.partitions()
    with run.fault():
        frozen.signal(signal.SIGSTOP)
        run.until("its partitions are taken over", lambda: heir.partitions() >= owned, 60)
        run.until_sent(8_000)
        frozen.signal(signal.SIGCONT)
    run.until("it notices", lambda: noticed(frozen), 60)
    return run.finish(*(worker for worker in (frozen, heir) if worker.running))


def noticed(worker: Worker) -> bool:
    """Whether a worker found out that it had lost its partitions."""
    text = worker.log.read_text(errors="replace")
    return (
        not worker.running
        or "has taken" in text
        or "offsets not committed" in text
        or text.count("reading ") > 1
    )


def frozen_at(run: Run, point: str) -> Figures:
    """As `zombie`, but frozen exactly between acknowledgement, state and commit."""
    visit = run.random.randrange(2, 12)
    run.figures.notes["visit"] = visit
    frozen = run.worker(failpoints=f"{point}=stop@{visit}")
    run.until_reading(frozen)
    run.generate(8_000, RATE)
    stopped = f"/proc/{frozen.process.pid}/stat"

    def is_stopped() -> bool:
        with open(stopped) as file:
            return file.read().rpartition(")")[2].split()[0] == "T"

    run.until(f"it stops at {point}", is_stopped, 60)
    with run.fault():
        heir = run.worker()
        run.until_reading(heir)
        run.until_sent(6_000)
        frozen.signal(signal.SIGCONT)
    run.until("it notices", lambda: noticed(frozen), 60)
    return run.finish(*(worker for worker in (frozen, heir) if worker.running))


def sigterm(run: Run) -> Figures:
    """SIGTERM under load: the worker drains and exits 0; the next one goes on."""
    worker = run.worker(group_instance=run.name)
    run.until_reading(worker)
    run.generate(8_000, RATE)
    for _ in range(2):
        run.until_reading(worker)
        run.until_sent(min(run.sent() + run.random.randrange(200, 1_500), 8_000))
        with run.fault():
            if (code := worker.stop()) != 0:
                run.figures.failures.append(f"it ended with {code}: {worker.log}")
            worker = run.worker(group_instance=run.name)
    figures = run.finish(worker)
    if figures.repeats:
        figures.failures.append(f"{figures.repeats} results were published again after a drain")
    return figures
