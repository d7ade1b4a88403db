"""Reading back what the worker publishes, and how far it has come."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_infer.core.results import Prediction
from stream_infer.core.topology import Topology
from stream_infer.demo.board import Board
from stream_infer.stream.topics import partition_counts

POLL_MS = 200


class Reader:
    """Follows a topology's results, outcomes and dead letters from where they end now.

    It belongs to no group, so that it takes nothing from anybody. `on_prediction` is called with
    each prediction, repeated ones too.
    """

    def __init__(
        self,
        broker: str,
        topology: Topology,
        board: Board,
        clock: Callable[[], float],
        *,
        fetch_max_wait_ms: int,
        on_prediction: Callable[[Prediction], None] | None = None,
    ) -> None:
        self._broker = broker
        self._topology = topology
        self._board = board
        self._clock = clock
        self._on_prediction = on_prediction
        self._consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=broker, fetch_max_wait_ms=fetch_max_wait_ms
        )

    async def start(self) -> None:
        """Connect, and stand where the topics end now."""
        await self._consumer.start()
        topology = self._topology
        known = await partition_counts(
            self._broker, [topology.output, topology.outcomes, topology.dead_letters]
        )
        places = [TopicPartition(topic, n) for topic, count in known.items() for n in range(count)]
        self._consumer.assign(places)
        await self._consumer.seek_to_end(*places)

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def follow(self) -> None:
        """Read on until cancelled."""
        topology, board = self._topology, self._board
        while True:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            now_s = self._clock()
            for place, records in batches.items():
                for record in records:
                    if place.topic == topology.output:
                        prediction = board.prediction_read(record.value, now_s)
                        if self._on_prediction is not None:
                            self._on_prediction(prediction)
                    elif place.topic == topology.outcomes:
                        board.outcome_read(record.value)
                    else:
                        board.dead_letters += 1
            await asyncio.sleep(0)


class Position:
    """Where the stream ends, and where the worker's group has committed it."""

    def __init__(self, broker: str, topic: str, partitions: int, group: str) -> None:
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=broker, group_id=group, enable_auto_commit=False
        )

    async def start(self) -> None:
        """Connect; the group's membership is not touched."""
        await self._consumer.start()
        self._consumer.assign(self._places)

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def ends(self) -> dict[int, int]:
        """The next offset of each partition."""
        found = await self._consumer.end_offsets(self._places)
        return {place.partition: offset for place, offset in found.items()}

    async def committed(self) -> dict[int, int]:
        """The group's committed offset of each partition, 0 where there is none."""
        found = [await self._consumer.committed(place) for place in self._places]
        return {
            place.partition: offset or 0 for place, offset in zip(self._places, found, strict=True)
        }

    async def last_values(self, ends: dict[int, int]) -> dict[int, bytes | None]:
        """The last record's value of each partition that has one."""
        values: dict[int, bytes | None] = {}
        for place in self._places:
            end = ends.get(place.partition, 0)
            if end == 0:
                continue
            self._consumer.seek(place, end - 1)
            while place.partition not in values:
                for record in (await self._consumer.getmany(place, timeout_ms=POLL_MS)).get(
                    place, ()
                ):
                    values[place.partition] = record.value
        return values
