"""Records on their way to Kafka: one parcel a record batch, one delivery a micro-batch."""

import asyncio
import time
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
    records = parcel.records
    start = 0
    while start < len(records):
        builder = producer.create_batch()
        stop = _fill(builder, records, start)
        builder.close()
        yield Parcel(parcel.topic, parcel.partition, records[start:stop]), builder
        start = stop


def _fill(builder: Any, records: list[OutgoingRecord], start: int) -> int:
    """Append records from `start` on while they fit, at least one; return where it stopped."""
    # Past aiokafka's own `append`, which costs as much again as what it calls.
    append = builder._builder.append
    now_ms = time.time_ns() // 1_000_000
    for place in range(start, len(records)):
        record = records[place]
        headers = list(record.headers) if record.headers else _NO_HEADERS
        if append(place - start, now_ms, record.key, record.value, headers) is None:
            break
        builder._relative_offset += 1
    return start + int(builder._relative_offset)


_NO_HEADERS: list[tuple[str, bytes]] = []
