"""A real Redis Cluster for the tests: three primaries on loopback, all slots between them."""

import contextlib
import random
import socket
from pathlib import Path
from typing import Self

import redis

from stream_infer.processes import wait_until
from stream_infer.store.embedded import EmbeddedRedis

SLOTS = 16_384
BUS = 10_000
"""How far a node's bus port lies above its own."""
NODE_TIMEOUT_MS = 2_000


class RedisCluster:
    """Three nodes with append-only files; data and addresses outlive `stop_node`."""

    def __init__(self, directory: Path, nodes: int = 3) -> None:
        self._directory = directory
        self.nodes: list[EmbeddedRedis] = []
        self._count = nodes

    @property
    def url(self) -> str:
        """Address of all nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> Self:
        """Start the nodes and give each its part of the slots."""
        for number in range(self._count):
            options = {
                "cluster-enabled": "yes",
                "cluster-config-file": "nodes.conf",
                "cluster-node-timeout": str(NODE_TIMEOUT_MS),
                "cluster-announce-ip": "127.0.0.1",
            }
            node = EmbeddedRedis(self._directory / f"node-{number}", _port(), options=options)
            self.nodes.append(node.start())
        clients = [self._client(node) for node in self.nodes]
        bounds = [SLOTS * number // self._count for number in range(self._count + 1)]
        for number, client in enumerate(clients):
            slots = range(bounds[number], bounds[number + 1])
            client.execute_command("CLUSTER", "ADDSLOTS", *slots)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        for client in clients:
            client.close()
        self.until_whole()
        return self

    def until_whole(self) -> None:
        """Wait until every node says that all slots are served."""
        assert wait_until(lambda: all(map(self._whole, self.nodes)), timeout_s=30, interval_s=0.05)

    def stop_node(self, number: int, *, kill: bool = False) -> None:
        """Stop one node, cleanly or as a crash would."""
        self.nodes[number].kill() if kill else self.nodes[number].stop()

    def start_node(self, number: int) -> None:
        """Start a node again with what it had."""
        self.nodes[number].start()

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.stop()

    def _client(self, node: EmbeddedRedis) -> redis.Redis:
        return redis.Redis(port=node.port or 0, socket_timeout=5)

    def _whole(self, node: EmbeddedRedis) -> bool:
        with contextlib.suppress(redis.RedisError), self._client(node) as client:
            told = dict(
                line.split(":", 1)
                for line in client.execute_command("CLUSTER", "INFO").decode().split()
            )
            return (
                told["cluster_state"] == "ok"
                and int(told["cluster_slots_ok"]) == SLOTS
                and int(told["cluster_known_nodes"]) == len(self.nodes)
            )
        return False


def _port() -> int:
    """A port of which both it and its bus port are free."""
    for _ in range(100):
        port = random.randrange(20_000, 45_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + BUS))
            return port
    raise OSError("no two free ports that lie 10,000 apart")
