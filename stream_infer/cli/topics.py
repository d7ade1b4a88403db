"""`topics`: create what a topology needs, list what there is."""

from typing import Annotated

import typer

from stream_infer.cli.options import Broker, Json, TopologyName, settings_of, topology_of
from stream_infer.cli.output import emit_json

Partitions = Annotated[
    int | None,
    typer.Option(metavar="N", help="Partitions of topics that are created.", show_default=False),
]


def create(
    topology: TopologyName,
    broker: Broker = None,
    partitions: Partitions = None,
    json: Json = False,
) -> None:
    """Create the topics that a topology reads and writes, where they do not exist yet."""
    import msgspec

    from stream_infer.cli import kafka
    from stream_infer.stream.topics import create_topics, partition_counts

    settings = settings_of(broker=broker, partitions=partitions)
    specs = kafka.specs_of(topology_of(topology), settings)
    names = [spec.name for spec in specs]

    async def work() -> tuple[dict[str, int], dict[str, int]]:
        before = await partition_counts(settings.broker, names)
        # Topics that exist keep their partitions, unless a number was asked for.
        wanted = [
            msgspec.structs.replace(spec, partitions=partitions) if spec.name in before else spec
            for spec in specs
        ]
        return before, await create_topics(settings.broker, wanted)

    before, after = kafka.run(settings.broker, work())
    missing = [name for name in names if name not in after]
    if json:
        created = [name for name in names if name in after and name not in before]
        emit_json({"topics": after, "created": created, "missing": missing})
        return
    for name in names:
        if name in missing:
            print(f"{name}: this broker creates no topics on request; it appears on first use")
        else:
            state = "there" if name in before else "created"
            print(f"{name}: {state}, {after[name]} partitions")


def list_(broker: Broker = None, json: Json = False) -> None:
    """List the topics of a broker with their numbers of partitions."""
    from stream_infer.cli import kafka

    settings = settings_of(broker=broker)
    counts = kafka.run(settings.broker, kafka.topic_counts(settings.broker))
    if json:
        emit_json({"topics": counts})
        return
    for name, count in counts.items():
        print(f"{name}: {count} partitions")
