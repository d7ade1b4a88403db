"""Three brokers, of which one is killed: the leader of a partition, and the group coordinator."""

from tests.faults.bench import Bench
from tests.faults.harness import Run
from tests.faults.verifier import Figures
from tests.servers.kafka_cluster import KafkaCluster

RATE = 400.0
EVENTS = 200_000
"""More than are sent: brokers come back in their own time."""


def leader_killed(outer: Run) -> Figures:
    """kill -9 of the coordinator, which leads partitions too; then, once it is back, of a leader.

    Replication 3, two of which must acknowledge.
    """
    cluster = KafkaCluster(outer.directory / "kafka")
    bench = Bench(cluster, outer.bench.redis, outer.directory)
    run: Run | None = None
    try:
        cluster.start()
        run = Run(bench, outer.figures.scenario, outer.figures.seed)
        run.figures = outer.figures
        return killed(run, cluster)
    finally:
        if run is not None:
            run.close()
        cluster.kill()


def killed(run: Run, cluster: KafkaCluster) -> Figures:
    """Kill two brokers, one after the other."""
    worker = run.worker(replication_factor=3)
    run.until_reading(worker)
    run.generate(EVENTS, RATE)
    first = cluster.coordinator(f"stream-infer.{run.name}")
    led: list[int] = []
    for _ in range(2):
        run.until_sent(run.sent() + run.random.randrange(1_000, 2_000))
        places = [
            (topic, part) for topic in (run.source, f"{run.name}.predictions") for part in range(4)
        ]
        if led:
            first = cluster.leader(run.source, run.random.randrange(4))
        led.append(sum(cluster.leader(*place) == first for place in places))
        run.until("all copies are there", cluster.in_sync, 60)
        with run.fault():
            cluster.brokers[first].kill()
            run.until_sent(run.sent() + int(RATE * run.bench.away_s))
            cluster.start()
        run.figures.notes.setdefault("sent_when_back", []).append(run.sent())
    run.until_sent(run.sent() + 1_000)
    run.stop_generating()
    run.figures.notes["partitions_led_by_the_killed"] = led
    if worker.process.poll() is not None:
        run.figures.failures.append("the worker ended")
    if not all(led):
        run.figures.failures.append(f"a killed broker led nothing: {led}")
    return run.finish(worker)
