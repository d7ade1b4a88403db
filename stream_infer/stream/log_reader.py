"""Reading topics by position, as a member of no group: nothing is taken from anybody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_infer.core.errors import DeclarationError
from stream_infer.stream.processing import LocatedRecord
from stream_infer.stream.topics import partition_counts

SILENCE_MAX_S = 30.0
"""How long a broker may send nothing of what it has."""
POLL_MS = 500
STOP_MAX_S = 1.0


class Span(NamedTuple):
    """The offsets of one partition: the first that is kept, and the next to be written."""

    begin: int
    end: int


class LogReader:
    """Reads what topics hold now; as much is in memory as one fetch brings.

    Its methods raise aiokafka's KafkaError, and TimeoutError after `SILENCE_MAX_S` of silence.
    """

    def __init__(self, broker: str) -> None:
        self._broker = broker
        # What retention removes while it is read is skipped.
        self._consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=broker,
            fetch_max_wait_ms=100,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._close()

    async def spans(self, topic: str) -> dict[int, Span]:
        """Return what each partition of a topic holds; raises DeclarationError for no topic."""
        count = (await partition_counts(self._broker, [topic])).get(topic)
        if count is None:
            raise DeclarationError(
                f"topic {topic!r}", "not found; a topology's topics are made by its first worker"
            )
        places = [TopicPartition(topic, number) for number in range(count)]
        self._consumer.assign(places)
        begins = await self._consumer.beginning_offsets(places)
        ends = await self._consumer.end_offsets(places)
        return {place.partition: Span(begins[place], ends[place]) for place in places}

    async def records(self, topic: str, spans: Mapping[int, Span]) -> AsyncIterator[LocatedRecord]:
        """Yield the records of the spans, partition by partition, in the order of offsets."""
        for partition, span in sorted(spans.items()):
            place = TopicPartition(topic, partition)
            self._consumer.assign([place])
            self._consumer.seek(place, span.begin)
            position = span.begin
            while position < span.end:
                records, position = await self._next(place, position)
                for record in records:
                    if record.offset < span.end:
                        yield record

    async def at(self, topic: str, partition: int, offset: int) -> LocatedRecord | None:
        """Return the record at an offset; None where there is none, or none any more."""
        span = (await self.spans(topic)).get(partition, Span(0, 0))
        if not span.begin <= offset < span.end:
            return None
        async for record in self.records(topic, {partition: Span(offset, offset + 1)}):
            return record
        return None

    async def _next(self, place: TopicPartition, position: int) -> tuple[list[LocatedRecord], int]:
        """Return the next records and the position after them, which may be past a gap."""
        async with asyncio.timeout(SILENCE_MAX_S):
            while True:
                got = await self._consumer.getmany(place, timeout_ms=POLL_MS)
                reached = await self._consumer.position(place)
                if got or reached > position:
                    return got.get(place, []), reached

    async def _close(self) -> None:
        """Disconnect; aiokafka's own fetching may miss that it is cancelled, so cancel it again."""
        stopping = asyncio.ensure_future(self._consumer.stop())
        done, _ = await asyncio.wait([stopping], timeout=STOP_MAX_S)
        if not done:
            stopping.cancel()
            await asyncio.wait([stopping], timeout=STOP_MAX_S)
            with contextlib.suppress(Exception):
                await self._consumer._client.close()
