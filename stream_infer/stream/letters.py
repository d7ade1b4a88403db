"""Reading dead letters, and the marks of those that were replayed."""

import heapq
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import msgspec

from stream_infer.stream.dead_letters import OFFSET, PARTITION, REASON, STAGE, TOPIC, TOPOLOGY
from stream_infer.stream.log_reader import LogReader, Span
from stream_infer.stream.processing import Headers, LocatedRecord, OutgoingRecord

OURS = "si-"
"""How our headers begin."""
REPLAYED_OF = "si-replayed-of"
PUBLISH = "publish"
"""Stage of the letters that have no body: their event was accepted, its result was not."""


class Source(NamedTuple):
    """Where the record of a letter was consumed; the same for repeats of one letter."""

    topic: str
    partition: int
    offset: int


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter; nothing that it holds is to be trusted."""

    partition: int
    offset: int
    timestamp_ms: int
    """When it was set aside, by the broker's clock."""
    stage: str
    reason: str
    source: Source | None
    """None where its headers do not say: it is not a worker's."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    size_bytes: int
    """Bytes of key and value."""

    @property
    def place(self) -> str:
        """Its own partition and offset, as they are written on the command line."""
        return f"{self.partition}:{self.offset}"

    @property
    def lacks_body(self) -> bool:
        """Whether the record itself is only in its source topic."""
        return self.stage == PUBLISH and self.value is None


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are meant; what is None selects all. Times are those of setting aside."""

    reason: str | None = None
    """Text that the reason contains, in any case of letters."""
    stage: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    """The first moment that is too late."""

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is selected."""
        return (
            (self.reason is None or self.reason.lower() in letter.reason.lower())
            and (self.stage is None or self.stage == letter.stage)
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
        )


def is_mark(headers: Headers) -> bool:
    """Whether a record of a dead-letter topic says that a letter was replayed.

    A letter keeps the headers of its record, whatever their names; only a letter has a stage.
    """
    names = {name for name, _ in headers}
    return REPLAYED_OF in names and STAGE not in names


def letter_of(record: LocatedRecord) -> Letter:
    """Return a record of a dead-letter topic as a letter."""
    texts = _texts(record.headers)
    return Letter(
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        stage=texts.get(STAGE, ""),
        reason=texts.get(REASON, ""),
        source=_source(texts),
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        size_bytes=len(record.key or b"") + len(record.value or b""),
    )


def mark_of(letter: Letter, source: Source, *, topology: str, topic: str) -> OutgoingRecord:
    """Return the record that says that a letter was replayed; it goes where the letter is.

    Retention then never removes the mark before the letter.
    """
    texts = {
        REPLAYED_OF: letter.place,
        TOPIC: source.topic,
        PARTITION: str(source.partition),
        OFFSET: str(source.offset),
        TOPOLOGY: topology,
    }
    headers = tuple((name, text.encode()) for name, text in texts.items())
    return OutgoingRecord(topic, None, b"", headers=headers, partition=letter.partition)


async def letters(
    log: LogReader, topic: str, spans: Mapping[int, Span], selection: Selection
) -> AsyncIterator[Letter]:
    """Yield the selected letters, partition by partition, in the order of offsets."""
    async for record in log.records(topic, spans):
        if not is_mark(record.headers):
            letter = letter_of(record)
            if selection.takes(letter):
                yield letter


async def replayed(log: LogReader, topic: str, spans: Mapping[int, Span]) -> set[Source]:
    """Return the sources of the letters that were replayed: the only thing kept of each."""
    found: set[Source] = set()
    async for record in log.records(topic, spans):
        if is_mark(record.headers):
            source = _source(_texts(record.headers))
            if source is not None:
                found.add(source)
    return found


class Oldest:
    """Keeps the `limit` oldest of the letters given to it, without their bodies."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A heap of the newest first: the next to go.
        self._heap: list[tuple[int, int, int, Letter]] = []

    def add(self, letter: Letter) -> None:
        """Take a letter in, and the newest out where there are too many."""
        bare = msgspec.structs.replace(letter, key=None, value=None, headers=())
        entry = (-letter.timestamp_ms, -letter.partition, -letter.offset, bare)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def letters(self) -> list[Letter]:
        """Return what is kept, oldest first."""
        return [entry[-1] for entry in sorted(self._heap, reverse=True)]


def _texts(headers: Headers) -> dict[str, str]:
    """Return headers as text; of several of one name the last, as ours are appended."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}


def _source(texts: Mapping[str, str]) -> Source | None:
    topic, partition, offset = (texts.get(name, "") for name in (TOPIC, PARTITION, OFFSET))
    if not topic or not all(text.isascii() and text.isdigit() for text in (partition, offset)):
        return None
    if max(len(partition), len(offset)) > 19:  # beyond Kafka's 64 bits
        return None
    return Source(topic, int(partition), int(offset))
