"""Records on their way to Kafka: one parcel a record batch, one delivery a micro-batch."""

import asyncio
from collections.abc import Iterator
from typing import Any

from aiokafka.errors import KafkaTimeoutError

from stream_infer.stream.processing import OutgoingRecord, RecordTooLarge


class Parcel:
    """Records of one partition that travel as one batch."""

    __slots__ = ("future", "partition", "records", "topic")

    def __init__(self, topic: str, partition: int, records: list[OutgoingRecord]) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.future: asyncio.Future[Any] | None = None

    @property
    def error(self) -> BaseException | None:
        """Why it is not delivered; None while under way and when delivered."""
        if self.future is None:
            missing: BaseException = KafkaTimeoutError()
            return missing
        if not self.future.done():
            return None
        if self.future.cancelled():
            return asyncio.CancelledError()
        error: BaseException | None = self.future.exception()
        return error

    @property
    def delivered(self) -> bool:
        return self.future is not None and self.future.done() and self.error is None


class Delivery:
    """What was submitted together, until Kafka acknowledged it."""

    __slots__ = ("parcels", "refused")

    def __init__(self, parcels: list[Parcel], refused: list[RecordTooLarge]) -> None:
        self.parcels = parcels
        self.refused = refused


def retrieve(future: asyncio.Future[Any]) -> None:
    """Look at the exception, so that asyncio does not report one of an abandoned delivery."""
    if not future.cancelled():
        future.exception()


def batches(producer: Any, parcel: Parcel) -> Iterator[tuple[Parcel, Any]]:
    """Fill record batches in order; usually one holds all."""
    builder = producer.create_batch()
    start = 0
    for index, record in enumerate(parcel.records):
        fields = {
            "timestamp": None,
            "key": record.key,
            "value": record.value,
            "headers": list(record.headers) if record.headers else [],
        }
        if builder.append(**fields) is None:
            yield Parcel(parcel.topic, parcel.partition, parcel.records[start:index]), builder
            builder, start = producer.create_batch(), index
            builder.append(**fields)
    builder.close()
    yield Parcel(parcel.topic, parcel.partition, parcel.records[start:]), builder
