"""Two stages of one topology as one processor: each takes the partitions of its own topic."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from typing import TypeVar

from stream_infer.stream.processing import (
    TP,
    Ahead,
    Outcome,
    OutgoingRecord,
    PartitionsFenced,
    Processor,
    Records,
    RecordTooLarge,
)
from stream_infer.stream.rekeyed import RekeyedStage

T = TypeVar("T")


class Staged:
    """A topology's own processor, and the stage that folds its rekeyed topic."""

    def __init__(self, first: Processor, second: RekeyedStage, rekeyed_topic: str) -> None:
        self.first = first
        self.second = second
        self._topic = rekeyed_topic

    async def assign(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> Mapping[TP, int]:
        """Acquire the state of both stages' partitions."""
        mine, others = self._parted(partitions)
        positions = dict(await self.first.assign(mine, committed) if mine else {})
        positions.update(await self.second.assign(others, committed) if others else {})
        return positions

    async def process(self, batch: Records, ahead: Ahead | None = None) -> Outcome:
        """Read for the second stage; let the first do all its work; then fold, which cannot fail.

        So neither has moved when a read of either fails.
        """
        prepared = await self.second.prepare(self._of(batch, rekeyed=True))
        outcome = await self.first.process(self._of(batch, rekeyed=False))
        return Outcome(outcome.results, {**outcome.positions, **self.second.fold(prepared)})

    def acknowledged(self, positions: Mapping[TP, int]) -> None:
        """Let both note what is acknowledged."""
        self.first.acknowledged(self._of(positions, rekeyed=False))
        self.second.acknowledged(self._of(positions, rekeyed=True))

    def refused(self, record: OutgoingRecord, error: RecordTooLarge) -> Sequence[OutgoingRecord]:
        """Let the first stage say what is sent instead: the second sends nothing."""
        return self.first.refused(record, error)

    async def revoke(self, partitions: Sequence[TP]) -> None:
        """Let both store what is left and forget."""
        mine, others = self._parted(partitions)
        await _both(lambda: self.first.revoke(mine), lambda: self.second.revoke(others))

    def readable_again(self) -> Set[TP]:
        """Return what the first stage holds without state; the second one never does."""
        return self.first.readable_again()

    async def store(self) -> None:
        """Let both store what they may."""
        await _both(self.first.store, self.second.store)

    def _parted(self, partitions: Iterable[TP]) -> tuple[list[TP], list[TP]]:
        both = list(partitions)
        return (
            [tp for tp in both if tp.topic != self._topic],
            [tp for tp in both if tp.topic == self._topic],
        )

    def _of(self, by_partition: Mapping[TP, T], *, rekeyed: bool) -> dict[TP, T]:
        return {
            tp: value for tp, value in by_partition.items() if (tp.topic == self._topic) == rekeyed
        }


async def _both(*calls: Callable[[], Awaitable[None]]) -> None:
    """Make both calls, whatever the first one raises.

    Raises what went wrong; partitions that both have lost are named together.
    """
    fenced: list[PartitionsFenced] = []
    errors: list[Exception] = []
    for call in calls:
        try:
            await call()
        except PartitionsFenced as error:
            fenced.append(error)
        except Exception as error:
            errors.append(error)
    if errors and not fenced:
        raise errors[0]
    if fenced:
        # What else went wrong comes again with the next call, and is tried again then.
        raise PartitionsFenced(
            frozenset().union(*(error.partitions for error in fenced)),
            "; ".join(map(str, fenced)),
            reassigned=any(error.reassigned for error in fenced),
        )
