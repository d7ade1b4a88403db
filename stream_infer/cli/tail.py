"""`tail`: follow predictions, or any topic, as they are published."""

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from stream_infer.cli.options import Broker, settings_of, topology_of


def tail(
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC_OR_TOPOLOGY",
            help="A topology, whose predictions are followed, or a topic.",
            show_default=False,
        ),
    ],
    broker: Broker = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with the oldest record kept.")
    ] = False,
    most: Annotated[
        int | None,
        typer.Option("--max", min=1, metavar="N", help="End after N records.", show_default=False),
    ] = None,
    duration_s: Annotated[
        float | None, typer.Option(min=0.0, help="End after this time.", show_default=False)
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print each record as it is, one JSON object a line.")
    ] = False,
) -> None:
    """Follow the predictions of a topology, or the records of a topic, until Ctrl-C."""
    from stream_infer.cli import kafka
    from stream_infer.core.errors import DeclarationError

    settings = settings_of(broker=broker)
    try:
        name = topology_of(topic).output
    except DeclarationError as error:
        if "not found" not in str(error):
            raise
        name = topic
    show = _raw if json else _line
    # Ctrl-C is how a person ends it.
    with suppress(KeyboardInterrupt):
        kafka.run(
            settings.broker,
            follow(settings.broker, name, show, most, duration_s, from_beginning=from_beginning),
        )


async def follow(
    broker: str,
    topic: str,
    show: Callable[[bytes | None, bytes | None], None],
    most: int | None,
    duration_s: float | None,
    *,
    from_beginning: bool,
) -> None:
    """Call `show` with key and value of each record, until `most` or `duration_s` is reached.

    Raises DeclarationError, with the nearest name, where there is no such topic.
    """
    import asyncio

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from stream_infer.cli.kafka import topic_counts
    from stream_infer.core.errors import DeclarationError

    counts = await topic_counts(broker)
    if topic not in counts:
        raise DeclarationError(f"topic {topic!r}", "not found", name=topic, choices=counts)
    # Without a group: whoever looks on takes no partition from anybody.
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=broker, fetch_max_wait_ms=100, isolation_level="read_committed"
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(counts[topic])]
        consumer.assign(partitions)
        seek = consumer.seek_to_beginning if from_beginning else consumer.seek_to_end
        await seek(*partitions)
        left = most if most is not None else -1
        try:
            async with asyncio.timeout(duration_s):
                while left:
                    record = await consumer.getone()
                    show(record.key, record.value)
                    left -= 1
        except TimeoutError:
            return
    finally:
        await consumer.stop()


def _raw(key: bytes | None, value: bytes | None) -> None:
    print((value or b"null").decode("utf-8", "replace"), flush=True)


def _line(key: bytes | None, value: bytes | None) -> None:
    """A prediction in short; anything else as it is."""
    import msgspec

    from stream_infer.core.results import Prediction

    try:
        prediction = msgspec.json.decode(value or b"null", type=Prediction)
    except msgspec.MsgspecError:
        _raw(key, value)
        return
    score = "none" if prediction.score is None else f"{prediction.score:.2f}"
    latency = "" if prediction.latency_ms is None else f"  {prediction.latency_ms:.1f} ms"
    degraded = f"  degraded: {', '.join(prediction.degraded)}" if prediction.degraded else ""
    print(
        f"{prediction.event_time:%Y-%m-%d %H:%M:%S}  {prediction.key}  {score}{latency}{degraded}",
        flush=True,
    )
