"""Reading the result topics from their end, for as long as somebody follows."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from stream_infer.core.topology import Topology
from stream_infer.serving.limits import LIVE_BEHIND_RECORDS_MAX, PARTITIONS_REFRESH_S
from stream_infer.serving.live import OUTCOME, PREDICTION, Hub
from stream_infer.settings import Settings

log = logging.getLogger("stream_infer.serving")

POLL_MS = 200
POLL_RECORDS_MAX = 2_000
RETRY_MIN_S = 0.5


def result_topics(topologies: Iterable[Topology]) -> dict[str, tuple[str, str]]:
    """Return the topology's name and the kind of result, by topic."""
    topics: dict[str, tuple[str, str]] = {}
    for topology in topologies:
        topics[topology.output] = (topology.name, PREDICTION)
        if topology.label is not None:
            topics[topology.outcomes] = (topology.name, OUTCOME)
    return topics


class ResultReader:
    """Hands new records of the result topics to the hub; one consumer a server, without a group.

    `problem` says what keeps it from reading, None when all is well.
    """

    def __init__(self, topics: Mapping[str, tuple[str, str]], settings: Settings, hub: Hub) -> None:
        self._topics = topics
        self._settings = settings
        self._hub = hub
        self.problem: str | None = "not connected to Kafka yet"

    async def run(self) -> None:
        """Follow until cancelled, connecting again after every failure."""
        delay_s = RETRY_MIN_S
        while True:
            try:
                await self._connected()
            except (KafkaError, OSError, TimeoutError) as error:
                problem = f"Kafka does not answer ({type(error).__name__})"
                if problem != self.problem:
                    log.warning("following results: %s; trying again", problem)
                self.problem = problem
            delay_s = RETRY_MIN_S if self.problem is None else delay_s * 2
            delay_s = min(delay_s, self._settings.retry_max_s)
            await asyncio.sleep(delay_s)

    async def _connected(self) -> None:
        consumer = AIOKafkaConsumer(
            *self._topics,
            bootstrap_servers=self._settings.broker,
            client_id="stream-infer-serve",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            isolation_level="read_committed",
            request_timeout_ms=int(self._settings.request_timeout_s * 1000),
        )
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                await consumer.start()
            if self.problem is not None:
                log.info("following results: connected")
            self.problem = None
            while True:
                await self._wait_for_someone(consumer)
                await consumer.seek_to_end()
                await self._follow(consumer)
        finally:
            await consumer.stop()

    async def _wait_for_someone(self, consumer: Any) -> None:
        while True:
            try:
                async with asyncio.timeout(PARTITIONS_REFRESH_S):
                    return await self._hub.someone()
            except TimeoutError:
                await self._probe(consumer)

    async def _follow(self, consumer: Any) -> None:
        """Read on while somebody follows; far behind the end, jump there."""
        probed_s = time.monotonic()
        while self._hub.clients:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS_MAX)
            for tp, records in found.items():
                topology, event = self._topics[tp.topic]
                for record in records:
                    if record.value is not None:
                        self._hub.publish(topology, event, record.value)
                end = consumer.highwater(tp)
                if end is not None and end - records[-1].offset > LIVE_BEHIND_RECORDS_MAX:
                    await consumer.seek_to_end(tp)
            if time.monotonic() - probed_s > PARTITIONS_REFRESH_S:
                await self._probe(consumer)
                probed_s = time.monotonic()

    async def _probe(self, consumer: Any) -> None:
        """Ask the brokers for something, so that their absence is noticed."""
        async with asyncio.timeout(self._settings.request_timeout_s):
            await consumer.topics()
