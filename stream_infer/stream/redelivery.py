"""Replaying dead letters: the original records go back to the stream, each is marked as sent."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from stream_infer.core.topology import Topology
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.letters import (
    OURS,
    PUBLISH,
    Letter,
    Oldest,
    Selection,
    Source,
    letters,
    mark_of,
    replayed,
)
from stream_infer.stream.log_reader import LogReader, Span
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.processing import Headers, LocatedRecord, OutgoingRecord
from stream_infer.stream.producer import ResultProducer
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.topics import message_bytes_max

BATCH_RECORDS = 100
BATCH_BYTES = 8 << 20
"""What is sent, acknowledged, then marked together: what a crash may send again."""
RECORD_BYTES_MAX = 1 << 30
"""No limit of ours: Kafka knows what the stream's topic accepts."""
SEND_MAX_S = 60.0
"""How long a batch may wait for a Kafka that went away."""
NAMED_MAX = 100
"""Letters that are named among those not replayed; the others are counted."""


class Report(msgspec.Struct, kw_only=True):
    """What a replay did, in letters."""

    replayed: int = 0
    before: int = 0
    """Selected, but replayed earlier; or a repeat of another letter."""
    folded: int = 0
    """Of those replayed, the ones whose event was accepted before: only its result is lacking."""
    skipped: Counter[str] = msgspec.field(default_factory=Counter)
    """By the reason why."""
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    """Too large for the stream's topic; not marked."""
    named: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """Places, and why, of the first letters that were skipped or failed."""

    def left_out(self, counts: Counter[str], letter: Letter, why: str) -> None:
        """Count a letter that is not replayed."""
        counts[why] += 1
        if len(self.named) < NAMED_MAX:
            self.named.append((letter.place, why))


def original(
    record: LocatedRecord | Letter, source: Source, partitions: int, partitioner: Partitioner
) -> OutgoingRecord:
    """Return the record as it was sent to the stream first, our headers taken off.

    The key decides on the partition, as for any event. Without one it goes where it was, where
    that partition is still there.
    """
    partition = source.partition
    if record.key is not None or partition >= partitions:
        partition = partitioner.partition(record.key, range(partitions))
    headers = _without_ours(record.headers)
    return OutgoingRecord(source.topic, record.key, record.value, headers, partition)


def _without_ours(headers: Headers) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value) for name, value in headers if not name.startswith(OURS))


class Replay:
    """One replay of the letters that a topology's dead-letter topic holds when it starts.

    Each letter is sent, acknowledged, then marked by a record beside it, in batches: after a crash
    in between, the next replay sends at most that batch again. Two replays at a time do not see
    each other's marks.
    """

    def __init__(self, broker: str, topology: Topology, selection: Selection) -> None:
        self._topology = topology
        self._streams = [stream.name for stream in topology.streams]
        self._selection = selection
        self._log, self._sources = LogReader(broker), LogReader(broker)
        settings = StreamSettings(broker=broker, message_bytes_max=RECORD_BYTES_MAX)
        self._broker = broker
        self._producer = ResultProducer(settings, StreamCounters(), client_id="stream-infer-dlq")
        self._partitioner = Partitioner()
        self._partitions = 0
        self._seen: set[Source] = set()
        self._batch: list[tuple[Letter, Source, OutgoingRecord]] = []
        self._batch_bytes = 0
        self.report = Report()

    async def run(self, *, limit: int | None = None, dry: bool = False) -> Report:
        """Replay the selected letters, of those not replayed yet the `limit` oldest.

        A dry run reads and counts the same, and sends nothing. Raises DeclarationError for a topic
        that is not there, KafkaError and TimeoutError where Kafka fails.
        """
        topology, log = self._topology, self._log
        topic = topology.dead_letters
        async with log, self._sources:
            try:
                self._partitions = len(await self._sources.spans(topology.stream.name))
                spans = await log.spans(topic)
                limits = await message_bytes_max(self._broker, [*self._streams, topic])
                self._producer.limit(limits)
                self._seen = await replayed(log, topic, spans)
                chosen = None if limit is None else await self._choose(spans, limit)
                async for letter in letters(log, topic, spans, self._selection):
                    if chosen is None or (letter.partition, letter.offset) in chosen:
                        await self._take(letter, dry=dry)
                await self._flush(dry=dry)
            finally:
                await self._producer.stop()
        return self.report

    async def _choose(self, spans: Mapping[int, Span], limit: int) -> set[tuple[int, int]]:
        """Return where the oldest letters are that can still be replayed."""
        oldest, seen = Oldest(limit), set(self._seen)
        async for letter in letters(self._log, self._topology.dead_letters, spans, self._selection):
            source = letter.source
            if source in seen or self._foreign(source) is not None:
                continue
            assert source is not None
            seen.add(source)
            oldest.add(letter)
        return {(letter.partition, letter.offset) for letter in oldest.letters()}

    def _foreign(self, source: Source | None) -> str | None:
        """Return why a letter with this source does not go back, if it does not."""
        if source is None:
            return "its headers do not say which record it was"
        if source.topic not in self._streams:
            names = " or ".join(map(repr, self._streams))
            return f"it came from topic {source.topic!r}, not from the stream {names}"
        return None

    async def _take(self, letter: Letter, *, dry: bool) -> None:
        report, source = self.report, letter.source
        if source in self._seen:
            report.before += 1
            return
        why = self._foreign(source)
        record: LocatedRecord | Letter | None = letter
        if why is None and source is not None and letter.lacks_body:
            record = await self._sources.at(*source)
            if record is None:
                why = "it has no body, and its record is no longer in the stream"
        if why is not None or record is None or source is None:
            report.left_out(report.skipped, letter, why or "")
            return
        self._seen.add(source)
        outgoing = original(record, source, self._partitions, self._partitioner)
        self._batch.append((letter, source, outgoing))
        self._batch_bytes += len(outgoing.value or b"")
        if len(self._batch) >= BATCH_RECORDS or self._batch_bytes >= BATCH_BYTES:
            await self._flush(dry=dry)

    async def _flush(self, *, dry: bool) -> None:
        """Send the batch, then mark what was acknowledged."""
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        refused: Mapping[int, str] = {}
        if not dry:
            refused = await self._send([outgoing for _, _, outgoing in batch])
        marks: list[OutgoingRecord] = []
        topology, report = self._topology, self.report
        for letter, source, outgoing in batch:
            if (why := refused.get(id(outgoing))) is not None:
                report.left_out(report.failed, letter, why)
                continue
            report.replayed += 1
            report.folded += letter.stage == PUBLISH
            marks.append(
                mark_of(letter, source, topology=topology.name, topic=topology.dead_letters)
            )
        if not dry:
            await self._send(marks)

    async def _send(self, records: Sequence[OutgoingRecord]) -> dict[int, str]:
        """Wait for acknowledgements; return by `id` why records are too large for their topic."""
        async with asyncio.timeout(SEND_MAX_S):
            delivery = await self._producer.submit(records)
            refused = await self._producer.settle(delivery)
        return {id(error.record): str(error) for error in refused}
