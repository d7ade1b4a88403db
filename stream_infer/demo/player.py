"""Sending the flights' events in the log's order, at a speed, never far ahead of the worker."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stream_infer.core.errors import StreamInferError
from stream_infer.demo.board import Board
from stream_infer.demo.flights import decode_event
from stream_infer.stream.partitioning import Partitioner

AHEAD_RECORDS_MAX = 4_000
"""Events that may be sent before the worker's results of earlier ones are read.

The embedded broker keeps about 5 MB a partition, and the worker must not fall out of that.
"""
LOOK_EVERY = 32
AHEAD_CHECK_S = 0.002


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `speed` event-time seconds a second, or `rate` events a second; None: no limit."""

    speed: float | None = None
    rate: float | None = None

    def due_s(self, number: int, event_us: int) -> float:
        """Seconds from the start until event `number`, `event_us` after the first, is due."""
        if self.rate is not None:
            return number / self.rate
        return event_us / 1e6 / self.speed if self.speed is not None else 0.0


UNLIMITED = Pace()


class Player:
    """Sends events with a producer of aiokafka, which keeps their order in each partition.

    `existing` are the log's end offsets before this run: so many events of each partition are
    there already and are not sent again.
    """

    def __init__(
        self,
        producer: Any,
        topic: str,
        partitions: int,
        board: Board,
        clock: Callable[[], float],
        existing: Mapping[int, int] | None = None,
        ahead_max: int = AHEAD_RECORDS_MAX,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._partitions = range(partitions)
        self._choose = Partitioner().partition
        self._ahead_max = ahead_max
        self.board = board
        self._clock = clock
        self.existing = dict.fromkeys(self._partitions, 0) | dict(existing or {})
        """Per partition: end of the log before this run."""
        self.log_ends = dict(self.existing)
        """Per partition: end of the log now, if nobody else writes to it."""
        self._through = dict.fromkeys(self._partitions, 0)
        self.last_existing: dict[int, bytes] = {}
        """Per partition: what the log should hold in its last record before this run."""
        self.error: BaseException | None = None

    def skip_existing(
        self, events: Iterable[tuple[int, tuple[str, bytes]]]
    ) -> Iterator[tuple[int, int, bytes, bytes]]:
        """Yield (event time, partition, key, value) of the events that are not in the log yet."""
        for time_us, (key, value) in events:
            raw = key.encode()
            partition = self._choose(raw, self._partitions)
            self._through[partition] += 1
            left = self.existing[partition] - self._through[partition]
            if left >= 0:
                if left == 0:
                    self.last_existing[partition] = value
                continue
            yield time_us, partition, raw, value

    @property
    def behind(self) -> int:
        """Events sent after the last one whose prediction was read, over all partitions."""
        seen = self.board.seen_to
        return sum(
            end - max(seen.get(partition, 0), self.existing[partition])
            for partition, end in self.log_ends.items()
        )

    async def play(
        self,
        events: Iterator[tuple[int, int, bytes, bytes]],
        pace: Pace,
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Send events until there are no more, which returns True, or `until` says so.

        When the worker cannot follow, the pace waits for it and goes on from there. Raises
        StreamInferError when Kafka refuses an event.
        """
        started_s, first_us = self._clock(), 0
        for number, (time_us, partition, key, value) in enumerate(events):
            if number == 0:
                first_us = time_us
            due_s = started_s + pace.due_s(number, time_us - first_us)
            now_s = self._clock()
            while due_s > now_s and not until():
                await asyncio.sleep(min(due_s - now_s, 0.25))
                now_s = self._clock()
            if number % LOOK_EVERY == 0:
                started_s += await self._until_followed(until)
                if until():
                    return False
            await self.send(time_us, partition, key, value)
        return True

    async def _until_followed(self, until: Callable[[], bool]) -> float:
        """Wait until the worker is near enough; the seconds that this took."""
        began_s = self._clock()
        await asyncio.sleep(0)
        while self.behind > self._ahead_max and not until():  # noqa: ASYNC110
            await asyncio.sleep(AHEAD_CHECK_S)
        if self.error is not None:
            raise StreamInferError(f"Kafka refused an event: {self.error}")
        return self._clock() - began_s

    async def send(self, time_us: int, partition: int, key: bytes, value: bytes) -> None:
        """Send one event, now; returns before Kafka has acknowledged it."""
        now_s = self._clock()
        future = await self._producer.send(self._topic, value, key=key, partition=partition)
        self.log_ends[partition] += 1
        future.add_done_callback(self._acknowledged)
        self.board.event_sent(decode_event(value), time_us, now_s)

    def _acknowledged(self, future: Any) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None or future.cancelled():
            self.board.refused += 1
            self.error = error or self.error
        else:
            self.board.acknowledged += 1
