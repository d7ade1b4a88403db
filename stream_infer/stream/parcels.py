"""Records on their way to Kafka: one parcel a record batch, one delivery a micro-batch."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from aiokafka.errors import (
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from stream_infer.core.arrays import FEW
from stream_infer.stream.framing import HEADER_BYTES, Lot, RecordBatch, frames
from stream_infer.stream.partitioning import (
    BATCH_OVERHEAD_BYTES,
    Partitioner,
    headers_bytes,
    record_bytes,
)
from stream_infer.stream.processing import (
    Outgoing,
    OutgoingRecord,
    OutgoingRecords,
    RecordTooLarge,
    count,
    one_by_one,
)

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Parcel:
    """Records of one partition that travel as one batch."""

    __slots__ = ("future", "partition", "records", "topic")

    def __init__(self, topic: str, partition: int, records: Lot) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.future: asyncio.Future[Any] | None = None

    @property
    def outgoing(self) -> Sequence[Outgoing]:
        """Its records, as `Packer.pack` takes them."""
        return [self.records] if isinstance(self.records, OutgoingRecords) else self.records

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
        self, outgoing: Sequence[Outgoing], partitions: Mapping[str, Sequence[int]]
    ) -> Delivery:
        """Return records as parcels; `partitions` are those of each topic, in order.

        Many records keep their order within a partition among columns, and among single records.
        """
        delivery = Delivery([], [])
        columns: dict[str, list[OutgoingRecords]] = {}
        lists: dict[str, list[OutgoingRecord]] = {}
        if count(outgoing) <= FEW:
            self._one_by_one(one_by_one(outgoing), partitions, delivery)
            return delivery
        for item in outgoing:
            if isinstance(item, OutgoingRecords):
                columns.setdefault(item.topic, []).append(item)
            else:
                lists.setdefault(item.topic, []).append(item)
        for parts in columns.values():
            self._columns(parts, partitions, delivery)
        for records in lists.values():
            self._list(records, partitions, delivery)
        return delivery

    def _columns(
        self,
        parts: Sequence[OutgoingRecords],
        partitions: Mapping[str, Sequence[int]],
        delivery: Delivery,
    ) -> None:
        """Add records of one topic; one by one where one may be too large."""
        topic = parts[0].topic
        keys = [key for part in parts for key in part.keys]
        values = [value for part in parts for value in part.values]
        if not _surely_fit(keys, values, self._limit(topic)):
            self._one_by_one(one_by_one(parts), partitions, delivery)
            return
        for place, own in self._chosen(keys, partitions[topic]).items():
            lot = OutgoingRecords(topic, [keys[i] for i in own], [values[i] for i in own])
            delivery.parcels.append(Parcel(topic, place, lot))

    def _list(
        self,
        records: Sequence[OutgoingRecord],
        partitions: Mapping[str, Sequence[int]],
        delivery: Delivery,
    ) -> None:
        """Add records of one topic; one by one where not all are ordinary ones.

        Ordinary ones have a key that decides, a value, and surely fit.
        """
        topic = records[0].topic
        keys = [record.key for record in records if record.key is not None]
        values = [record.value for record in records if record.value is not None]
        complete = len(keys) == len(values) == len(records)
        decided = all(record.partition is None for record in records)
        longest = max((headers_bytes(r.headers) for r in records if r.headers), default=0)
        if not (complete and decided and _surely_fit(keys, values, self._limit(topic) - longest)):
            self._one_by_one(records, partitions, delivery)
            return
        for place, own in self._chosen(keys, partitions[topic]).items():
            delivery.parcels.append(Parcel(topic, place, [records[i] for i in own]))

    def _chosen(self, keys: Sequence[bytes], places: Sequence[int]) -> dict[int, list[int]]:
        """Return the numbers of the keys of each partition that has some."""
        chosen = self._partitioner.hashes(keys) % len(places)
        in_order = chosen.argsort(kind="stable").tolist()
        ends = np.bincount(chosen, minlength=len(places)).cumsum().tolist()
        return {
            place: in_order[start:end]
            for place, (start, end) in zip(places, pairwise([0, *ends]), strict=True)
            if end > start
        }

    def _one_by_one(
        self,
        records: Sequence[OutgoingRecord],
        partitions: Mapping[str, Sequence[int]],
        delivery: Delivery,
    ) -> None:
        """Add records that are not too large."""
        choose = self._partitioner.partition
        found: dict[tuple[str, int], list[OutgoingRecord]] = {}
        for record in records:
            topic, partition, limit = record.topic, record.partition, self._limit(record.topic)
            if (size := record_bytes(record)) > limit:
                delivery.refused.append(RecordTooLarge(record, size, limit))
                continue
            if partition is None:
                partition = choose(record.key, partitions[topic])
            found.setdefault((topic, partition), []).append(record)
        delivery.parcels += [Parcel(*tp, own) for tp, own in found.items()]

    def _limit(self, topic: str) -> int:
        return self._limits.get(topic, self._bytes_max)

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
                (record,) = one_by_one(parcel.outgoing)
                limit = self._limit(record.topic)
                delivery.refused.append(RecordTooLarge(record, record_bytes(record), limit))
        delivery.parcels = parcels


def retrieve(future: asyncio.Future[Any]) -> None:
    """Look at the exception, so that asyncio does not report one of an abandoned delivery."""
    if not future.cancelled():
        future.exception()


def _surely_fit(keys: Sequence[bytes], values: Sequence[bytes], limit: int) -> bool:
    longest = max(map(len, keys), default=0) + max(map(len, values), default=0)
    return longest + BATCH_OVERHEAD_BYTES <= limit


class Batches:
    """Frames parcels as record batches of `bytes_max` at most."""

    def __init__(self, bytes_max: int, compression: str | None, *, transactional: bool) -> None:
        self._bytes_max = bytes_max
        self._compression = compression
        self._transactional = transactional

    def of(self, parcel: Parcel) -> Iterator[tuple[Parcel, RecordBatch]]:
        """Return batches in order, with what is in each; usually one holds all."""
        now_ms = time.time_ns() // 1_000_000
        start = 0
        for framed, records in frames(parcel.records, self._bytes_max - HEADER_BYTES):
            batch = RecordBatch(
                framed,
                records,
                now_ms,
                compression=self._compression,
                transactional=self._transactional,
            )
            part = parcel.records[start : start + records]
            yield Parcel(parcel.topic, parcel.partition, part), batch
            start += records
