"""Whether what a worker depends on can be reached now, asked apart from its event loop."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from stream_infer.store.connection import cluster_address, is_cluster

CHECK_TIMEOUT_S = 2.0


def reachable(bootstrap: Sequence[str], redis_url: str) -> Callable[[], dict[str, str | None]]:
    """Return a check: what is wrong with `kafka` and with `redis`, None where each answers.

    Kafka is reachable when one of its addresses accepts connections. A check takes at most
    2 s for each address that does not answer.
    """
    redis = _client(redis_url)

    def check() -> dict[str, str | None]:
        return {"kafka": _kafka_problem(bootstrap), "redis": _redis_problem(redis)}

    return check


def _kafka_problem(bootstrap: Sequence[str]) -> str | None:
    reason = "no address is known"
    for address in bootstrap:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CHECK_TIMEOUT_S).close()
        except (OSError, ValueError) as error:
            reason = f"cannot be reached ({type(error).__name__})"
        else:
            return None
    return reason


def _redis_problem(redis: Redis) -> str | None:
    try:
        redis.ping()
    except (RedisError, OSError) as error:
        return f"does not answer ({type(error).__name__})"
    return None


def _client(url: str) -> Redis:
    """Return a client of a Redis, of a cluster of the first of its nodes that are named."""
    limits: dict[str, Any] = {
        "socket_timeout": CHECK_TIMEOUT_S,
        "socket_connect_timeout": CHECK_TIMEOUT_S,
    }
    once = Retry(NoBackoff(), 0)
    if not is_cluster(url):
        return Redis.from_url(url, retry=once, **limits)
    address = cluster_address(url)
    host, port = address.nodes[0]
    login: dict[str, Any] = {"username": address.username, "password": address.password}
    return Redis(host=host, port=port, ssl=address.tls, retry=once, **login, **limits)
