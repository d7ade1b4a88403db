"""Events are sent once, in order, at their pace, and never far ahead of the worker."""

import asyncio
from collections.abc import Iterator

import pytest

from stream_infer.core.errors import StreamInferError
from stream_infer.demo.board import Board
from stream_infer.demo.player import UNLIMITED, Pace, Player

PARTITIONS = 4


def line(number: int) -> bytes:
    return b'{"type":"departure","flight_id":"f%d","departure_delay_min":1.0}' % number


def log(n: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
    return ((i * 1_000_000, (f"k{i % 5}", line(i))) for i in range(n))


class Producer:
    """Stands for Kafka's client: notes what is sent, acknowledges at once or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self._error = error

    async def send(
        self, topic: str, value: bytes, *, key: bytes, partition: int
    ) -> "asyncio.Future[None]":
        self.sent.append((partition, value))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._error is None:
            future.set_result(None)
        else:
            future.set_exception(self._error)
        return future


def player(producer: Producer, board: Board, **more: object) -> Player:
    clock = asyncio.get_running_loop().time
    return Player(producer, "flights", PARTITIONS, board, clock, **more)  # type: ignore[arg-type]


async def test_what_is_in_the_log_is_not_sent_again() -> None:
    whole = Producer()
    first = player(whole, Board(0.0, 0))
    await first.play(first.skip_existing(log(100)), UNLIMITED)
    for cut in (0, 1, 37, 99, 100):
        head = [partition for partition, _ in whole.sent[:cut]]
        existing = {partition: head.count(partition) for partition in range(PARTITIONS)}
        rest = Producer()
        second = player(rest, Board(0.0, 0), existing=existing)
        await second.play(second.skip_existing(log(100)), UNLIMITED)
        assert rest.sent == whole.sent[cut:]
        assert second.log_ends == first.log_ends
        for partition, end in existing.items():
            there = [value for place, value in whole.sent[:cut] if place == partition]
            assert second.last_existing.get(partition) == (there[end - 1] if end else None)


async def test_an_event_taken_when_the_end_comes_does_not_count_as_sent() -> None:
    producer, board = Producer(), Board(0.0, 0)
    one = player(producer, board)
    complete = await one.play(one.skip_existing(log(500)), UNLIMITED, lambda: board.sent >= 64)
    assert not complete
    assert sum(one.log_ends.values()) == board.sent == len(producer.sent)


async def test_the_worker_is_never_left_far_behind() -> None:
    producer, board = Producer(), Board(0.0, 0)
    one = player(producer, board, ahead_max=100)
    playing = asyncio.create_task(one.play(one.skip_existing(log(1_000)), UNLIMITED))
    while not playing.done():
        assert one.behind <= 100 + 32
        await asyncio.sleep(0)
        if one.behind > 100:
            board.seen_to = dict(one.log_ends)
    assert await playing
    assert len(producer.sent) == 1_000


async def test_a_refused_event_ends_the_run_with_the_reason() -> None:
    one = player(Producer(RuntimeError("disk full")), Board(0.0, 0))
    with pytest.raises(StreamInferError, match="disk full"):
        await one.play(one.skip_existing(log(200)), UNLIMITED)


def test_pace_is_of_event_time_or_of_events() -> None:
    assert Pace(speed=3600.0).due_s(7, 3_600_000_000) == pytest.approx(1.0)
    assert Pace(rate=50.0).due_s(100, 0) == pytest.approx(2.0)
    assert UNLIMITED.due_s(10, 10**9) == 0.0
