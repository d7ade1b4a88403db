"""What a fetch has brought, a record batch at a time instead of record by record.

aiokafka's loop over records, in Python, takes longer than decoding them. Which batches count (what
is not aborted, no control batches, nothing corrupt) is decided there as ever: to it, each batch has
one record, `Records`, that stands for all.
"""

import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiokafka.consumer.fetcher import FetchResult


class Records(NamedTuple):
    """All records of a batch from the position on; `offset` is that of the last."""

    offset: int
    records: list[Any]


class _Batch:
    def __init__(self, batch: Any, partition: Any) -> None:
        self._batch = batch
        self._partition = partition

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Records]:
        records = from_position(list(self._batch), self._partition.next_fetch_offset)
        if records:
            yield Records(records[-1].offset, records)

    def __next__(self) -> Any:
        """Return the next record itself, of a control batch."""
        return next(self._batch)


def from_position(records: list[Any], position: int) -> list[Any]:
    """Return the records, in order, from an offset on: a batch may begin before it."""
    if not records or records[0].offset >= position:
        return records
    return [record for record in records if record.offset >= position]


class _Batches:
    def __init__(self, batches: Any, partition: Any) -> None:
        self._batches = batches
        self._partition = partition
        self.has_next = batches.has_next

    def next_batch(self) -> _Batch:
        return _Batch(self._batches.next_batch(), self._partition)


def by_batch(fetched: FetchResult) -> None:
    """Let a fetch's result give `Records`, of which nothing was taken yet."""
    partition = fetched._partition_records
    # No cycle: megabytes would wait for the garbage collector.
    partition._records = _Batches(partition._records, weakref.proxy(partition))
    partition._consumer_record = _as_decoded


def taken(fetched: FetchResult, records_max: int) -> list[Any]:
    """Take whole batches, in order, until there are `records_max` records or more, or no others.

    Raises what reading the first of them fails with. A later one that fails ends what is taken: the
    position is where it begins, and it is fetched again from there.
    """
    found: list[Any] = []
    while len(found) < records_max and fetched.has_more():
        try:
            batches = fetched.getall(1)
        except Exception as error:
            if not found or isinstance(error, MemoryError):
                raise
            break
        for batch in batches:
            found += batch.records
    return found


def _as_decoded(tp: Any, records: Records) -> Records:
    return records
