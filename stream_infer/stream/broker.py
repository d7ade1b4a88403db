"""An embedded Kafka broker to try the system out: librdkafka's mock cluster. It keeps nothing.

Records live in memory, at most about 5 MB or 100,000 of them a partition (the oldest go first), and
all are gone when it stops. Producers (idempotent and transactional), consumers, groups and commits
work against it; CreateTopics does not. Topics named at the start have the partitions asked for, any
other appears on its first use with 4.

`python -m stream_infer.stream.broker --topic flights=4` runs one, prints its address, and ends with
its parent.
"""

import argparse
import ctypes
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stream_infer.core.errors import StreamInferError
from stream_infer.processes import Guarded

logger = logging.getLogger(__name__)

DEFAULT_PARTITIONS = 4
KEEPS_NOTHING = (
    "embedded broker at %s: it keeps nothing (records are in memory, at most about 5 MB or 100,000 "
    "a partition, and gone when it stops); for anything that must last use a real Kafka"
)
_PRODUCER = 0
_PARENT_CHECK_S = 0.5


def _librdkafka() -> ctypes.CDLL:
    """The librdkafka inside the confluent-kafka wheel, with the signatures used here declared.

    The Python client offers the mock cluster only without its settings (partitions of a topic, the
    3 s that a group's first rebalance waits), so its C interface is called. Raises StreamInferError
    where it is not installed.
    """
    try:
        client = importlib.import_module("confluent_kafka.cimpl")
    except ImportError as error:
        raise StreamInferError(
            "no embedded broker: install it with pip install 'stream-infer[embedded]', "
            "or give the address of a running Kafka"
        ) from error
    # Names are looked up in the libraries that the extension module depends on too, wherever the
    # wheel put them.
    library = ctypes.CDLL(str(client.__file__))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
    }
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise StreamInferError(f"no embedded broker in this confluent-kafka: {error}") from error
    return library


class EmbeddedBroker:
    """A one-node broker inside this process, on a free loopback port; nothing outlives `stop`.

    `topics` are topic names with their numbers of partitions. Raises StreamInferError where it
    cannot start.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self.topics = dict(topics or {})
        self._library: ctypes.CDLL | None = None
        self._handle: int | None = None
        self._cluster: int | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """Address, `host:port`. Raises StreamInferError where it does not run."""
        if not self._bootstrap:
            raise StreamInferError("the embedded broker does not run")
        return self._bootstrap

    def start(self) -> Self:
        """Start it and create `topics`; a second start does nothing."""
        if self._cluster is not None:
            return self
        library = _librdkafka()
        reason = ctypes.create_string_buffer(512)
        settings = library.rd_kafka_conf_new()
        # The handle only carries the cluster: it never connects, and has nothing to warn of.
        library.rd_kafka_conf_set(settings, b"log_level", b"3", reason, len(reason))
        self._handle = library.rd_kafka_new(_PRODUCER, settings, reason, len(reason))
        if not self._handle:
            raise StreamInferError(f"the embedded broker did not start: {reason.value.decode()}")
        self._library = library
        self._cluster = library.rd_kafka_mock_cluster_new(self._handle, 1)
        if not self._cluster:
            self.stop()
            raise StreamInferError("the embedded broker did not start: no free port on loopback?")
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self._bootstrap = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        for topic, partitions in self.topics.items():
            self.create_topic(topic, partitions)
        logger.warning(KEEPS_NOTHING, self._bootstrap)
        return self

    def create_topic(self, topic: str, partitions: int = DEFAULT_PARTITIONS) -> None:
        """Create `topic`. Raises StreamInferError where it exists, as it does after any use."""
        if self._library is None or self._cluster is None:
            raise StreamInferError("the embedded broker does not run")
        if self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1):
            raise StreamInferError(
                f"the embedded broker cannot create topic {topic!r} with {partitions} partitions: "
                "does it exist already?"
            )

    def stop(self) -> None:
        """Stop it; its records are gone."""
        if self._library is not None:
            if self._cluster:
                self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._handle)
        self._library = self._handle = self._cluster = None
        self._bootstrap = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class BrokerProcess:
    """An embedded broker in a child process, which ends with this process, however that ends.

    `topics` are topic names with their numbers of partitions.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self.topics = dict(topics or {})
        self._process: Guarded | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """Address, `host:port`. Raises StreamInferError where it does not run."""
        if not self._bootstrap:
            raise StreamInferError("the embedded broker does not run")
        return self._bootstrap

    def start(self) -> Self:
        """Start it and wait for its address. Raises StreamInferError where it does not start."""
        if self._process is not None:
            return self
        arguments = [f"--topic={name}={count}" for name, count in self.topics.items()]
        process = Guarded(
            [sys.executable, "-m", "stream_infer.stream.broker", "--quiet", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        lines = []
        while line := process.stdout.readline().decode(errors="replace").strip():
            lines.append(line)
            if line.startswith("bootstrap="):
                self._process, self._bootstrap = process, line.removeprefix("bootstrap=")
                logger.warning(KEEPS_NOTHING, self._bootstrap)
                return self
        process.stop()
        raise StreamInferError(
            f"the embedded broker did not start: {lines[-1] if lines else 'no output'}"
        )

    def poll(self) -> int | None:
        """The exit code; None while it runs. Raises StreamInferError before the start."""
        if self._process is None:
            raise StreamInferError("the embedded broker does not run")
        return self._process.poll()

    def stop(self) -> None:
        """Stop it; its records are gone."""
        process, self._process, self._bootstrap = self._process, None, ""
        if process is not None:
            process.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _topic(argument: str) -> tuple[str, int]:
    name, _, partitions = argument.partition("=")
    return name, int(partitions or DEFAULT_PARTITIONS)


def main(arguments: list[str] | None = None) -> int:
    """Run a broker until SIGTERM, SIGINT or the end of the parent process."""
    parser = argparse.ArgumentParser(prog="python -m stream_infer.stream.broker")
    parser.add_argument("--topic", action="append", type=_topic, default=[], metavar="NAME[=N]")
    parser.add_argument("--port-file", type=Path, help="write the address here once it answers")
    parser.add_argument("--quiet", action="store_true", help="do not say that it keeps nothing")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.ERROR if options.quiet else logging.INFO, format="%(message)s"
    )
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    parent = os.getppid()
    # Blocked before librdkafka starts its threads, which inherit it: only the wait below receives
    # them.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    try:
        broker = EmbeddedBroker(dict(options.topic)).start()
    except StreamInferError as error:
        print(error, file=sys.stderr)
        return 1
    with broker:
        if options.port_file is not None:
            draft = options.port_file.with_name(options.port_file.name + ".new")
            draft.write_text(broker.bootstrap)
            draft.replace(options.port_file)
        print(f"bootstrap={broker.bootstrap}", flush=True)
        while os.getppid() == parent:
            if _wait_for(stop_signals, _PARENT_CHECK_S):
                break
    return 0


def _wait_for(signals: set[signal.Signals], timeout_s: float) -> bool:
    """Whether one of the blocked `signals` came within `timeout_s`."""
    if hasattr(signal, "sigtimedwait"):
        return signal.sigtimedwait(signals, timeout_s) is not None
    time.sleep(timeout_s)  # macOS has no sigtimedwait
    return bool(signals & signal.sigpending())


if __name__ == "__main__":
    sys.exit(main())
