"""Faults of Redis that take servers of a scenario's own: a cluster, a replica, one that is full."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults import workers
from tests.faults.harness import Run
from tests.faults.servers import RATE, stay_away
from tests.faults.verifier import Figures
from tests.servers.redis_cluster import RedisCluster


@contextmanager
def cluster(run: Run) -> Iterator[RedisCluster]:
    """Three nodes that hold the state of this scenario."""
    servers = RedisCluster(run.directory / "cluster")
    try:
        run.redis_url = run.store_url = servers.start().url
        yield servers
    finally:
        servers.stop()


def cluster_kill(run: Run) -> Figures:
    """`kill`, with the state in a Redis Cluster."""
    with cluster(run):
        return workers.kill(run)


def cluster_node_away(run: Run) -> Figures:
    """One node of a Redis Cluster is killed, and started again after a while."""
    with cluster(run) as servers:
        worker = run.worker()
        run.until_reading(worker)
        run.generate(int(RATE * (run.bench.away_s + 6)), RATE)
        run.until_sent(2_000)
        with run.fault():
            number = run.random.randrange(len(servers.nodes))
            servers.stop_node(number, kill=True)
            stay_away(run)
            servers.start_node(number)
        return run.finish(worker)
