"""Records on their way to Kafka: one parcel a record batch, one delivery a micro-batch."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any

import numpy as np
from aiokafka.errors import (
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from stream_infer.core.arrays import FEW
from stream_infer.stream.partitioning import BATCH_OVERHEAD_BYTES, Partitioner, record_bytes
from stream_infer.stream.processing import OutgoingRecord, RecordTooLarge

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


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


class Packer:
    """Puts records together by where they go, leaving out those too large for their topic.

    `bytes_max` holds for topics that `limits` does not name.
    """

    def __init__(self, bytes_max: int, limits: Mapping[str, int] | None = None) -> None:
        self._bytes_max = bytes_max
        self._limits = dict(limits or {})
        self._partitioner = Partitioner()

    def limit(self, topics: Mapping[str, int]) -> None:
        """Say what topics accept, in bytes (their `max.message.bytes`)."""
        self._limits.update(topics)

    def pack(
        self, records: Sequence[OutgoingRecord], partitions: Mapping[str, Sequence[int]]
    ) -> Delivery:
        """Return the records as parcels; `partitions` are those of each topic, in order."""
        groups: dict[tuple[str, int], list[OutgoingRecord]] = {}
        refused: list[RecordTooLarge] = []
        for topic, of_topic in groupby(records, attrgetter("topic")):
            run, places = list(of_topic), partitions[topic]
            limit = self._limits.get(topic, self._bytes_max)
            found = self._together(run, limit, places) if len(run) > FEW else None
            if found is None:  # few, or one of them is no ordinary result
                found, too_large = self._one_by_one(run, limit, places)
                refused += too_large
            for partition, group in found.items():
                groups.setdefault((topic, partition), []).extend(group)
        return Delivery([Parcel(*tp, group) for tp, group in groups.items()], refused)

    def _together(
        self, records: list[OutgoingRecord], limit: int, places: Sequence[int]
    ) -> dict[int, list[OutgoingRecord]] | None:
        """Return many records by partition; None where one of them is not an ordinary result.

        Ordinary ones have a key that decides, a value, no headers, and surely fit.
        """
        keys = [record.key for record in records if record.key is not None]
        values = [record.value for record in records if record.value is not None]
        if len(keys) < len(records) or len(values) < len(records):
            return None
        if any(map(attrgetter("headers"), records)):
            return None
        if set(map(attrgetter("partition"), records)) != {None}:
            return None
        if max(map(len, keys)) + max(map(len, values)) + BATCH_OVERHEAD_BYTES > limit:
            return None
        chosen = self._partitioner.hashes(keys) % len(places)
        in_order = chosen.argsort(kind="stable")
        ends = np.bincount(chosen, minlength=len(places)).cumsum().tolist()
        sorted_records = list(map(records.__getitem__, in_order.tolist()))
        return {
            place: sorted_records[start:end]
            for place, (start, end) in zip(places, pairwise([0, *ends]), strict=True)
            if end > start
        }

    def _one_by_one(
        self, records: Sequence[OutgoingRecord], limit: int, places: Sequence[int]
    ) -> tuple[dict[int, list[OutgoingRecord]], list[RecordTooLarge]]:
        """Return records by partition, and those that are too large."""
        choose = self._partitioner.partition
        found: dict[int, list[OutgoingRecord]] = {}
        refused: list[RecordTooLarge] = []
        for record in records:
            if (size := record_bytes(record)) > limit:
                refused.append(RecordTooLarge(record, size, limit))
                continue
            partition = record.partition
            if partition is None:
                partition = choose(record.key, places)
            found.setdefault(partition, []).append(record)
        return found, refused

    def cut(self, delivery: Delivery) -> None:
        """Halve the parcels that Kafka found too large; refuse those of a single record."""
        parcels: list[Parcel] = []
        for parcel in delivery.parcels:
            if not isinstance(parcel.error, TOO_LARGE):
                parcels.append(parcel)
            elif len(parcel.records) > 1:
                half = len(parcel.records) // 2
                for part in (parcel.records[:half], parcel.records[half:]):
                    parcels.append(Parcel(parcel.topic, parcel.partition, part))
            else:
                record = parcel.records[0]
                limit = self._limits.get(record.topic, self._bytes_max)
                delivery.refused.append(RecordTooLarge(record, record_bytes(record), limit))
        delivery.parcels = parcels


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
