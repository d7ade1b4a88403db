"""Faults of a worker that merges two streams: killed while it works through a backlog of both.

Both topics are whole before the worker starts, so the order of the merged log is a function of the
logs; it must stay that of an undisturbed worker, and of the judge, wherever the worker was killed.
"""

import re
import time
from collections.abc import Sequence

from confluent_kafka import Producer

from stream_infer.store.connection import connect_blocking
from tests.faults.events import Made, Rates, events
from tests.faults.harness import Run, Worker
from tests.faults.models import save_models
from tests.faults.reading import PARTITIONS, committed, log_ends
from tests.faults.reports import reports
from tests.faults.shop import VECTOR_SKY
from tests.faults.two_streams_judge import judge
from tests.faults.verifier import Figures

SALES = 6_000
REPORTS = 4_000
KILLS = 3
WAIT = {"merge_wait_ms": 300_000}
"""Longer than the scenario may take: no record passes because a fetch was slow."""
SLOWLY = {"batch_records_max": 20, "in_flight_batches_max": 2}
"""Small micro-batches: the backlog lasts for seconds, and each kill falls between many."""
WAITS = re.compile(r"^stream_infer_merge_waits_total{.*} (\S+)$", re.M)


def kill(run: Run) -> Figures:
    """kill -9 at random moments of a backlog; the next worker has the same static member id."""
    topic = f"{run.name}.reports"
    run.bench.kafka.create_topics({topic: PARTITIONS}, **{"retention.ms": "-1"})
    save_models(run.bench.models, run.name, VECTOR_SKY, VECTOR_SKY)
    sales = list(events(run.figures.seed, SALES, Rates()))
    produce(run.broker, run.source, sales)
    produce(run.broker, topic, list(reports(run.figures.seed, REPORTS, sales)))

    def start() -> Worker:
        test = {"REPORTS": topic}
        return run.worker(group_instance=run.name, test=test, **WAIT, **SLOWLY)

    worker, done, killed_at = start(), 0, []
    for _ in range(KILLS):
        until_folded(run, done + run.random.randrange(200, (SALES + REPORTS) // 4))
        worker.process.kill()
        done = folded(run)
        killed_at.append(done)
        worker = start()
    if done >= SALES + REPORTS:
        run.figures.failures.append("nothing was left to do when the worker was killed")
    run.figures.notes["killed_at"] = killed_at
    finish(run, run.name, topic, worker)
    calm = f"{run.name}_calm"
    run.prepare(calm)
    save_models(run.bench.models, calm, VECTOR_SKY, VECTOR_SKY)
    finish(run, calm, topic, run.worker(topology=calm, test={"REPORTS": topic}, **WAIT))
    return judge(run, topic, calm)


def produce(broker: str, topic: str, made: Sequence[Made]) -> None:
    """Produce records to a topic; return when all are acknowledged."""
    settings = {"partitioner": "murmur2_random", "enable.idempotence": True, "log_level": 0}
    producer = Producer({"bootstrap.servers": broker, **settings})
    refused: list[object] = []
    for one in made:
        producer.produce(
            topic,
            key=one.key,
            value=one.value,
            timestamp=one.timestamp_ms,
            headers=[("sent-ms", str(time.time_ns() // 1_000_000).encode())],
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
        producer.poll(0)
    left = producer.flush(60)
    assert not left, f"{left} records of {topic} are not acknowledged"
    assert not refused, refused[0]


def positions(run: Run, topology: str) -> dict[int, tuple[int, ...]]:
    """Return up to which offset of each topic the rows of each partition number are folded."""
    with connect_blocking(run.store_url) as redis:
        texts = [
            redis.hget(f"si:{{{topology}:{number}}}:meta", "next_offset") or b"0,0"
            for number in range(PARTITIONS)
        ]
    return {number: tuple(map(int, text.split(b","))) for number, text in enumerate(texts)}


def folded(run: Run) -> int:
    """How many records of both topics are in the stored rows."""
    return sum(map(sum, positions(run, run.name).values()))


def until_folded(run: Run, count: int) -> None:
    """Wait until the stored rows have this many records of both topics."""
    run.until(f"{count} are folded", lambda: folded(run) >= count, run.finish_max_s)


def finish(run: Run, topology: str, reports_topic: str, worker: Worker) -> None:
    """Let a worker come to the end of both topics, and stop it; no wait may have run out."""
    topics = run.source, reports_topic
    ends = [log_ends(run.broker, topic) for topic in topics]
    whole = {number: tuple(end[number] for end in ends) for number in range(PARTITIONS)}
    group = f"stream-infer.{topology}"

    def done() -> bool:
        return positions(run, topology) == whole and ends == [
            committed(run.broker, group, topic) for topic in topics
        ]

    run.until(f"{topology} has done everything", done, run.finish_max_s)
    if any(map(float, WAITS.findall(run.metrics(worker)))):
        run.figures.failures.append(f"{topology} did not wait for a topic that had more")
    if (code := worker.stop()) != 0:
        run.figures.failures.append(f"a worker ended with {code}: {worker.log}")
