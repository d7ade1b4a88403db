"""Results to Kafka in record batches, idempotently, with their acknowledgements awaited."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from aiokafka.errors import KafkaError, KafkaTimeoutError

from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.framing import RecordBatch
from stream_infer.stream.idempotent import IdempotentProducer
from stream_infer.stream.kafka_tasks import Failed, watch_producer
from stream_infer.stream.parcels import TOO_LARGE, Batches, Delivery, Packer, Parcel, retrieve
from stream_infer.stream.processing import Outgoing, RecordTooLarge
from stream_infer.stream.retry import GaveUp, persist
from stream_infer.stream.settings import StreamSettings

log = logging.getLogger("stream_infer.stream")

STOP_TIMEOUT_S = 5.0


class ResultProducer:
    """Keeps the order of records per partition, also over failures and a broker that is away.

    A batch that failed for good leaves a hole in the idempotent producer's sequence, so a new
    producer takes over then and sends, in order, all that is not acknowledged.
    """

    def __init__(
        self,
        settings: StreamSettings,
        counters: StreamCounters,
        failed: Failed | None = None,
        *,
        client_id: str = "stream-infer",
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._packer = Packer(settings.message_bytes_max)
        self._batches = Batches(
            settings.result_batch_bytes_max, settings.compression, transactional=False
        )
        self._failed = failed
        self._client_id = client_id
        self._producer: Any = None
        self._outstanding: list[Delivery] = []
        self._order = asyncio.Lock()
        self._stopping = asyncio.Event()

    def limit(self, topics: Mapping[str, int]) -> None:
        """Say what topics accept, in bytes (their `max.message.bytes`)."""
        self._packer.limit(topics)

    async def start(self) -> None:
        """Connect, trying again while Kafka is away; raises GaveUp once stopped."""
        settings = self._settings
        self._producer = await persist(
            f"producing to Kafka at {','.join(settings.bootstrap)}",
            self._connect,
            stop=self._stopping,
            counters=self._counters,
            delay_min_s=settings.retry_delay_min_s,
            delay_max_s=settings.retry_delay_max_s,
        )

    async def stop(self) -> None:
        """Close, waiting a little for what is under way."""
        self._stopping.set()
        producer, self._producer = self._producer, None
        await close_producer(producer)

    async def submit(self, outgoing: Iterable[Outgoing]) -> Delivery:
        """Queue records in their order; returns before they are acknowledged.

        Raises GaveUp once stopped.
        """
        async with self._order:
            delivery = await self._parcels(outgoing)
            if delivery.parcels:
                self._outstanding.append(delivery)
                await self._send(delivery)
                await asyncio.sleep(0)  # What was woken meanwhile, as the next fetch, has its turn.
            return delivery

    async def settle(self, delivery: Delivery) -> list[RecordTooLarge]:
        """Wait until Kafka acknowledged all of it; return the records refused for their size.

        One caller at a time, in the order of `submit`. Raises GaveUp once stopped.
        """
        while True:
            await self._answered(delivery)
            failed = [parcel for parcel in delivery.parcels if not parcel.delivered]
            if not failed:
                break
            await self._repair(delivery, failed)
        if delivery in self._outstanding:
            self._outstanding.remove(delivery)
        self._counters.produced += sum(len(parcel.records) for parcel in delivery.parcels)
        self._counters.refused += len(delivery.refused)
        return delivery.refused

    async def _answered(self, delivery: Delivery) -> None:
        """Wait until each parcel that was sent is acknowledged or refused; tell of a long wait."""
        longest_s = self._settings.request_timeout_s
        sent = {p.future: p for p in delivery.parcels if p.future is not None}
        waiting = set(sent)
        waited_s = 0.0
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=longest_s)
            waited_s += longest_s
            for parcel in (sent[future] for future in waiting):
                log.warning(
                    "Kafka has not accepted results for %s partition %d for %.0f s; waiting",
                    parcel.topic,
                    parcel.partition,
                    waited_s,
                )

    async def abandon(self) -> None:
        """Forget what is outstanding and stop its transmission: its partitions are lost to us."""
        unsent = any(not p.delivered for d in self._outstanding for p in d.parcels)
        self._outstanding.clear()
        if unsent:
            producer, self._producer = self._producer, None
            await close_producer(producer, timeout_s=0.1)

    async def _connect(self) -> Any:
        producer = IdempotentProducer(self._settings, self._client_id)
        try:
            await producer.start()
        except BaseException:
            await close_producer(producer, timeout_s=0.1)
            raise
        if self._failed is not None:
            watch_producer(producer, self._failed)
        return producer

    async def _connected(self) -> Any:
        if self._stopping.is_set():
            raise GaveUp("the producer is stopped")
        if self._producer is None:
            await self.start()
        return self._producer

    async def _parcels(self, outgoing: Iterable[Outgoing]) -> Delivery:
        outgoing = list(outgoing)
        topics = dict.fromkeys(map(attrgetter("topic"), outgoing))
        partitions = {topic: await self._partitions(topic) for topic in topics}
        return self._packer.pack(outgoing, partitions)

    async def _partitions(self, topic: str) -> list[int]:
        async def known() -> list[int]:
            return sorted(await (await self._connected()).partitions_for(topic))

        return await persist(
            f"finding the partitions of topic {topic!r}",
            known,
            stop=self._stopping,
            counters=self._counters,
            delay_min_s=self._settings.retry_delay_min_s,
            delay_max_s=self._settings.retry_delay_max_s,
        )

    async def _send(self, delivery: Delivery) -> None:
        """Queue the batches of what is not delivered."""
        producer = await self._connected()
        parcels: list[Parcel] = []
        unsent: list[tuple[Parcel, RecordBatch]] = []
        for parcel in delivery.parcels:
            if parcel.delivered:
                parcels.append(parcel)
            else:
                unsent.extend(self._batches.of(parcel))
        delivery.parcels = parcels + [parcel for parcel, _ in unsent]
        for parcel, batch in unsent:
            try:
                parcel.future = producer.queue(batch, parcel.topic, parcel.partition)
            except KafkaError as error:  # the parcel's missing future tells settle() to repair
                log.debug("queueing for %s failed: %r", parcel.topic, error)
                return
            parcel.future.add_done_callback(retrieve)
        producer.send_queued()

    async def _repair(self, delivery: Delivery, failed: Sequence[Parcel]) -> None:
        """Cut or refuse what is too large, then send again all that is not acknowledged."""
        errors = {repr(p.error) for p in failed if not isinstance(p.error, TOO_LARGE)}
        self._packer.cut(delivery)

        async def again() -> None:
            async with self._order:
                producer, self._producer = self._producer, None
                await close_producer(producer)
                for outstanding in self._outstanding:
                    await self._send(outstanding)

        if errors:
            self._counters.retries += 1
            log.warning("sending results again after %s", "; ".join(sorted(errors)))
            await asyncio.sleep(self._settings.retry_delay_min_s)
        await again()


async def close_producer(producer: Any, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Close a producer; what it could not send within the timeout is given up."""
    if producer is None:
        return
    stopping = asyncio.ensure_future(producer.stop())
    done, _ = await asyncio.wait([stopping], timeout=timeout_s)
    if not done:
        producer._message_accumulator.fail_all(KafkaTimeoutError())
        stopping.cancel()
        done, _ = await asyncio.wait([stopping], timeout=timeout_s)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(producer._sender.close(), timeout_s)
        with contextlib.suppress(Exception):
            await producer.client.close()
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("closing a producer: %r", error)
