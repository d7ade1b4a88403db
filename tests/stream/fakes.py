"""Processors whose every call is written down, for tests of the stream side without an engine."""

import asyncio
import json
from collections.abc import Mapping, Sequence, Set

from stream_infer.stream.processing import (
    TP,
    Ahead,
    Outcome,
    OutgoingRecord,
    Records,
    RecordTooLarge,
)


class Echo:
    """Answers every record with one that names its offset; remembers all it was told."""

    def __init__(
        self,
        output: str,
        *,
        start: Mapping[TP, int] | None = None,
        failures: int = 0,
        work_s: float = 0.0,
    ) -> None:
        self.output = output
        self.start = start or {}
        self.failures = failures
        self.work_s = work_s
        self.owned: set[TP] = set()
        self.committed_seen: dict[TP, int | None] = {}
        self.processed: list[tuple[TP, int]] = []
        self.positions: dict[TP, int] = {}
        self.calls: list[str] = []
        self.revoked: list[TP] = []
        self.not_owned: list[TP] = []
        self.refusals: list[RecordTooLarge] = []

    async def assign(
        self, partitions: Sequence[TP], committed: Mapping[TP, int | None]
    ) -> Mapping[TP, int]:
        self.calls.append("assign")
        self.owned.update(partitions)
        self.committed_seen.update(committed)
        return {tp: self.start[tp] for tp in partitions if tp in self.start}

    async def process(self, batch: Records, ahead: Ahead | None = None) -> Outcome:
        self.calls.append("process")
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the store is away")
        await asyncio.sleep(self.work_s)
        results: dict[TP, list[OutgoingRecord]] = {}
        for tp, consumed in batch.items():
            if tp not in self.owned:
                self.not_owned.append(tp)
            records = results[tp] = []
            for record in consumed:
                self.processed.append((tp, record.offset))
                identity = [tp.topic, tp.partition, record.offset, (record.value or b"").decode()]
                records.append(
                    OutgoingRecord(self.output, record.key, json.dumps(identity).encode())
                )
        return Outcome(results, {tp: consumed[-1].offset + 1 for tp, consumed in batch.items()})

    def acknowledged(self, positions: Mapping[TP, int]) -> None:
        self.calls.append("acknowledged")
        self.positions.update(positions)

    def refused(self, record: OutgoingRecord, error: RecordTooLarge) -> Sequence[OutgoingRecord]:
        self.refusals.append(error)
        return [OutgoingRecord(record.topic, record.key, b'"too large"')]

    async def revoke(self, partitions: Sequence[TP]) -> None:
        self.calls.append("revoke")
        self.revoked.extend(partitions)
        self.owned.difference_update(partitions)

    def readable_again(self) -> Set[TP]:
        return frozenset()

    async def store(self) -> None:
        if self.calls[-1:] != ["store"]:
            self.calls.append("store")
