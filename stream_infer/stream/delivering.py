"""The seam between the loop of a topology and how its results and offsets reach Kafka."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from stream_infer.stream.group import Group
from stream_infer.stream.processing import TP, Outcome, OutgoingRecord, RecordTooLarge

Settle = Callable[[], Awaitable[None]]
Replace = Callable[[OutgoingRecord, RecordTooLarge], Sequence[OutgoingRecord]]
"""Says what to send instead of a record that is too large (see `Processor.refused`)."""


class Room:
    """How much may be on its way: `batches_max` micro-batches, and further ones up to a number.

    A batch may begin while fewer than `batches_max` are on their way, and fewer than `records_max`
    records.
    """

    def __init__(self, batches_max: int, records_max: int = 1 << 62) -> None:
        self._batches_max = batches_max
        self._records_max = records_max
        self._batches = 0
        self._records = 0
        self._roomy = asyncio.Event()
        self._roomy.set()

    async def wait(self) -> None:
        """Wait until another batch may begin."""
        await self._roomy.wait()

    def take(self, records: int) -> None:
        """Note a batch of so many records on its way."""
        self._note(1, records)

    def give(self, records: int) -> None:
        """Note that a batch of so many records has arrived."""
        self._note(-1, -records)

    def _note(self, batches: int, records: int) -> None:
        self._batches += batches
        self._records += records
        if self._batches < self._batches_max and self._records < self._records_max:
            self._roomy.set()
        else:
            self._roomy.clear()


class Delivering(Protocol):
    """Brings results to Kafka and commits offsets, for the partitions of one assignment."""

    @property
    def room(self) -> Room:
        """What may be on its way at a time."""
        ...

    async def take(self, partitions: Sequence[TP]) -> Mapping[TP, int | None]:
        """Begin to deliver for partitions; return their committed offsets, None for none."""
        ...

    async def submit(self, outcome: Outcome) -> Settle:
        """Let results be sent, in order; return what waits until Kafka has acknowledged them.

        To be awaited in the order of `submit`. Raises PartitionsFenced, once all else is delivered,
        for partitions that somebody else delivers for by now; GaveUp when it was told to stop.
        """
        ...

    def commit(self, positions: Mapping[TP, int]) -> None:
        """Let offsets be committed: all events below them are acknowledged, and state stored."""
        ...

    async def run(self) -> None:
        """Do what is to be done in the background, until `abandon`."""
        ...

    async def abandon(self) -> None:
        """Stop all transmission: what is not acknowledged by now is for the next owner."""
        ...

    async def flush(self) -> None:
        """Commit, for the last time, what is not committed yet."""
        ...


class Outlet(Protocol):
    """What delivers for one assignment after another."""

    async def start(self) -> None:
        """Connect. Raises an error of the project's own where the broker cannot do what it must."""
        ...

    def delivering(self, group: Group, replace: Replace) -> Delivering:
        """Return what delivers for a new assignment."""
        ...

    async def stop(self) -> None:
        """Disconnect."""
        ...
