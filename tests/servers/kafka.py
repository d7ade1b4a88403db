"""A real Kafka for the tests: one KRaft node on loopback, or a running one whose address is
given."""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from confluent_kafka.admin import AdminClient, NewTopic

from stream_infer.processes import Guarded, free_port, wait_until
from tests.servers.jars import java, kafka_jars

_SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory}/data
auto.create.topics.enable=false
num.partitions=4
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=4194304
controlled.shutdown.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""
# One short-lived broker beside the tests: start quickly and stay small, peak speed matters less.
_JVM = ["-Xms256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]


class Kafka:
    """One broker in a folder of its own; its data and its address outlive `stop` and `kill`.

    `settings` are further broker settings, which win over ours; `jvm` the Java options but for the
    heap's limit; `port` and the `cluster`'s id are chosen where they are not given.
    `Kafka.running(address)` stands for a broker that is not ours: it can be used, not stopped.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        heap: str = "512m",
        jvm: Sequence[str] = _JVM,
        start_timeout_s: float = 60.0,
        port: int = 0,
        cluster: str = "",
    ) -> None:
        self.directory = directory
        self.settings = dict(settings or {})
        self.heap = heap
        self.jvm = list(jvm)
        self.start_timeout_s = start_timeout_s
        self.port = port
        self.cluster = cluster
        self.replication = 1
        self.bootstrap = ""
        self.owned = True
        self._process: Guarded | None = None

    @classmethod
    def running(cls, address: str) -> Self:
        """The broker at `address`, `host:port`, which somebody else runs."""
        kafka = cls(Path())
        kafka.bootstrap, kafka.owned = address, False
        if not kafka._answers(timeout_s=10.0):
            raise RuntimeError(f"no Kafka answers at {address} (STREAM_INFER_TEST_KAFKA)")
        return kafka

    @property
    def running_now(self) -> bool:
        """Whether we have started it, and not ended it."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process id of the broker."""
        assert self._process is not None, "the broker does not run"
        return self._process.pid

    def start(self) -> Self:
        """Start it, again with the same data and address where it ran before; return once it
        answers."""
        if self._process is None:
            self.launch()
            self.wait_started()
        return self

    def launch(self) -> None:
        """Start it, without waiting until it answers."""
        assert self.owned, "this broker is not ours to start"
        if not self.bootstrap:
            self._format()
        with (self.directory / "kafka.log").open("ab") as log:
            self._process = Guarded(
                self._java("kafka.Kafka", str(self._settings_file), heap=self.heap),
                stdout=log,
                stderr=subprocess.STDOUT,
                grace_s=30.0,
            )

    def wait_started(self) -> None:
        """Return once it answers; raises RuntimeError where it does not."""
        process = self._process
        assert process is not None
        if not wait_until(
            self._answers, alive=lambda: process.poll() is None, timeout_s=self.start_timeout_s
        ):
            self.kill()
            raise RuntimeError(f"Kafka did not start:\n{self._log_tail()}")

    def stop(self) -> None:
        """Stop it cleanly."""
        assert self.owned, "this broker is not ours to stop"
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self.owned, "this broker is not ours to kill"
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def restart(self, *, kill: bool = False) -> Self:
        """Stop it, cleanly or not, and start it with the same data and address."""
        self.kill() if kill else self.stop()
        return self.start()

    def create_topics(self, topics: Mapping[str, int], **settings: str) -> None:
        """Create `topics`, names with their numbers of partitions; return once each has a
        leader."""
        admin = self._admin()
        created = admin.create_topics(
            [
                NewTopic(name, count, self.replication, config=settings)
                for name, count in topics.items()
            ]
        )
        for future in created.values():
            future.result(timeout=30)

        def led() -> bool:
            known = admin.list_topics(timeout=10).topics
            return all(
                name in known
                and len(known[name].partitions) == count
                and all(partition.leader >= 0 for partition in known[name].partitions.values())
                for name, count in topics.items()
            )

        assert wait_until(led, timeout_s=30, interval_s=0.02), f"no leaders for {sorted(topics)}"

    def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics; return once the broker no longer lists them."""
        names = list(names)
        admin = self._admin()
        for future in admin.delete_topics(names).values():
            future.result(timeout=30)

        def gone() -> bool:
            return not set(names) & set(admin.list_topics(timeout=10).topics)

        assert wait_until(gone, timeout_s=30, interval_s=0.02), f"still there: {names}"

    def topics(self) -> dict[str, int]:
        """The topics that are not Kafka's own, with their numbers of partitions."""
        known = self._admin().list_topics(timeout=10).topics
        return {n: len(t.partitions) for n, t in known.items() if not n.startswith("__")}

    @property
    def _settings_file(self) -> Path:
        return self.directory / "server.properties"

    def _format(self) -> None:
        port, controller_port = self.port or free_port(), free_port()
        directory = self.directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        text = _SETTINGS.format(
            port=port, controller_port=controller_port, directory=directory.as_posix()
        )
        self._settings_file.write_text(
            text + "".join(f"{name}={value}\n" for name, value in self.settings.items())
        )
        tool = ["kafka.tools.StorageTool", "format", "-t", self.cluster or uuid.uuid4().hex[:22]]
        result = subprocess.run(
            self._java(*tool, "-c", str(self._settings_file), heap="128m"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"Kafka's storage was not formatted:\n{result.stderr}")
        self.bootstrap = f"127.0.0.1:{port}"

    def _java(self, *arguments: str, heap: str) -> list[str]:
        logging = Path(__file__).with_name("log4j2.properties")
        jvm = [*self.jvm, f"-Xmx{heap}"] if heap != "128m" else [*_JVM[1:], f"-Xmx{heap}"]
        return [
            java(),
            *jvm,
            f"-Dlog4j2.configurationFile={logging}",
            "-cp",
            f"{kafka_jars()}/*",
            *arguments,
        ]

    def _answers(self, timeout_s: float = 1.0) -> bool:
        with contextlib.suppress(Exception):
            return bool(self._admin().list_topics(timeout=timeout_s).brokers)
        return False

    def _admin(self) -> AdminClient:
        # What fails while a broker starts or stops is expected: the caller sees it by itself.
        settings = {"bootstrap.servers": self.bootstrap, "log_level": 0}
        return AdminClient({**settings, "reconnect.backoff.max.ms": 100})

    def _log_tail(self) -> str:
        lines = (self.directory / "kafka.log").read_text(errors="replace").splitlines()
        return os.linesep.join(lines[-20:])
