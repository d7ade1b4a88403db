"""The consumer in the worker's loop: what it hands over, and what is asked of it when it ends."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchError, FetchResult
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import ConsumerStoppedError, TopicAuthorizationFailedError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from stream_infer.stream import fetching
from stream_infer.stream.commits import CommitResult
from stream_infer.stream.fetching import Drawn
from stream_infer.stream.group_consumer import GroupConsumer
from stream_infer.stream.processing import TP
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.transport import MicroBatchConsumer

A, B = TP("t", 0), TP("t", 1)


class Broker:
    """Answers fetches with what `put` brought, and holds those for which there is nothing."""

    def __init__(self, version: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.version = version
        self.aborted: list[tuple[int, int]] = []
        self._metadata_max_age_ms = 300_000
        self.leaders = {0: 0, 1: 0}
        self.cluster = SimpleNamespace(leader_for_partition=lambda tp: self.leaders[tp.partition])
        self.asked: list[dict[int, int]] = []
        self._ends = {0: 0, 1: 0}
        self._changed = asyncio.Event()

    def put(self, tp: TP) -> None:
        self._ends[tp.partition] += 1
        self._changed.set()

    def _answer(self, partition: int, offset: int) -> tuple[Any, ...]:
        end = self._ends[partition]
        data = b"".join(map(_batch, range(offset, end)))
        if self.version < 11:
            return partition, 0, end, -1, self.aborted, data
        return partition, 0, end, -1, 0, self.aborted, -1, data

    async def send(self, node: int, request: Any) -> Any:
        asked = {partition: offset for partition, offset, _ in request.topics[0][1]}
        self.asked.append(asked)
        while not (found := [p for p in asked if self._ends[p] > asked[p]]):
            self._changed.clear()
            await self._changed.wait()
        partitions = [self._answer(p, asked[p]) for p in found]
        return SimpleNamespace(API_VERSION=self.version, topics=[("t", partitions)])


def _batch(offset: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    builder.append(0, timestamp=1, key=b"k", value=b"v", headers=[])
    built = bytearray(builder.build())
    built[:8] = offset.to_bytes(8, "big")
    return bytes(built)


class Consumer(GroupConsumer):
    """A consumer of two partitions of which a test is the broker."""

    def __init__(self, version: int) -> None:
        self._asked, self._ended = set(), False
        self._taker = self
        self.broker = Broker(version)
        self.leaving = asyncio.Event()
        self.drawn: list[tuple[TP, list[int], int]] = []
        self.open = {A, B}
        self.kept = 0
        self.wanted = asyncio.Event()
        self.wanted.set()
        self.serving: asyncio.Task[None] | None = None

    async def _serve(self) -> None:
        await self.leaving.wait()

    async def begin(self) -> None:
        subscriptions = SubscriptionState()
        fetcher = Fetcher(self.broker, subscriptions)
        self._listen(fetcher)
        subscriptions.assign_from_user([TopicPartition(*tp) for tp in (A, B)])
        for tp in (A, B):
            subscriptions.subscription.assignment.state_value(TopicPartition(*tp)).seek(0)
        self._consumer = SimpleNamespace(
            _fetcher=fetcher, _subscription=subscriptions, _closed=False
        )

    def accepts(self, partitions: Collection[TP]) -> bool:
        return self.open.issuperset(partitions)

    def deliver(self, drawn: Sequence[Drawn]) -> None:
        for tp, records, end in drawn:
            self.drawn.append((tp, [record.offset for record in records], end))

    def fetched(self) -> None:
        self.kept += 1
        while drawn := self.draw(self.open, 1_000):
            self.deliver([drawn])

    async def wanting(self) -> None:
        await self.wanted.wait()

    async def turns(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture(params=[4, 11])
async def consumer(request: pytest.FixtureRequest) -> AsyncIterator[Consumer]:
    """With a broker that answers plainly, and with one whose answers are for aiokafka to read."""
    made = Consumer(request.param)
    await made.begin()
    await made.turns()
    yield made
    await made._consumer._fetcher.close()


async def test_what_brought_records_is_asked_for_again_at_once(consumer: Consumer) -> None:
    """Together with the others, and before anybody works on it."""
    assert consumer.broker.asked == [{0: 0, 1: 0}]
    for offset in range(3):
        consumer.broker.put(A)
        await consumer.turns()
        assert consumer.drawn.pop() == (A, [offset], offset + 1)
        assert consumer.broker.asked.pop() == {0: offset + 1, 1: 0}
    assert consumer.kept == (0 if consumer.broker.version == 11 else 3)


async def test_the_next_fetch_brings_all_that_came_until_more_was_wanted(
    consumer: Consumer,
) -> None:
    consumer.wanted.clear()
    consumer.broker.put(A)
    await consumer.turns()
    assert consumer.drawn.pop() == (A, [0], 1)
    for tp in (A, B, A):
        consumer.broker.put(tp)
        await consumer.turns()
    assert consumer.broker.asked == [{0: 0, 1: 0}]
    consumer.wanted.set()
    await consumer.turns()
    assert sorted(consumer.drawn) == [(A, [1, 2], 3), (B, [0], 1)]
    assert consumer.broker.asked[-1] == {0: 3, 1: 1}


@pytest.mark.parametrize("more_often", [False, True])
async def test_aiokafka_decides_what_to_fetch_where_something_has_changed(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch, more_often: bool
) -> None:
    """At once: its routine looks at nothing else for a fifth of a second."""
    if more_often:
        monkeypatch.setattr(fetching, "ROUTINE_EVERY_S", 0.0)
    for offset in range(3):
        consumer.broker.put(A)
        await consumer.turns()
        assert consumer.broker.asked[-1] == {0: offset + 1, 1: 0}
    consumer.broker.leaders[1] = 1
    consumer.broker.put(A)
    await consumer.turns()
    assert sorted(consumer.broker.asked[-2:], key=min) == [{0: 4}, {1: 0}]


async def test_a_seek_while_nothing_more_is_wanted_counts(consumer: Consumer) -> None:
    consumer.wanted.clear()
    consumer.broker.put(A)
    await consumer.turns()
    assignment = consumer._consumer._subscription.subscription.assignment
    assignment.state_value(TopicPartition(*B)).seek(7)
    consumer.wanted.set()
    await consumer.turns()
    assert consumer.broker.asked[-1] == {0: 1, 1: 7}


async def test_partitions_are_given_away_while_nothing_more_is_wanted(consumer: Consumer) -> None:
    consumer.wanted.clear()
    consumer.broker.put(A)
    await consumer.turns()
    subscriptions = consumer._consumer._subscription
    subscriptions.assign_from_user([TopicPartition(*B)])
    subscriptions.subscription.assignment.state_value(TopicPartition(*B)).seek(0)
    await consumer.turns()
    assert consumer.broker.asked[-1] == {1: 0}


async def test_what_has_aborted_transactions_is_read_by_aiokafka(consumer: Consumer) -> None:
    consumer.broker.aborted = [(7, 0)]
    consumer.broker.put(A)
    await consumer.turns()
    assert consumer.drawn.pop() == (A, [0], 1)
    assert consumer.kept == 1


async def test_a_large_answer_is_read_by_aiokafka(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PLAIN_BYTES_MAX", 100)
    for tp in (A, B):
        consumer.broker.put(tp)
    await consumer.turns()
    assert sorted(consumer.drawn) == [(A, [0], 1), (B, [0], 1)]
    assert consumer.kept == 1


async def test_what_is_not_open_is_left_until_it_is(consumer: Consumer) -> None:
    consumer.open = {B}
    consumer.broker.put(A)
    await consumer.turns()
    assert not consumer.drawn
    assert consumer.has_fetched
    consumer.open = {A, B}
    consumer.fetched()
    assert consumer.drawn.pop() == (A, [0], 1)
    assert not consumer.has_fetched


async def test_what_was_fetched_before_a_seek_is_not_drawn(consumer: Consumer) -> None:
    consumer.open = set()
    consumer.broker.put(A)
    await consumer.turns()
    assignment = consumer._consumer._subscription.subscription.assignment
    assignment.state_value(TopicPartition(*A)).seek(7)
    assert consumer.draw({A, B}, 1_000) is None
    assert not consumer.has_fetched


async def test_no_batch_more_than_asked_for_is_drawn_at_a_time(consumer: Consumer) -> None:
    consumer.open = set()
    for _ in range(2):
        consumer.broker.put(A)
    await consumer.turns()
    (fetched,) = consumer._consumer._fetcher._records.values()
    assert isinstance(fetched, FetchResult)
    drawn = consumer.draw({A}, 1)
    assert drawn is not None
    assert [record.offset for record in drawn.records] == [0]
    assert drawn.end == 1
    rest = consumer.draw({A}, 1)
    assert rest is not None
    assert [record.offset for record in rest.records] == [1]


async def test_what_a_fetch_failed_with_is_said_once(consumer: Consumer) -> None:
    where = TopicPartition(*A)
    failed = FetchError(error=TopicAuthorizationFailedError("t"), backoff=0)
    consumer._consumer._fetcher._records[where] = failed
    consumer.fetched()
    with pytest.raises(TopicAuthorizationFailedError):
        consumer.check()
    consumer.check()


async def test_what_the_consumer_is_asked_is_answered(consumer: Consumer) -> None:
    async def answer() -> int:
        return 7

    assert await consumer.ask(answer) == 7
    assert not consumer._asked


async def test_what_is_under_way_at_the_end_is_no_cancellation_of_who_asked(
    consumer: Consumer,
) -> None:
    serving = asyncio.create_task(consumer.serve())
    asking = asyncio.create_task(consumer.ask(asyncio.Event().wait))
    await consumer.turns()
    consumer.leaving.set()
    await serving
    with pytest.raises(ConsumerStoppedError, match="has ended"):
        await asking
    with pytest.raises(ConsumerStoppedError, match="has ended"):
        await consumer.ask(asyncio.Event().wait)


async def test_who_asked_may_be_cancelled(consumer: Consumer) -> None:
    asking = asyncio.create_task(consumer.ask(asyncio.Event().wait))
    await consumer.turns()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not consumer._asked


async def test_a_commit_that_the_end_cuts_off_is_left_to_the_next_owner(
    consumer: Consumer,
) -> None:
    consumer._ended = True
    asking: Any = MicroBatchConsumer.__new__(MicroBatchConsumer)
    asking._thread, asking.assignment = consumer, lambda: {A}
    asking.app = SimpleNamespace(stream_settings=StreamSettings())
    assert await asking.commit_positions({A: 5}) is CommitResult.ENDED
