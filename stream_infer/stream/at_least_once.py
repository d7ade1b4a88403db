"""Results first, their offsets later: a crash in between sends them again."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

from stream_infer.stream.commits import Committer
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.delivering import Delivering, Replace, Room, Settle
from stream_infer.stream.group import Group
from stream_infer.stream.kafka_tasks import Failed
from stream_infer.stream.parcels import Delivery
from stream_infer.stream.processing import TP, Outcome, OutgoingRecord
from stream_infer.stream.producer import ResultProducer
from stream_infer.stream.settings import StreamSettings

log = logging.getLogger("stream_infer.stream")


class AtLeastOnce:
    """Delivers through one idempotent producer; the group commits offsets every now and then."""

    def __init__(
        self,
        producer: ResultProducer,
        *,
        group: Group,
        replace: Replace,
        settings: StreamSettings,
        counters: StreamCounters,
    ) -> None:
        self.room = Room(settings.in_flight_batches_max)
        self._producer = producer
        self._group = group
        self._replace = replace
        self._committer = Committer(group.commit_positions, settings.commit_interval_s, counters)

    async def take(self, partitions: Sequence[TP]) -> Mapping[TP, int | None]:
        """Return the committed offsets: nobody else is hindered from sending results."""
        committed = await self._group.committed(partitions)
        self._committer.known(committed)
        return committed

    async def submit(self, outcome: Outcome) -> Settle:
        """Queue the records; return what waits for their acknowledgement."""
        return partial(self._settle, await self._producer.submit(outcome.outgoing))

    async def _settle(self, delivery: Delivery) -> None:
        refused = await self._producer.settle(delivery)
        for attempt in (1, 2):
            if not refused:
                return
            replacements: list[OutgoingRecord] = []
            for error in refused:
                log.error("%s", error)
                if attempt == 1:
                    replacements.extend(self._replace(error.record, error))
            refused = await self._producer.settle(await self._producer.submit(replacements))

    def commit(self, positions: Mapping[TP, int]) -> None:
        """Let offsets be committed with the next commit."""
        self._committer.note(positions)

    async def run(self) -> None:
        """Commit, every commit interval."""
        await self._committer.run()

    async def abandon(self) -> None:
        """Stop sending, and committing in the background."""
        await self._producer.abandon()
        self._committer.stop()

    async def flush(self) -> None:
        """Commit what was noted."""
        await self._committer.flush()


class SharedProducer:
    """The one producer of a worker's results; `limits` are what topics accept, in bytes.

    `failed` hears of a producer that will never work again, as it was not closed.
    """

    def __init__(
        self,
        client_id: str,
        limits: Mapping[str, int],
        settings: StreamSettings,
        counters: StreamCounters,
        failed: Failed,
    ) -> None:
        self._producer = ResultProducer(settings, counters, failed, client_id=client_id)
        self._producer.limit(limits)
        self._settings = settings
        self._counters = counters

    async def start(self) -> None:
        """Connect, trying again while Kafka is away."""
        await self._producer.start()

    def delivering(self, group: Group, replace: Replace) -> Delivering:
        """Return what delivers for a new assignment."""
        return AtLeastOnce(
            self._producer,
            group=group,
            replace=replace,
            settings=self._settings,
            counters=self._counters,
        )

    async def stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()
