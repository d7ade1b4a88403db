"""Clients of one Redis or of a Redis Cluster, by URL; a cluster's scheme says so.

redis://[user:password@]host[:port][/database]             rediss://… with TLS
redis+cluster://[user:password@]host[:port][,host[:port]…]  rediss+cluster://… with TLS
"""

import asyncio
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

from redis import Redis as BlockingRedis
from redis import RedisCluster as BlockingCluster
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, NodesManager, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode as BlockingClusterNode
from redis.exceptions import ClusterError, RedisClusterException
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream_infer.core.errors import SettingsError

CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
DEFAULT_PORT = 6379
UNREACHABLE = (
    RedisConnectionError,
    RedisTimeoutError,
    RedisClusterException,
    ClusterError,
    OSError,
    TimeoutError,
)
"""What is raised when Redis, or a node of the cluster that is asked, does not answer."""


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Where a cluster is found: any of its nodes, and how to log in; never printed with these."""

    nodes: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    tls: bool

    def __repr__(self) -> str:
        return f"ClusterAddress({len(self.nodes)} nodes)"


def is_cluster(url: str) -> bool:
    """Whether a URL names a Redis Cluster."""
    return url.partition("://")[0] in CLUSTER_SCHEMES


def cluster_address(url: str) -> ClusterAddress:
    """Return the nodes that a cluster's URL names.

    >>> cluster_address("redis+cluster://10.0.0.1:7000,10.0.0.2").nodes
    (('10.0.0.1', 7000), ('10.0.0.2', 6379))

    Raises SettingsError, without the URL's secrets, where it is no such URL.
    """
    scheme, _, rest = url.partition("://")
    login, _, places = rest.rpartition("@")
    places, _, path = places.partition("/")
    nodes: list[tuple[str, int]] = []
    for place in places.split(","):
        host, _, port = place.rpartition(":") if ":" in place else (place, "", str(DEFAULT_PORT))
        if not host or not port.isdigit():
            nodes.clear()
            break
        nodes.append((host.strip("[]"), int(port)))
    if scheme not in CLUSTER_SCHEMES or not nodes or path not in ("", "0"):
        raise SettingsError(
            "Redis Cluster URL: write redis+cluster://[user:password@]host[:port][,host[:port]…]; "
            "a cluster has database 0 only"
        )
    username, _, password = login.partition(":")
    return ClusterAddress(
        tuple(nodes), unquote(username) or None, unquote(password) or None, scheme[:6] == "rediss"
    )


def connect(
    url: str, *, timeout_s: float, retries: int = 0, connections_max: int | None = None
) -> Redis:
    """Return a client that connects when first used; one request takes `timeout_s` at most.

    A connection that turns out to be broken is replaced `retries` times before that is an error; a
    server that does not answer in time is one at once. With `connections_max`, callers wait for a
    connection instead of opening more. Raises SettingsError for a URL that is none.
    """
    timeouts: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    if is_cluster(url):
        return _cluster(url, timeouts)
    retry = Retry(NoBackoff(), retries, supported_errors=(RedisConnectionError,))
    try:
        if connections_max is None:
            return Redis.from_url(url, **timeouts, retry=retry)
        pool = BlockingConnectionPool.from_url(
            url, max_connections=connections_max, timeout=timeout_s, **timeouts, retry=retry
        )
    except ValueError as error:
        raise SettingsError(f"setting 'redis': {error}") from error
    return Redis.from_pool(pool)


class _Nodes(NodesManager):
    """What a client knows of a cluster, with one object for each node.

    When it looks at the cluster anew, redis-py makes new objects and keeps the old ones in its list
    of nodes: slots then have nodes that nobody closes, and the listed ones their former roles.
    """

    __slots__ = ()

    async def initialize(self) -> None:
        await super().initialize()
        for nodes in {id(nodes): nodes for nodes in self.slots_cache.values()}.values():
            for place, node in enumerate(nodes):
                listed = self.nodes_cache[node.name]
                listed.server_type = node.server_type
                nodes[place] = listed


class _Cluster(RedisCluster):
    """A cluster's client that closes the nodes it began with, too, which redis-py forgets."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        manager = self.nodes_manager
        self.nodes_manager = _Nodes(
            self.startup_nodes,
            manager.require_full_coverage,
            manager.connection_kwargs,
            event_dispatcher=self._event_dispatcher,
        )

    async def aclose(self) -> None:
        await super().aclose()
        for node in (*self.startup_nodes, *self.nodes_manager.startup_nodes.values()):
            await node.disconnect()
        await asyncio.gather(*self.nodes_manager._background_tasks)


def _cluster(url: str, timeouts: dict[str, Any]) -> Redis:
    """A cluster's client has the same commands and pipelines, though not the same base class.

    Only a retry looks at the nodes anew, so there must be one: who has a slot may have changed.
    """
    address = cluster_address(url)
    nodes = [ClusterNode(*place) for place in address.nodes]
    made = _Cluster(
        startup_nodes=nodes,
        username=address.username,
        password=address.password,
        ssl=address.tls,
        retry=Retry(NoBackoff(), 1),
        **timeouts,
    )
    return cast(Redis, made)


def connect_blocking(url: str, **options: Any) -> BlockingRedis:
    """Return a client for programs without a loop; `options` are those of redis-py."""
    if not is_cluster(url):
        client: BlockingRedis = BlockingRedis.from_url(url, **options)
        return client
    address = cluster_address(url)
    made = BlockingCluster(
        startup_nodes=[BlockingClusterNode(*place) for place in address.nodes],  # type: ignore[no-untyped-call]
        username=address.username,
        password=address.password,
        ssl=address.tls,
        **options,
    )
    return cast(BlockingRedis, made)
