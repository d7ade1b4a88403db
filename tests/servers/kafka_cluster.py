"""Three brokers on loopback, each also a controller, that outlive the loss of one."""

import uuid
from pathlib import Path
from typing import Self

from confluent_kafka.admin import AdminClient

from stream_infer.processes import free_port, wait_until
from tests.servers.kafka import Kafka

REPLICATION = 3
ACKNOWLEDGING = 2
IN_SYNC_MAX_S = 60.0


class KafkaCluster(Kafka):
    """Brokers 1 to 3; topics have three replicas, of which two must acknowledge."""

    def __init__(self, directory: Path, *, heap: str = "300m") -> None:
        super().__init__(directory, heap=heap)
        self.replication = REPLICATION
        numbers = range(1, REPLICATION + 1)
        ports = {number: free_port() for number in numbers}
        controllers = {number: free_port() for number in numbers}
        quorum = ",".join(f"{n}@127.0.0.1:{port}" for n, port in controllers.items())
        cluster = uuid.uuid4().hex[:22]
        self.brokers = {
            number: Kafka(
                directory / str(number),
                heap=heap,
                port=ports[number],
                cluster=cluster,
                settings=_settings(number, ports[number], controllers[number], quorum),
            )
            for number in numbers
        }
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports.values())

    def start(self) -> Self:
        """Start those that do not run; return once all answer and have all copies."""
        for broker in self.brokers.values():
            if not broker.running_now:
                broker.launch()
        for broker in self.brokers.values():
            broker.wait_started()
        if not wait_until(self.in_sync, timeout_s=IN_SYNC_MAX_S, interval_s=0.1):
            raise RuntimeError("the brokers did not come to have all copies")
        return self

    def stop(self) -> None:
        """Stop all, the last ones hard: without a majority a broker cannot stop cleanly."""
        self.kill()

    def kill(self) -> None:
        """End all at once."""
        for broker in self.brokers.values():
            broker.kill()

    def in_sync(self) -> bool:
        """Whether each partition has a leader and all its replicas."""
        try:
            known = self._admin().list_topics(timeout=10)
        except Exception:
            return False
        return len(known.brokers) == REPLICATION and all(
            partition.leader in self.brokers and len(partition.isrs) == len(partition.replicas)
            for topic in known.topics.values()
            for partition in topic.partitions.values()
        )

    def leader(self, topic: str, partition: int) -> int:
        """Which broker leads a partition, -1 for none."""
        known = self._admin().list_topics(timeout=10).topics[topic]
        return int(known.partitions[partition].leader)

    def coordinator(self, group: str) -> int:
        """Which broker coordinates a group."""
        admin: AdminClient = self._admin()
        described = admin.describe_consumer_groups([group], request_timeout=10)
        return int(described[group].result(timeout=10).coordinator.id)


def _settings(number: int, port: int, controller_port: int, quorum: str) -> dict[str, str]:
    mine = f"PLAINTEXT://127.0.0.1:{port}"
    return {
        "node.id": str(number),
        "controller.quorum.voters": quorum,
        "listeners": f"{mine},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": mine,
        "default.replication.factor": str(REPLICATION),
        "min.insync.replicas": str(ACKNOWLEDGING),
        "offsets.topic.replication.factor": str(REPLICATION),
        "transaction.state.log.replication.factor": str(REPLICATION),
        "transaction.state.log.min.isr": str(ACKNOWLEDGING),
        "share.coordinator.state.topic.replication.factor": str(REPLICATION),
        "share.coordinator.state.topic.min.isr": str(ACKNOWLEDGING),
        "replica.lag.time.max.ms": "3000",
    }
