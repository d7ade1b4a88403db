"""Faults of Redis that take servers of a scenario's own: a cluster, a replica, one that is full."""

import re
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis

from stream_infer.store.embedded import EmbeddedRedis
from tests.faults import workers
from tests.faults.harness import Run, Worker
from tests.faults.proxy import Proxy
from tests.faults.reading import stored_offsets, stored_rows
from tests.faults.servers import RATE, port_of, stay_away
from tests.faults.verifier import Figures, Judge
from tests.servers.redis_cluster import RedisCluster


class Server(EmbeddedRedis):
    """A Redis that is told of a full disk by an error, as any program is, and not by a signal."""

    def _command(self, program: Path, port: int) -> list[str]:
        command = super()._command(program, port)
        return ["/bin/sh", "-c", "trap '' XFSZ; exec \"$@\"", "redis", *command]

    def limit_files(self, most_bytes: int) -> None:
        """Let no file of this server grow beyond a size."""
        assert self.pid is not None
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most_bytes, hard))


@contextmanager
def own_redis(run: Run, **options: str) -> Iterator[tuple[Server, Redis]]:
    """A Redis that holds the state of this scenario alone."""
    settings = {name.replace("_", "-"): value for name, value in options.items()}
    with Server(run.directory / "redis", options=settings) as server:
        run.redis_url = run.store_url = server.url
        with Redis.from_url(server.url) as client:
            yield server, client


def used_bytes(client: Redis) -> int:
    """How much memory a Redis uses."""
    return int(client.info("memory")["used_memory"])


def evicting(run: Run) -> Figures:
    """Redis evicts rows; then it keeps evicting; then it is told not to."""
    with own_redis(run, maxmemory_policy="allkeys-lru") as (_, client):
        worker = run.worker(state_rows_max=20)
        run.until_reading(worker)
        run.generate(12_000, RATE)
        run.until_sent(3_000)
        with run.fault():
            client.config_set("maxmemory", used_bytes(client) - 50_000)
            run.until("it notices", lambda: worker.said("may have been evicted"), 60)
            run.until("it pauses", lambda: worker.said("keeps evicting rows"), 120)
            run.until_sent(8_000)
            run.figures.notes["evicted_keys"] = client.info("stats")["evicted_keys"]
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 0)
        return run.finish(worker)


def full(run: Run) -> Figures:
    """Redis has no memory left, and refuses to write, until it is given more."""
    with own_redis(run) as (_, client):
        worker = run.worker(state_rows_max=20)
        run.until_reading(worker)
        run.generate(9_000, RATE)
        run.until_sent(2_000)
        with run.fault():
            client.config_set("maxmemory", used_bytes(client))
            run.until("a write is refused", lambda: worker.said("maxmemory"), 60)
            run.until_sent(6_000)
            client.config_set("maxmemory", 0)
        return run.finish(worker)


def disk_full(run: Run) -> Figures:
    """The disk under Redis' append-only file is full, until there is room again."""
    with own_redis(run) as (server, _):
        worker = run.worker(state_rows_max=20)
        run.until_reading(worker)
        run.generate(9_000, RATE)
        run.until_sent(2_000)
        with run.fault():
            server.limit_files((server.directory / "appendonly.aof").stat().st_size + 50_000)
            run.until("a write is refused", lambda: worker.said("MISCONF"), 60)
            run.until_sent(6_000)
            server.limit_files(resource.RLIM_INFINITY)
        figures = run.finish(worker)
        kept = stored_rows(server.url, run.name)
        server.kill()  # What was acknowledged must be in the file, and nothing torn in the middle.
        server.start()
        if stored_rows(server.url, run.name) != kept:
            figures.failures.append("the append-only file does not hold what was stored")
        return figures


def promoted(run: Run) -> Figures:
    """The primary dies after its replica lost touch with it; the replica takes its place."""
    with ExitStack() as stack:
        primary = stack.enter_context(Server(run.directory / "primary"))
        replica = stack.enter_context(Server(run.directory / "replica"))
        replication = stack.enter_context(Proxy.started(port_of(primary.url)))
        road = stack.enter_context(Proxy.started(port_of(primary.url)))
        client = stack.enter_context(Redis.from_url(replica.url))
        run.redis_url = f"redis://127.0.0.1:{road.port}/0"
        run.store_url = primary.url
        client.replicaof("127.0.0.1", replication.port)
        run.until(
            "it replicates", lambda: client.info("replication")["master_link_status"] == "up", 30
        )
        worker = run.worker(state_rows_max=20)
        run.until_reading(worker)
        run.generate(12_000, RATE)
        run.until_sent(2_000)
        run.until("rows are replicated", lambda: stored(replica.url, run.name) > 0, 30)
        with replication.silent():
            kept = stored(replica.url, run.name)
            run.until_sent(5_000)
            run.until("more is stored", lambda: stored(primary.url, run.name) > kept, 30)
            with run.fault():
                run.figures.notes["lost_events"] = stored(primary.url, run.name) - kept
                primary.kill()
                client.replicaof("NO", "ONE")
                run.store_url = replica.url
                road.turn_to(port_of(replica.url))
                road.reset()
        return run.finish(worker)


def away_degraded(run: Run) -> Figures:
    """Redis is away while the worker predicts without state; then the events are folded."""
    worker = run.worker(while_state_away="degrade", state_away_after_s=0.5)
    run.until_reading(worker)
    run.generate(int(RATE * (run.bench.away_s + 8)), RATE)
    run.until_sent(2_000)
    with run.fault():
        run.bench.redis.stop()
        stay_away(run)
        run.bench.redis.start()
    run.until_generated()
    run.until_done()
    ends, counted = run.ends(worker), metric(run, worker, "predictions_without_state_total")
    figures = run.finish(worker, judge=Judge(degrades=True))
    flagged = figures.notes["without_state"]
    figures.notes |= {"counted": ends, "counted_without_state": counted}
    if not 0 < flagged == counted:
        figures.failures.append(
            f"{flagged} predictions without state, the worker counted {counted}"
        )
    if ends.pop("consumed") != sum(ends.values()):
        figures.failures.append(f"ends do not add up: {figures.notes['counted']}")
    if figures.repeats:
        figures.failures.append(f"{figures.repeats} results were published again")
    return figures


def metric(run: Run, worker: Worker, name: str) -> int:
    """Return one number of a worker's metrics page."""
    found = re.findall(rf"^stream_infer_{name}{{.*}} (\S+)$", run.metrics(worker), re.M)
    return int(sum(map(float, found)))


def stored(url: str, name: str) -> int:
    """How many events are folded into the stored rows."""
    return sum(stored_offsets(url, name).values())


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
