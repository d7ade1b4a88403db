"""Talking to Kafka from short commands: what fails is told in one line."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from stream_infer.cli.output import keep_libraries_quiet
from stream_infer.core.errors import StreamInferError

if TYPE_CHECKING:
    from stream_infer.core.topology import Topology
    from stream_infer.settings import Settings
    from stream_infer.stream.topics import TopicSpec

T = TypeVar("T")


def run(broker: str, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; raises StreamInferError, naming the broker, where Kafka fails it."""
    keep_libraries_quiet()
    with told_in_one_line(broker):
        return asyncio.run(work)


@contextmanager
def told_in_one_line(broker: str) -> Iterator[None]:
    """Turn Kafka's errors into a StreamInferError that names the broker."""
    from aiokafka.errors import KafkaConnectionError, KafkaError

    try:
        yield
    except KafkaConnectionError as error:
        raise StreamInferError(f"no Kafka answers at {broker}; is it running?") from error
    except KafkaError as error:
        raise StreamInferError(f"Kafka at {broker}: {error}") from error
    except TimeoutError as error:
        raise StreamInferError(f"Kafka at {broker} did not answer in time") from error


def specs_of(topology: "Topology", settings: "Settings") -> list["TopicSpec"]:
    """Return the topics that a topology reads and writes, with the partitions to create."""
    import msgspec

    from stream_infer.stream.service import topic_specs

    read, written = topic_specs(topology, settings)
    return [
        msgspec.structs.replace(spec, partitions=settings.partitions) for spec in (*read, *written)
    ]


async def topic_counts(broker: str) -> dict[str, int]:
    """Return all topics but Kafka's own, by name, with their numbers of partitions."""
    from aiokafka import AIOKafkaClient

    client = AIOKafkaClient(bootstrap_servers=broker)
    await client.bootstrap()
    try:
        cluster = await client.fetch_all_metadata()
        names = sorted(name for name in cluster.topics() if not name.startswith("__"))
        return {name: len(cluster.partitions_for_topic(name) or ()) for name in names}
    finally:
        await client.close()
