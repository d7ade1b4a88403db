"""Topics are made once, as declared, and a declaration that does not fit them is refused."""

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from stream_infer.core.errors import DeclarationError
from stream_infer.stream.app import build_app
from stream_infer.stream.topics import (
    TopicSpec,
    create_topics,
    message_bytes_max,
    partition_counts,
)
from tests.servers.kafka import Kafka
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import stream_settings

pytestmark = pytest.mark.kafka


async def test_topics_are_created_once_with_their_partitions_and_settings(
    kafka_server: Kafka, unique: str
) -> None:
    broker = kafka_server.bootstrap
    compacted, plain = f"{unique}.compacted", f"{unique}.plain"
    specs = [
        TopicSpec(
            name=compacted,
            partitions=3,
            compacted=True,
            retention_ms=60_000,
            config={"max.message.bytes": "5000"},
        ),
        TopicSpec(name=plain),
    ]
    expected = {compacted: 3, plain: 5}
    assert await create_topics(broker, specs, partitions_default=5) == expected
    assert await create_topics(broker, specs, partitions_default=7) == expected
    assert await partition_counts(broker, [compacted, f"{unique}.absent"]) == {compacted: 3}
    limits = await message_bytes_max(broker, [compacted, plain])
    assert limits[compacted] == 5000 < limits[plain]
    admin = AdminClient({"bootstrap.servers": broker})
    resource = ConfigResource(ResourceType.TOPIC, compacted)
    config = admin.describe_configs([resource])[resource].result(10)
    assert config["cleanup.policy"].value == "compact"
    assert config["retention.ms"].value == "60000"


async def test_another_number_of_partitions_than_declared_is_refused_also_by_an_app(
    kafka_server: Kafka, unique: str
) -> None:
    kafka_server.create_topics({unique: 2})
    with pytest.raises(DeclarationError, match="has 2 partitions, but 3 are declared"):
        await create_topics(kafka_server.bootstrap, [TopicSpec(name=unique, partitions=3)])
    app = build_app(
        unique,
        source_topics=[TopicSpec(name=unique, partitions=3)],
        processor_factory=lambda counts: Echo("out"),
        settings=stream_settings(kafka_server.bootstrap),
    )
    with pytest.raises(DeclarationError, match=unique):
        await app.start()
    await app.stop()
