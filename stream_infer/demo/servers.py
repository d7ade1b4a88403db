"""The broker and the Redis of a run: embedded ones of its own, or real ones that are given."""

import contextlib
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from stream_infer.core.errors import StateError, StreamInferError
from stream_infer.core.topology import Topology
from stream_infer.demo.children import Children
from stream_infer.processes import free_port, wait_until
from stream_infer.settings import Settings

LOG_MARK = "si:demo:log"
SCAN_COUNT = 1_000


def topics_of(topology: Topology) -> list[str]:
    """Return the topics of a topology, the one it reads first."""
    return [topology.stream.name, topology.output, topology.outcomes, topology.dead_letters]


async def prepare_topics(topology: Topology, settings: Settings) -> tuple[str, dict[str, int]]:
    """Create what a real broker lacks; return its cluster's id and the partitions of each topic.

    Raises StreamInferError where no Kafka answers.
    """
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    from stream_infer.stream.topics import TopicSpec, create_topics

    specs = [
        TopicSpec(name=name, replication=settings.replication_factor)
        for name in topics_of(topology)
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.broker)
    try:
        counts = await create_topics(settings.broker, specs, partitions_default=settings.partitions)
        await admin.start()
        cluster = await admin.describe_cluster()
    except (KafkaError, TimeoutError) as error:
        raise StreamInferError(f"no Kafka answers at {settings.broker}: {error}") from error
    finally:
        await admin.close()
    return str(cluster.get("cluster_id")), counts


async def real_log(
    topology: Topology, settings: Settings
) -> tuple[str, dict[str, int], dict[int, int]]:
    """Return a real broker's log: its name, the partitions of each topic, the stream's ends.

    Raises StreamInferError where no Kafka answers, or a topic is missing and cannot be created.
    """
    # Late: only this needs Kafka's client, and tests of the rest do without.
    from stream_infer.demo.reader import Position

    cluster, counts = await prepare_topics(topology, settings)
    stream = topology.stream.name
    missing = [name for name in topics_of(topology) if name not in counts]
    if missing:
        raise StreamInferError(
            f"Kafka at {settings.broker} has no topic {missing[0]!r} and does not create it"
        )
    group = settings.group or f"stream-infer.{topology.name}"
    position = Position(settings.broker, stream, counts[stream], group)
    await position.start()
    try:
        return f"kafka:{cluster}", counts, await position.ends()
    finally:
        await position.stop()


def new_log() -> str:
    """Return the name of a log that nobody has seen before: that of an embedded broker."""
    return f"embedded:{uuid.uuid4().hex}"


def fit_state_to_log(
    redis_url: str, topology: str, log: str, ends: dict[int, int], *, may_delete: bool
) -> bool:
    """Make sure that Redis holds state of this `log`, or none; return whether rows were deleted.

    Stored rows belong to the offsets of one log. With another log they would mislead: they are
    deleted where that is allowed. Raises StateError otherwise, with what to do.
    """
    from redis.exceptions import RedisError

    from stream_infer.store.connection import connect_blocking

    # One connection, closed here: nothing else of the demo speaks to Redis by itself.
    with contextlib.closing(connect_blocking(redis_url, decode_responses=True)) as redis:
        try:
            known = redis.get(LOG_MARK)
            stored = dict(_stored(redis, topology))
            same = known == log and all(end <= ends.get(p, 0) for p, end in stored.items())
            stale = bool(stored) and not same
            if stale and not may_delete:
                raise StateError(
                    f"Redis holds state of topology {topology!r} that belongs to another log than "
                    "this broker's; --reset-state deletes it, or give another Redis"
                )
            if stale:
                _delete(redis, f"si:{{{topology}:*}}:*")
            redis.set(LOG_MARK, log)
        except RedisError as error:
            raise StreamInferError(f"no Redis answers: {error}") from error
    return stale


def http_port(wanted: int) -> int:
    """Return `wanted`, or a free port where somebody listens on it (or it is 0)."""
    if wanted:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            return wanted
    return free_port()


def free_ports(n: int) -> range:
    """Return n free ports that follow one another."""
    while True:
        ports = range(first := free_port(), first + n)
        if ports[-1] < 65_536 and all(http_port(port) == port for port in ports):
            return ports


def is_ready(port: int) -> bool:
    """Whether the HTTP server on this port says that it is ready."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2.0) as page:
            return bool(page.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stored(redis: object, topology: str) -> Iterator[tuple[int, int]]:
    for key in redis.scan_iter(f"si:{{{topology}:*}}:meta", count=SCAN_COUNT):  # type: ignore[attr-defined]
        partition = int(key.partition("{")[2].partition("}")[0].rpartition(":")[2])
        offset = redis.hget(key, "next_offset")  # type: ignore[attr-defined]
        if offset is not None:
            yield partition, int(offset)


def _delete(redis: object, pattern: str) -> None:
    keys = []
    for key in redis.scan_iter(pattern, count=SCAN_COUNT):  # type: ignore[attr-defined]
        keys.append(key)
        if len(keys) >= SCAN_COUNT:
            redis.unlink(*keys)  # type: ignore[attr-defined]
            keys = []
    if keys:
        redis.unlink(*keys)  # type: ignore[attr-defined]


def data_folder(data_dir: str) -> Path:
    """Return the folder of what the demo keeps, made where it is not there."""
    path = Path(data_dir)
    path.mkdir(parents=True, exist_ok=True)
    return path


def wait_ready(port: int, children: Children, timeout_s: float = 60.0) -> None:
    """Wait until the HTTP server is ready.

    Raises StreamInferError where it is not in time, or a child process ends.
    """

    def ready() -> bool:
        children.check()
        return is_ready(port)

    if not wait_until(ready, timeout_s=timeout_s, interval_s=0.1):
        raise StreamInferError(f"the HTTP server was not ready within {timeout_s:.0f} s")


def post_event(port: int, topology: str, event: bytes) -> bytes:
    """Have the HTTP server score one event; its answer's body."""
    import urllib.request

    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/topologies/{topology}/predict",
        event,
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10.0) as answer:
        body: bytes = answer.read()
    return body
