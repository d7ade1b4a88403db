"""What waits to be processed of several topics: logs merged by event time, with bounded waits."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from stream_infer.core.merging import PASSES, EventTimes, Merge
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.pickup import Batch, Pickup, size_bytes
from stream_infer.stream.processing import TP, ConsumerRecord, MergedRecords
from stream_infer.stream.settings import StreamSettings

log = logging.getLogger("stream_infer.stream")


@dataclass(frozen=True, slots=True)
class Merging:
    """The topics whose partitions of one number are one log, in the order of declaration.

    `times` read the event times of each topic's records.
    """

    topics: tuple[str, ...]
    times: tuple[EventTimes, ...]

    def members(self, partition: int) -> list[TP]:
        """Return the partitions of one number."""
        return [TP(topic, partition) for topic in self.topics]


def together(merging: Merging | None, partitions: Iterable[TP]) -> set[TP]:
    """Return with them the partitions of the same numbers that are one log with them."""
    if merging is None:
        return set(partitions)
    numbers = {tp.partition for tp in partitions}
    return {member for number in numbers for member in merging.members(number)}


def complete(merging: Merging | None, partitions: Sequence[TP]) -> list[TP]:
    """Leave out partitions of a number that was not assigned of all topics: they are no log."""
    assigned = set(partitions)
    alone = {tp for tp in assigned if not together(merging, [tp]) <= assigned}
    for tp in sorted(alone):
        log.error(
            "%s/%d was assigned without the same partition of the topology's other topics and is "
            "left alone; all workers of a group must read the same topics",
            *tp,
        )
    return sorted(assigned - alone)


@dataclass(slots=True)
class _Lane:
    """What waits of one partition number, each record with when it came.

    `blocked_s` says, by topic, since when it is waited for though it has more; a topic in
    `given_up` was waited for in vain, and is not again before it delivers something.
    """

    tp: TP
    members: list[TP]
    merge: Merge[tuple[ConsumerRecord, float]]
    sizes: list[int]
    given_up: set[int] = field(default_factory=set)
    blocked_s: dict[int, float] = field(default_factory=dict)


class MergingPickup:
    """As `Pickup`, but the partitions of one number come out as one sequence, by event time.

    A record waits while another topic has more that was not fetched yet, until that topic delivered
    nothing for `merge_wait_ms`; then it is not waited for again before it delivers, and this is
    counted. For a topic that is at its end, a record waits `merge_idle_ms` at most. `end` gives the
    end of a partition's log as last heard; one that is not known counts as not reached.

    Each partition has its share of what may wait: a topic that waits for another one never takes
    the room that the other one needs.
    """

    def __init__(
        self,
        merging: Merging,
        settings: StreamSettings,
        counters: StreamCounters,
        end: Callable[[TP], int | None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._merging = merging
        self._settings = settings
        self._counters = counters
        self._end = end
        self._monotonic_s = monotonic_s
        self._lanes: dict[int, _Lane] = {}
        self._positions: dict[TP, int] = {}
        self._turn = 0
        self._retry_s = math.inf
        self._changed = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self.wanting = asyncio.Event()
        """As that of `Pickup`."""

    def open(self, tp: TP, position: int) -> None:
        """Accept records of a partition from an offset on."""
        self._positions[tp] = position
        if tp.partition not in self._lanes:
            members = self._merging.members(tp.partition)
            merge = Merge[tuple[ConsumerRecord, float]](len(members))
            self._lanes[tp.partition] = _Lane(members[0], members, merge, [0] * len(members))
        self._update()

    def close(self, partitions: Sequence[TP]) -> None:
        """Drop what waits of these partitions' numbers, and what will still come."""
        for number in {tp.partition for tp in partitions}:
            self._lanes.pop(number, None)
            for tp in self._merging.members(number):
                self._positions.pop(tp, None)
        self._update()

    @property
    def positions(self) -> Mapping[TP, int]:
        """The offset from which on records are accepted next, of each open partition."""
        return self._positions

    @property
    def open_partitions(self) -> set[TP]:
        """Partitions of which more may be fetched."""
        return {tp for tp in self._positions if self._has_room(tp)}

    def put(self, tp: TP, records: Sequence[ConsumerRecord], end: int = 0) -> None:
        """Let records wait, all that there are up to `end`, or up to the last of them.

        The bound is kept by who fetches: see `room`.
        """
        position = self._positions.get(tp)
        if position is None:
            return
        fresh = [record for record in records if record.offset >= position]
        if not fresh:
            return
        self._positions[tp] = max(fresh[-1].offset + 1, end)
        lane, source = self._lanes[tp.partition], self._source(tp)
        times_us = self._merging.times[source](
            [record.value for record in fresh], [record.timestamp for record in fresh]
        )
        now_s = self._monotonic_s()
        lane.merge.put(source, [(record, now_s) for record in fresh], times_us)
        lane.sizes[source] += size_bytes(fresh)
        lane.given_up.discard(source)
        lane.blocked_s.pop(source, None)
        self._update()
        self._changed.set()

    async def take(self) -> Batch:
        """Wait for records whose turn it is; return all of them, up to the caps of a batch."""
        while not (batch := self.ready()):
            self.wanting.set()
            self._changed.clear()
            timeout_s = self._retry_s - self._monotonic_s()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if timeout_s == math.inf else max(timeout_s, 0)):
                    await self._changed.wait()
        return batch

    def ready(self) -> Batch:
        """Return the records whose turn it is now, up to the caps of a batch."""
        batch: Batch = {}
        self._retry_s = math.inf
        lanes = list(self._lanes.values())
        self._turn += 1
        first = self._turn % len(lanes) if lanes else 0
        records_left, bytes_left = self._settings.batch_records_max, self._settings.batch_bytes_max
        for lane in lanes[first:] + lanes[:first]:
            if records_left <= 0 or bytes_left <= 0:
                break
            if not all(tp in self._positions for tp in lane.members):
                continue
            merged, size = self._merged(lane, records_left, bytes_left)
            if merged:
                batch[lane.tp] = merged
                records_left -= len(merged)
                bytes_left -= size
        self._update()
        return batch

    @property
    def waiting(self) -> tuple[int, int]:
        """Records and bytes that wait."""
        lanes = self._lanes.values()
        counts = [lane.merge.count(source) for lane in lanes for source in range(len(lane.members))]
        return sum(counts), sum(sum(lane.sizes) for lane in lanes)

    @property
    def has_room(self) -> bool:
        """Whether anything may be fetched."""
        return not self._positions or any(map(self._has_room, self._positions))

    async def room(self) -> None:
        """Wait until less waits than the bounds allow."""
        await self._roomy.wait()

    def _merged(self, lane: _Lane, records_max: int, bytes_max: int) -> tuple[MergedRecords, int]:
        """Take from one lane what may pass, one record or more if any may."""
        merged, size = MergedRecords(), 0
        merge = lane.merge
        while len(merged) < records_max and size < bytes_max:
            source = merge.next()
            if source is None or not self._may_pass(lane, source):
                break
            record, _ = merge.pop(source)
            bytes_here = size_bytes((record,))
            lane.sizes[source] -= bytes_here
            size += bytes_here
            merged.append(record)
            merged.sources.append(source)
        return merged, size

    def _may_pass(self, lane: _Lane, source: int) -> bool:
        """Say whether a topic's first record need not wait for another topic."""
        time_us, (_, arrived_s) = lane.merge.first(source)
        if time_us == PASSES:
            return True
        for other, tp in enumerate(lane.members):
            if lane.merge.count(other) or other in lane.given_up:
                continue
            now_s, end = self._monotonic_s(), self._end(tp)
            has_more = end is None or end > self._positions[tp]
            if has_more:
                wait_ms = self._settings.merge_wait_ms
                until_s = lane.blocked_s.setdefault(other, now_s) + wait_ms / 1000
            else:
                until_s = arrived_s + self._settings.merge_idle_ms / 1000
            if now_s < until_s:
                self._retry_s = min(self._retry_s, until_s)
                return False
            if has_more:
                self._give_up(lane, other, tp.topic)
        return True

    def _give_up(self, lane: _Lane, source: int, topic: str) -> None:
        lane.given_up.add(source)
        lane.blocked_s.pop(source, None)
        self._counters.merge_waits[topic] = self._counters.merge_waits.get(topic, 0) + 1

    def _source(self, tp: TP) -> int:
        return self._merging.topics.index(tp.topic)

    def _has_room(self, tp: TP) -> bool:
        lane, source = self._lanes[tp.partition], self._source(tp)
        share = len(self._positions)
        return (
            lane.merge.count(source) < max(self._settings.waiting_records_max // share, 1)
            and lane.sizes[source] < self._settings.waiting_bytes_max // share
        )

    def _update(self) -> None:
        if self.has_room:
            self._roomy.set()
        else:
            self._roomy.clear()


AnyPickup: TypeAlias = Pickup | MergingPickup


def make_pickup(
    merging: Merging | None,
    settings: StreamSettings,
    counters: StreamCounters,
    end: Callable[[TP], int | None],
) -> AnyPickup:
    """Return what records wait in: of several topics, or of one."""
    if merging is not None:
        return MergingPickup(merging, settings, counters, end)
    return Pickup(
        batch_records_max=settings.batch_records_max,
        batch_bytes_max=settings.batch_bytes_max,
        waiting_records_max=settings.waiting_records_max,
        waiting_bytes_max=settings.waiting_bytes_max,
    )
