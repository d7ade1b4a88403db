"""The seam between the Faust shell and what a topology does with its records."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import repeat
from typing import NamedTuple, Protocol

import msgspec

from stream_infer.core.errors import FencedError, StreamInferError

Headers = Sequence[tuple[str, bytes]]


class TP(NamedTuple):
    """A topic and one of its partitions; equal, as a tuple, to Faust's and aiokafka's own."""

    topic: str
    partition: int


class ConsumerRecord(Protocol):
    """What is read of a consumed record; its topic and partition are known where it came from."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Broker or producer time, milliseconds since the epoch."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class LocatedRecord(ConsumerRecord, Protocol):
    """A record that says itself where it was read (aiokafka's `ConsumerRecord` does)."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...


class MergedRecords(list[ConsumerRecord]):
    """Records of the same partition of several topics, in the order in which they are folded.

    `sources` says, for each, of which of the topology's streams it is.
    """

    __slots__ = ("sources",)

    def __init__(self, records: Iterable[ConsumerRecord] = (), sources: Iterable[int] = ()) -> None:
        super().__init__(records)
        self.sources = list(sources)


class OutgoingRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to produce; without `partition`, the key decides as Kafka's default partitioner."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class OutgoingRecords(msgspec.Struct, frozen=True):
    """Records of one topic as columns of one length: the keys decide, and there are no headers."""

    topic: str
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice) -> "OutgoingRecords":
        return OutgoingRecords(self.topic, self.keys[part], self.values[part])

    def objects(self) -> list[OutgoingRecord]:
        """Return them one by one."""
        return list(map(OutgoingRecord, repeat(self.topic), self.keys, self.values))


Outgoing = OutgoingRecord | OutgoingRecords


def count(outgoing: Iterable[Outgoing]) -> int:
    """Return the number of records."""
    return sum(len(item) if isinstance(item, OutgoingRecords) else 1 for item in outgoing)


def one_by_one(outgoing: Iterable[Outgoing]) -> list[OutgoingRecord]:
    """Return the records of all columns, and those between them, in order."""
    found: list[OutgoingRecord] = []
    for item in outgoing:
        found += item.objects() if isinstance(item, OutgoingRecords) else [item]
    return found


Records = Mapping[TP, Sequence[ConsumerRecord]]
Ahead = Callable[[], Records | None]
"""Takes the batch that will come next, None where there is none yet."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a batch: by partition, records to send and the next offset to consume."""

    results: Mapping[TP, Sequence[Outgoing]]
    positions: Mapping[TP, int]

    @property
    def outgoing(self) -> list[Outgoing]:
        """What is to be sent of all partitions."""
        return [item for items in self.results.values() for item in items]


class RecordTooLarge(StreamInferError):  # noqa: N818
    """A record exceeds what its topic accepts: `size_bytes` against `limit_bytes`, `setting`."""

    def __init__(self, record: OutgoingRecord, size_bytes: int, limit_bytes: int) -> None:
        self.record = record
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        self.setting = "max.message.bytes"
        super().__init__(
            f"record of {size_bytes} bytes for topic {record.topic!r} is larger than the "
            f"{limit_bytes} bytes that the topic accepts; raise its {self.setting}"
        )


class PartitionsFenced(FencedError):  # noqa: N818
    """Only these partitions of the batch have another owner; the others are to be tried again.

    `reassigned` is False where no other owner is known: they may be taken again at once.
    """

    def __init__(self, partitions: frozenset[TP], message: str, *, reassigned: bool = True) -> None:
        super().__init__(message)
        self.partitions = partitions
        self.reassigned = reassigned


class Processor(Protocol):
    """What a topology does with the records of its partitions.

    `process` is never called twice at a time, nor are `store` and `revoke`; but those may run
    while `process` waits. Every method is called again after an error, so a call
    that raises must leave no trace. `FencedError` means that another worker owns the partitions:
    they are not revoked, but may be assigned again.
    """

    async def assign(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> Mapping[TP, int]:
        """Take ownership; return from which offset each partition must be read.

        `committed` is None where nothing was committed. An offset may lie below or above the
        committed one; a partition left out starts at its committed offset, or where
        `offset_reset` says.
        """
        ...

    async def process(self, batch: Records, ahead: Ahead | None = None) -> Outcome:
        """Do the work of everything that waited, in offset order within each partition.

        What `ahead` returns may be begun with meanwhile, as far as it depends on no state: it is
        the next batch, if no partition is lost before its turn.
        """
        ...

    def acknowledged(self, positions: Mapping[TP, int]) -> None:
        """Hear that results of all events below these offsets are acknowledged by Kafka.

        Called in order: state up to there may be stored by the next `store`.
        """
        ...

    def refused(self, record: OutgoingRecord, error: RecordTooLarge) -> Sequence[OutgoingRecord]:
        """Return what to send instead of a record that is too large (a dead letter, usually)."""
        ...

    async def revoke(self, partitions: Sequence[TP]) -> None:
        """Store what is left and forget these partitions.

        Called after all that was in flight is acknowledged, before the last commit.
        """
        ...

    def readable_again(self) -> Set[TP]:
        """Return partitions that are processed without their state, which could be read now.

        To be assigned again once all their results are acknowledged.
        """
        ...

    async def store(self) -> None:
        """Store what may be stored: something was acknowledged, or a flush interval has passed."""
        ...
