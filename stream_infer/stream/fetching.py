"""aiokafka's fetches, one right after the other, each when the worker can make use of it.

aiokafka's own routine looks at all partitions and waits for all that may happen before each fetch,
and keeps what it brought until somebody asks: some 400 calls and three turns of the loop. Where
nothing has changed but positions, which is nearly always, the next fetch of a broker is asked for
within the task of the one before, and what it brings is delivered as it arrives.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from stream_infer.stream.processing import TP
from stream_infer.stream.record_batches import from_position

ROUTINE_EVERY_S = 0.1
"""So often aiokafka's own routine decides what to fetch: partitions may have moved to a broker."""
TURNS_TO_WAKE = 3
"""Turns of the event loop from drawing until aiokafka's routine has looked at what there is."""
PLAIN_BYTES_MAX = 1 << 20
"""Of a larger answer, decoded in one go, nothing else would have its turn."""
VERSION = 11
"""Of a fetch whose answer is known here."""


class Drawn(NamedTuple):
    """All records of a partition up to `end`, beyond the last of them where there are no others."""

    tp: TP
    records: list[Any]
    end: int


class Taker(Protocol):
    """Who takes what is fetched."""

    def accepts(self, partitions: Collection[TP]) -> bool:
        """Say whether all that is fetched of these partitions may be delivered now."""
        ...

    def deliver(self, drawn: Sequence[Drawn]) -> None:
        """Take what was fetched; nothing may fail."""
        ...

    def fetched(self) -> None:
        """Hear that aiokafka keeps what a fetch has brought; nothing may fail."""
        ...

    async def wanting(self) -> None:
        """Wait until more is wanted."""
        ...


class Fetching:
    """Stands in the place of `Fetcher._proc_fetch_request`, which does all that is not plain."""

    def __init__(self, fetcher: Fetcher, taker: Taker) -> None:
        self._fetcher: Any = fetcher
        self._taker = taker

    async def run(self, assignment: Any, node: int, request: Any) -> bool:
        """Fetch from a broker until something changes; return whether aiokafka may keep records."""
        try:
            return await self._run(assignment, node, request)
        except asyncio.CancelledError:  # As aiokafka's own: whoever cancels awaits the task.
            return False

    async def _run(self, assignment: Any, node: int, request: Any) -> bool:
        until_s = time.monotonic() + ROUTINE_EVERY_S
        client = self._fetcher._client
        while True:
            response = failure = None
            try:
                response = await client.send(node, request)
            except KafkaError as error:
                failure = error
            brought = self._delivered(assignment, request, response)
            if brought is None:
                known: Any = _Answering(self._fetcher, _Answer(client, response, failure))
                brought = await Fetcher._proc_fetch_request(known, assignment, node, request)
                if not brought:
                    return False
                self._taker.fetched()
            if brought:
                await self._taker.wanting()
            following = None
            if time.monotonic() < until_s:
                following = self._following(assignment, node, request.topics)
            if following is None:
                # aiokafka's routine may be about to wake by what was drawn; if it saw this task
                # done and its broker still asked, it would wait for something else to happen.
                for _ in range(TURNS_TO_WAKE):
                    await asyncio.sleep(0)
                return True
            request = following

    def _delivered(self, assignment: Any, request: Any, response: Any) -> bool | None:
        """Deliver what a plain answer brings; return whether that is anything.

        None where nothing was done: what is not plain is for aiokafka.
        """
        fetcher = self._fetcher
        if (
            response is None
            or response.API_VERSION != VERSION
            or fetcher._client_rack
            or not assignment.active
            or fetcher._subscriptions.reassignment_in_progress
        ):
            return None
        answered = [
            (t, *partition) for t, partitions in response.topics for partition in partitions
        ]
        sizes = {TP(topic, number): len(data or b"") for topic, number, *_, data in answered}
        partitions = [tp for tp, size in sizes.items() if size]
        if sum(sizes.values()) > PLAIN_BYTES_MAX:
            return None
        if partitions and not self._taker.accepts(partitions):
            return None
        asked = {(topic, n): offset for topic, parts in request.topics for n, offset, _ in parts}
        found: list[tuple[Any, int, int, Drawn]] = []
        for topic, number, error, highwater, stable, _, aborted, _, data in answered:
            where = TopicPartition(topic, number)
            state = assignment.state_value(where)
            position = asked[topic, number]
            if error or aborted or where in fetcher._records:
                return None
            if state._position != position or state.paused:
                return None
            drawn = self._drawn(TP(topic, number), position, data or b"")
            if drawn is None:
                return None
            found.append((state, highwater, stable, drawn))
        now_ms = int(time.time() * 1000)
        for state, highwater, stable, drawn in found:
            state.highwater, state.lso, state.timestamp = highwater, stable, now_ms
            state.consumed_to(drawn.end)
        brought = [drawn for *_, drawn in found if drawn.records]
        self._taker.deliver(brought)
        return bool(brought)

    def _drawn(self, tp: TP, position: int, data: bytes) -> Drawn | None:
        """Return the records of `data` from a position on, None where aiokafka has to look."""
        records: list[Any] = []
        end = position
        try:
            batches = MemoryRecords(data)
            while batches.has_next():
                batch = batches.next_batch()
                if self._fetcher._check_crcs and not batch.validate_crc():
                    return None
                if not batch.is_control_batch:
                    records += from_position(list(batch), end)
                end = batch.next_offset
        except Exception:  # It will fail there again, and is told.
            return None
        if data and end == position:  # Part of a record, larger than what was asked for.
            return None
        return Drawn(tp, records, end)

    def _following(self, assignment: Any, node: int, topics: Any) -> Any:
        """Return the request for what comes next, None where it is for the routine to decide."""
        fetcher = self._fetcher
        if not assignment.active:
            return None
        leader = fetcher._client.cluster.leader_for_partition
        wanted = []
        for topic, partitions in topics:
            own = []
            for partition, _, bytes_max in partitions:
                tp = TopicPartition(topic, partition)
                state = assignment.state_value(tp)
                if (
                    tp in fetcher._records
                    or not state.has_valid_position
                    or state.paused
                    or leader(tp) != node
                ):
                    return None
                own.append((partition, state.position, bytes_max))
            # The broker reads partitions in the order of the request, up to its limit of bytes.
            own.append(own.pop(0))
            wanted.append((topic, own))
        wanted.append(wanted.pop(0))
        return FetchRequest(
            fetcher._fetch_max_wait_ms,
            fetcher._fetch_min_bytes,
            fetcher._fetch_max_bytes,
            fetcher._isolation_level,
            wanted,
            rack_id=fetcher._client_rack or "",
        )


class _Answer:
    """A client whose request is answered already."""

    def __init__(self, client: Any, response: Any, error: KafkaError | None) -> None:
        self._client = client
        self._response = response
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any) -> Any:
        """Return the answer, or raise what there was in its place."""
        if self._error is not None:
            raise self._error
        return self._response


class _Answering:
    """A fetcher whose client has the answer already."""

    def __init__(self, fetcher: Any, answer: _Answer) -> None:
        self._fetcher = fetcher
        self._client = answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fetcher, name)
