"""In which order a transaction's requests are asked, on a real Kafka, and what they wait for."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NotLeaderForPartitionError

from stream_infer.stream.processing import TP, PartitionsFenced
from tests.servers.kafka import Kafka
from tests.stream.kafka_tools import PARTITIONS, committed
from tests.stream.test_exactly_once import results, share, transactions

pytestmark = pytest.mark.kafka

ORDER = ["AddPartitionsToTxn", "Produce", "TxnOffsetCommit", "EndTxn"]
"""Of which each needs the one before it to be answered."""
TURNS_MAX = 2
Send = Callable[..., Awaitable[Any]]


@pytest.fixture
def topics(kafka_server: Kafka, unique: str) -> tuple[str, str]:
    """A source topic and one for its results, and a group whose coordinator is there."""
    source, output = f"{unique}.in", f"{unique}.out"
    kafka_server.create_topics({source: PARTITIONS, output: PARTITIONS})
    committed(kafka_server.bootstrap, unique, source)
    return source, output


class Asked(NamedTuple):
    """A request, and the turns of the loop in which it was asked and its answer was there."""

    name: str
    asked: int
    answered: int


class Line:
    """Watches requests to Kafka; `hold` keeps the answer of one kind back, `fail` refuses one."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.requests: list[Asked] = []
        self.begun: list[str] = []
        self.turn = 0
        self.hold = ""
        self.fail = ""
        self.held = asyncio.Event()
        self.let_go = asyncio.Event()
        self._ticking = asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        self.turn += 1
        self._ticking = asyncio.get_running_loop().call_soon(self._tick)

    def stop(self) -> None:
        self._ticking.cancel()

    def asked(self, name: str) -> int:
        """When a request was asked, for the first time."""
        return next(request.asked for request in self.requests if request.name == name)

    def answered(self, name: str) -> int:
        """When it was answered, for the last time: Kafka may ask for patience."""
        return [request.answered for request in self.requests if request.name == name][-1]

    async def send(self, client: AIOKafkaClient, node: int, request: Any, **named: Any) -> Any:
        name = type(request).__name__.removesuffix("Request")
        asked = self.turn
        self.begun.append(name)
        if name == self.fail:
            self.fail = ""
            raise NotLeaderForPartitionError
        answer = await self._send(client, node, request, **named)
        if name == self.hold:
            self.held.set()
            await self.let_go.wait()
        self.requests.append(Asked(name, asked, self.turn))
        return answer


@pytest.fixture
async def line(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What goes to Kafka in this test."""
    watched = Line(AIOKafkaClient.send)

    async def send(client: AIOKafkaClient, node: int, request: Any, **named: Any) -> Any:
        return await watched.send(client, node, request, **named)

    monkeypatch.setattr(AIOKafkaClient, "send", send)
    yield watched
    watched.stop()


async def test_the_offsets_group_is_added_with_the_partitions_and_all_else_in_order(
    kafka_server: Kafka, topics: tuple[str, str], unique: str, line: Line
) -> None:
    async with transactions(kafka_server.bootstrap, topics, unique) as made:
        line.requests.clear()
        await made.add(**share(topics, 0, 10))
    assert line.asked("AddOffsetsToTxn") <= line.answered("AddPartitionsToTxn")
    for before, after in pairwise(ORDER):
        assert line.answered(before) <= line.asked(after)
    assert line.answered("AddOffsetsToTxn") <= line.asked("TxnOffsetCommit")


async def test_each_request_follows_the_last_answer_within_two_turns_of_the_loop(
    kafka_server: Kafka, topics: tuple[str, str], unique: str, line: Line
) -> None:
    async with transactions(kafka_server.bootstrap, topics, unique) as made:
        await made.add(**share(topics, 0, 10))  # finds the coordinators
        line.requests.clear()
        await made.add(**share(topics, 10, 20))
    turns = {after: line.asked(after) - line.answered(before) for before, after in pairwise(ORDER)}
    late = line.asked("TxnOffsetCommit") - line.answered("AddOffsetsToTxn")
    turns["TxnOffsetCommit"] = min(turns["TxnOffsetCommit"], late)
    assert max(turns.values()) <= TURNS_MAX, turns


async def test_a_transaction_is_not_aborted_before_its_results_have_come_to_their_end(
    kafka_server: Kafka,
    topics: tuple[str, str],
    unique: str,
    line: Line,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream_infer.stream.transactions.ABORT_MAX_S", 60.0)
    async with transactions(kafka_server.bootstrap, topics, unique) as made:
        line.hold = "Produce"
        added = made.add(**share(topics, 0, 10))
        await line.held.wait()
        closing = asyncio.create_task(made.close())
        for _ in range(100):
            await asyncio.sleep(0)
        assert "EndTxn" not in line.begun
        line.let_go.set()
        await closing
        assert isinstance(added.exception(), PartitionsFenced)
    assert "EndTxn" in line.begun
    assert "TxnOffsetCommit" not in line.begun
    assert results(kafka_server.bootstrap, topics[1]) == {}


async def test_results_refused_for_a_moment_are_sent_again_in_the_same_transaction(
    kafka_server: Kafka, topics: tuple[str, str], unique: str, line: Line
) -> None:
    broker, tp = kafka_server.bootstrap, TP(topics[0], 0)
    async with transactions(broker, topics, unique) as made:
        line.fail = "Produce"
        await made.add(**share(topics, 0, 10))
        assert line.begun.count("Produce") == 2
        assert line.begun.count("InitProducerId") == 1
    assert results(broker, topics[1]) == {tp: list(range(10))}
    assert committed(broker, unique, topics[0]) == {tp: 10}
