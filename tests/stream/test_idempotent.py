"""What is queued is written at once, in order, and again where that is for aiokafka to say."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerClosed,
)
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from stream_infer.stream.framing import RecordBatch, frames
from stream_infer.stream.idempotent import DirectSender
from stream_infer.stream.processing import OutgoingRecord
from tests.stream.kafka_tools import eventually

A, B = TopicPartition("t", 0), TopicPartition("t", 1)
NOT_LEADER, TOO_LARGE = 6, 10


class Connection:
    """To a broker of which a test is the other end."""

    def __init__(self) -> None:
        self.is_connected = True
        self.closed = False
        self.refuses: Exception | None = None
        self.asked: list[dict[int, tuple[int, list[bytes]]]] = []
        self.answers: list[asyncio.Future[Any]] = []

    def connected(self) -> bool:
        return self.is_connected

    def close(self, reason: object) -> None:
        self.closed = True

    def send(self, request: Any) -> asyncio.Future[Any]:
        if self.refuses is not None:
            raise self.refuses
        ((_, partitions),) = request._topics
        read = {p: MemoryRecords(bytes(data)).next_batch() for p, data in partitions}
        # A batch's header has its sequence number at its end, before the number of its records.
        sequences = {p: int.from_bytes(bytes(data)[53:57], "big") for p, data in partitions}
        self.asked.append({p: (sequences[p], [r.value for r in b]) for p, b in read.items()})
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def answer(self, **codes: int) -> None:
        """Answer the latest request, with an error for some partitions."""
        found = [(p, codes.get(f"p{p}", 0), 5, -1, 0) for p in self.asked[-1]]
        response = SimpleNamespace(API_VERSION=7, topics=[("t", found)])
        self.answers[-1].set_result(response)


class Made:
    """A sender with one broker, and what it is made of."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.leaders = {A: 0, B: 0}
        cluster = SimpleNamespace(leader_for_partition=self.leaders.get)
        self.client = SimpleNamespace(
            cluster=cluster,
            _conns={(0, ConnectionGroup.DEFAULT): self.connection},
            add_topic=lambda topic: None,
            force_metadata_update=lambda: None,
            _maybe_wait_metadata=lambda: asyncio.sleep(0),
        )
        transactions = TransactionManager(None, 0)
        transactions.set_pid_and_epoch(7, 0)
        self.accumulator = MessageAccumulator(
            cluster, 1_000, None, 30.0, txn_manager=transactions, loop=asyncio.get_running_loop()
        )
        self.sender = DirectSender(
            self.client,
            acks=-1,
            txn_manager=transactions,
            message_accumulator=self.accumulator,
            retry_backoff_ms=1,
            request_timeout_ms=1_000,
        )

    def queue(self, *values: bytes, tp: TopicPartition = A) -> asyncio.Future[Any]:
        records = [OutgoingRecord("t", b"k", value) for value in values]
        ((data, count),) = frames(records, 1_000)
        batch = RecordBatch(data, count, 1, compression=None, transactional=False)
        return self.sender.queue(batch, tp)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def made() -> Made:
    return Made()


async def test_what_is_queued_is_written_within_the_call_and_the_rest_after_the_answer(
    made: Made,
) -> None:
    first = made.queue(b"1", b"2"), made.queue(b"3", tp=B)
    made.sender.send_queued()
    second = made.queue(b"4")
    made.sender.send_queued()
    assert made.connection.asked == [{0: (0, [b"1", b"2"]), 1: (0, [b"3"])}]
    made.connection.answer()
    await turns()
    assert [future.result().offset for future in first] == [5, 5]
    assert made.connection.asked[1:] == [{0: (2, [b"4"])}]
    assert not second.done()
    made.connection.answer()
    await second


@pytest.mark.parametrize("how", ["refused for a while", "connection lost", "timed out"])
async def test_what_was_not_accepted_goes_again_before_what_came_after_it(
    made: Made, how: str
) -> None:
    first, other = made.queue(b"1"), made.queue(b"2", tp=B)
    made.sender.send_queued()
    later = made.queue(b"3")
    if how == "refused for a while":
        made.connection.answer(p0=NOT_LEADER)
        again = [{0: (0, [b"1"])}]
    else:
        error = KafkaConnectionError() if how == "connection lost" else TimeoutError()
        made.connection.answers[-1].set_exception(error)
        again = [{0: (0, [b"1"]), 1: (0, [b"2"])}]
    await eventually(lambda: len(made.connection.asked) == 2)
    assert made.connection.asked[1:] == again
    assert made.connection.closed is (how == "timed out")
    made.connection.answer()
    await first
    await other
    await turns()
    assert made.connection.asked[2:] == [{0: (1, [b"3"])}]
    made.connection.answer()
    await later


async def test_what_cannot_be_written_is_left_to_aiokafka_until_it_can(made: Made) -> None:
    made.connection.refuses = KafkaConnectionError("lost")
    future = made.queue(b"1")
    made.sender.send_queued()
    await turns()
    made.connection.refuses = None
    await eventually(lambda: len(made.connection.asked) == 1)
    made.connection.answer()
    await future


async def test_what_is_refused_for_good_says_why(made: Made) -> None:
    first, other = made.queue(b"1"), made.queue(b"2", tp=B)
    made.sender.send_queued()
    made.connection.answer(p0=TOO_LARGE)
    with pytest.raises(MessageSizeTooLargeError):
        await first
    await other


@pytest.mark.parametrize("lacks", ["a leader", "a connection", "a connection that is open"])
async def test_leaders_and_connections_are_found_by_aiokafkas_routine(
    made: Made, lacks: str
) -> None:
    if lacks == "a leader":
        made.leaders.clear()
    elif lacks == "a connection":
        made.client._conns.clear()
    else:
        made.connection.is_connected = False
    made.queue(b"1")
    routine = made.accumulator.waiter()
    made.sender.send_queued()
    assert routine.done()
    assert not made.connection.asked
    assert list(made.accumulator._batches) == [A]


async def test_after_a_failure_for_good_nothing_is_sent_any_more(made: Made) -> None:
    """A new producer sends all of it again: it must not arrive twice."""
    first = made.queue(b"1")
    made.sender.send_queued()
    waiting = made.queue(b"2")
    made.accumulator.fail_all(KafkaTimeoutError())
    made.connection.answer()
    await turns()
    assert len(made.connection.asked) == 1
    for future in (first, waiting):
        with pytest.raises(KafkaTimeoutError):
            await future
    with pytest.raises(KafkaTimeoutError):
        made.queue(b"3")
    made.accumulator._exception, made.accumulator._closed = None, True
    with pytest.raises(ProducerClosed):
        made.queue(b"3")


async def test_the_end_waits_for_what_was_written(made: Made) -> None:
    future = made.queue(b"1")
    made.sender.send_queued()
    ending = asyncio.create_task(made.sender.close())
    await turns()
    assert not ending.done()
    made.connection.answer()
    await ending
    await future
