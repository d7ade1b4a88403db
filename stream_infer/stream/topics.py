"""Topics: made with the right partitions where the broker can, checked where they exist."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaClient
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from stream_infer.core.errors import DeclarationError

log = logging.getLogger("stream_infer.stream")


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as declared; without `partitions`, an existing topic may have any number."""

    name: str
    partitions: int | None = None
    replication: int | None = None
    """Copies of each partition; None: three, or one for each broker where there are fewer."""
    retention_ms: int | None = None
    compacted: bool = False
    config: Mapping[str, str] = {}

    def overrides(self) -> dict[str, str]:
        """Return the topic's settings that differ from the broker's."""
        config = dict(self.config)
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        if self.compacted:
            config["cleanup.policy"] = "compact"
        return config


async def create_topics(
    bootstrap: str | Sequence[str],
    specs: Iterable[TopicSpec],
    *,
    partitions_default: int = 4,
    timeout_s: float = 30.0,
) -> dict[str, int]:
    """Create what is missing; return the partition count of every topic known to the broker.

    A broker that cannot create topics gets a log line; they may appear on first use. Raises
    DeclarationError where an existing topic has another number of partitions than declared,
    TimeoutError when topics do not appear, and aiokafka's KafkaError when the broker is away.
    """
    wanted = {spec.name: spec for spec in specs}
    counts = await partition_counts(bootstrap, list(wanted))
    missing = [spec for name, spec in wanted.items() if name not in counts]
    if missing:
        await _create(bootstrap, missing, partitions_default, timeout_s)
        counts = await _counts_of_all(bootstrap, list(wanted), timeout_s)
    for name, spec in wanted.items():
        count = counts.get(name)
        if count is not None and spec.partitions not in (None, count):
            raise DeclarationError(
                f"topic {name!r}",
                f"has {count} partitions, but {spec.partitions} are declared; declare {count}, "
                "or use another topic: keys would move between partitions",
            )
    return counts


async def _counts_of_all(
    bootstrap: str | Sequence[str], names: Sequence[str], timeout_s: float
) -> dict[str, int]:
    """Return the partition counts once every topic has its leaders; raises TimeoutError.

    Asking by name creates a topic on brokers that create topics by use.
    """
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        async with asyncio.timeout(timeout_s):
            return {name: len(await client._wait_on_metadata(name)) for name in names}
    except TimeoutError:
        raise TimeoutError(f"topics {', '.join(names)} do not all exist") from None
    finally:
        await client.close()


async def partition_counts(bootstrap: str | Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the number of partitions of those topics that exist, without creating any."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        cluster = await client.fetch_all_metadata()
        found = {name: cluster.partitions_for_topic(name) for name in names}
        return {name: len(partitions) for name, partitions in found.items() if partitions}
    finally:
        await client.close()


async def message_bytes_max(bootstrap: str | Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the topics' `max.message.bytes`; nothing where the broker does not tell."""
    if not names:
        return {}
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        answers = await admin.describe_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": None})
                for name in names
            ]
        )
    except Exception as error:  # a broker without this request fails in several ways
        log.debug("the broker does not tell its topics' settings: %r", error)
        return {}
    finally:
        await admin.close()
    limits: dict[str, int] = {}
    for answer in answers:
        for code, _, _, name, entries in answer.resources:
            for entry in entries if code == 0 else ():
                if entry[0] == "max.message.bytes":
                    limits[name] = int(entry[1])
    return limits


async def _create(
    bootstrap: str | Sequence[str], specs: Sequence[TopicSpec], partitions: int, timeout_s: float
) -> None:
    """Create topics, or say that the broker does not."""
    names = ", ".join(spec.name for spec in specs)
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        cluster = await client.fetch_all_metadata()
        if cluster.controller is None:
            log.warning("the broker does not create topics; %s must appear on first use", names)
            return
        copies = min(3, len(cluster.brokers()))
    finally:
        await client.close()
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        answer = await admin.create_topics(
            [
                NewTopic(
                    name=spec.name,
                    num_partitions=spec.partitions or partitions,
                    replication_factor=spec.replication or copies,
                    topic_configs=spec.overrides(),
                )
                for spec in specs
            ],
            timeout_ms=int(timeout_s * 1000),
        )
    finally:
        await admin.close()
    for name, code, *rest in answer.topic_errors:
        error_type = for_code(code)
        if code and error_type is not TopicAlreadyExistsError:
            reason = rest[0] if rest and rest[0] else error_type.__name__
            raise KafkaError(f"topic {name!r} could not be created: {reason}")
    log.info("created %s", names)
