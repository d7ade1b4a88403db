"""Faults of servers: Redis and Kafka stopped, killed, slow, cut off, set back in time."""

import shutil
import time
from pathlib import Path

from stream_infer.processes import wait_until
from tests.faults.events import Rates
from tests.faults.harness import Run
from tests.faults.proxy import Proxy
from tests.faults.reading import stored_offsets
from tests.faults.verifier import Figures

RATE = 800.0


def stay_away(run: Run) -> None:
    """Let time pass, which is what this fault is; the generator must go on meanwhile."""
    seconds = run.bench.away_s
    end_s = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end_s, timeout_s=seconds + 1, interval_s=0.05)
    run.figures.notes["away_s"] = seconds


def redis_away(run: Run) -> Figures:
    """Redis is stopped for a while, and started with what it had."""
    worker = run.worker()
    run.until_reading(worker)
    run.generate(int(RATE * (run.bench.away_s + 6)), RATE)
    run.until_sent(2_000)
    with run.fault():
        run.bench.redis.stop()
        stay_away(run)
        run.bench.redis.start()
    return run.finish(worker)


def redis_resets(run: Run) -> Figures:
    """Connections to Redis break, again and again, at random moments."""
    with Proxy.started(port_of(run.bench.redis.url)) as proxy:
        run.redis_url = f"redis://127.0.0.1:{proxy.port}/0"
        worker = run.worker()
        run.until_reading(worker)
        run.generate(9_000, RATE)
        for _ in range(20):
            run.until_sent(run.sent() + run.random.randrange(50, 350))
            with run.fault():
                proxy.reset()
        run.figures.notes["connections"] = proxy.connections
        return run.finish(worker)


def redis_slow(run: Run) -> Figures:
    """Redis answers two seconds late for a while, then not at all, then as before."""
    with Proxy.started(port_of(run.bench.redis.url)) as proxy:
        run.redis_url = f"redis://127.0.0.1:{proxy.port}/0"
        worker = run.worker()
        run.until_reading(worker)
        run.generate(16_000, RATE)
        run.until_sent(1_500)
        with run.fault():
            proxy.delay_s = 2.0
            run.until_sent(6_000)
            proxy.delay_s = 0.0
        with run.fault(), proxy.silent():
            run.until_sent(11_000)
        return run.finish(worker)


def redis_set_back(run: Run) -> Figures:
    """Redis is killed and comes back without the last part of its append-only file."""
    redis = run.bench.redis
    worker = run.worker(state_rows_max=20)
    run.until_reading(worker)
    run.generate(12_000, RATE)
    run.until_sent(2_000)
    kept = Path(redis.directory / "appendonly.aof")
    run.until("something is stored", lambda: any(stored_offsets(redis.url, run.name).values()), 30)
    size = kept.stat().st_size
    run.until_sent(5_000)
    with run.fault():
        redis.kill()
        shutil.copy(kept, kept.with_suffix(".whole"))
        with kept.open("r+b") as file:
            lost = kept.stat().st_size - size
            file.truncate(size + run.random.randrange(0, lost // 4))
            run.figures.notes["lost_bytes"] = lost
        redis.start()
    return run.finish(worker)


def redis_emptied(run: Run) -> Figures:
    """All of Redis is lost while a worker goes on: the log is folded again from its beginning."""
    worker = run.worker(state_rows_max=20)
    run.until_reading(worker)
    run.generate(8_000, RATE)
    run.until_sent(3_000)
    with run.fault():
        run.bench.forget()
    return run.finish(worker)


def broker_stopped(run: Run, *, killed: bool) -> Figures:
    """Kafka goes away, cleanly or as in a crash, and comes back."""
    worker = run.worker()
    run.until_reading(worker)
    run.generate(int(RATE * (run.bench.away_s + 8)), RATE)
    run.until_sent(2_000)
    with run.fault():
        run.bench.kafka.kill() if killed else run.bench.kafka.stop()
        stay_away(run)
        run.bench.kafka.start()
    return run.finish(worker)


def poison(run: Run) -> Figures:
    """Bad events, duplicates, late ones and wrong clocks: each has its end, all are counted."""
    worker = run.worker()
    run.until_reading(worker)
    rates = Rates(poison=0.01, duplicates=0.05, late=0.05, wrong_clocks=0.002)
    run.generate(8_000, RATE * 2, rates)
    run.until_generated()
    run.until_done()
    ends = run.ends(worker)
    figures = run.finish(worker)
    counted = {
        "consumed": figures.sent,
        "prediction": figures.predictions,
        "update": figures.updates,
        "dead_letter": figures.dead_letters,
        "late": figures.late,
        "duplicate": figures.duplicates,
    }
    figures.notes["counted"] = ends
    if any(ends.get(name) != number for name, number in counted.items()):
        figures.failures.append(f"the worker counted {ends}, the verifier {counted}")
    return figures


def port_of(url: str) -> int:
    """The port of a Redis URL."""
    return int(url.rsplit(":", 1)[1].split("/")[0])
