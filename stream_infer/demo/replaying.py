"""Sending the whole log through real servers, with pauses at which HTTP is asked for scores."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stream_infer.core.errors import StreamInferError
from stream_infer.core.results import Prediction
from stream_infer.demo.board import Board
from stream_infer.demo.counts import read_counts
from stream_infer.demo.flights import (
    LIVE_FROM,
    TOPOLOGY,
    decode_event,
)
from stream_infer.demo.live import Ended, Run, clock, connected_producer, events_of
from stream_infer.demo.player import UNLIMITED, Player
from stream_infer.demo.progress import Report
from stream_infer.demo.reader import Position, Reader
from stream_infer.demo.servers import post_event
from stream_infer.store.connection import connect
from stream_infer.store.state import partition_prefix

AHEAD_RECORDS_MAX = 20_000
SAMPLES_FROM_SHARE = 2 / 3
"""The part of the log that runs through without pauses, for the figure of events a second."""
STORED_MAX_S = 30.0
DRAIN_MAX_S = 120.0
CHECK_S = 0.005

Record = tuple[int, int, bytes, bytes]


@dataclass(slots=True)
class Replayed:
    """A live run: its counts, its predictions by flight, and what HTTP said of some of them."""

    ended: Ended
    predictions: dict[str, Prediction] = field(default_factory=dict)
    over_http: dict[str, Prediction] = field(default_factory=dict)
    conflicting: int = 0
    events_per_s: float = 0.0


async def replay_live(run: Run, board: Board, samples: int, report: Report) -> Replayed:
    """Send September to December; return all that came back.

    At `samples` moments it waits until all that was sent is stored, scores the next departure over
    HTTP, and then sends it. Raises StreamInferError when a child ends or the worker stands still.
    """
    topology, settings = run.made.topology, run.settings
    replayed = Replayed(Ended(board, None))

    def keep(prediction: Prediction) -> None:
        known = replayed.predictions.setdefault(prediction.key, prediction)
        replayed.conflicting += known.score != prediction.score

    group = settings.group
    position = Position(settings.broker, topology.stream.name, run.partitions, group)
    reader = Reader(
        settings.broker,
        topology,
        board,
        clock,
        fetch_max_wait_ms=run.fetch_wait_ms,
        on_prediction=keep,
    )
    redis = connect(settings.redis, timeout_s=settings.request_timeout_s)
    producer = await connected_producer(settings)
    await position.start()
    await reader.start()
    player = Player(
        producer,
        topology.stream.name,
        run.partitions,
        board,
        clock,
        ahead_max=AHEAD_RECORDS_MAX,
    )
    sending = asyncio.create_task(_send(run, player, redis, replayed, samples, report))
    watching = [
        asyncio.create_task(reader.follow()),
        asyncio.create_task(_watch(run)),
    ]
    try:
        await asyncio.wait([sending, *watching], return_when=asyncio.FIRST_COMPLETED)
        for task in (*watching, sending):
            if task.done():
                task.result()
        replayed.ended.drained = await _drained(run, player, position, board)
        replayed.ended.counts = await read_counts(run.metrics_ports)
    finally:
        for task in (sending, *watching):
            task.cancel()
        await asyncio.gather(sending, *watching, return_exceptions=True)
        await asyncio.gather(producer.stop(), reader.stop(), position.stop(), redis.aclose())
    return replayed


async def _send(
    run: Run,
    player: Player,
    redis: Any,
    replayed: Replayed,
    samples: int,
    report: Report,
) -> None:
    log, board = run.made.log, player.board
    total = len(log.times_us(run.log_from, run.log_to))
    records = player.skip_existing(events_of(log, run.log_from, run.log_to))

    def told(some: Iterator[Record]) -> Iterator[Record]:
        for number, record in enumerate(some):
            if number % 500 == 0:
                report("replaying through Kafka", board.sent / total)
            yield record

    through = round(total * SAMPLES_FROM_SHARE)
    began_s = clock()
    await player.play(told(itertools.islice(records, through)), UNLIMITED)
    await _stored(run, player, redis)
    replayed.events_per_s = through / (clock() - began_s)
    between = (total - through) // max(samples, 1)
    for _ in range(samples):
        await player.play(told(itertools.islice(records, between)), UNLIMITED)
        for record in records:
            await _stored(run, player, redis)
            event = decode_event(record[3])
            if event.arrival_delay_min is None:
                body = await asyncio.to_thread(
                    post_event, run.settings.http_port, TOPOLOGY, record[3]
                )
                answer = msgspec.json.decode(body, type=Prediction)
                replayed.over_http[answer.key] = answer
            await player.send(*record)
            if event.arrival_delay_min is None:
                break
    replayed.ended.complete = await player.play(told(records), UNLIMITED)
    board.sent_warm_up = len(log.times_us(run.log_from, LIVE_FROM))


async def _stored(run: Run, player: Player, redis: Any) -> None:
    """Wait until the rows in Redis hold everything that was sent."""
    deadline_s = clock() + STORED_MAX_S
    metas = {
        place: f"{partition_prefix(TOPOLOGY, place)}meta"
        for place, end in player.log_ends.items()
        if end
    }
    while clock() < deadline_s:
        found = [await redis.hget(meta, "next_offset") for meta in metas.values()]
        ends = [player.log_ends[place] for place in metas]
        if all(int(offset or 0) >= end for offset, end in zip(found, ends, strict=True)):
            return
        await asyncio.sleep(CHECK_S)
    raise StreamInferError(f"the worker stored nothing new for {STORED_MAX_S:.0f} s")


async def _watch(run: Run) -> None:
    while True:
        run.children.check()
        await asyncio.sleep(0.5)


async def _drained(run: Run, player: Player, position: Position, board: Board) -> bool:
    deadline_s = clock() + DRAIN_MAX_S
    while clock() < deadline_s:
        run.children.check()
        committed = await position.committed()
        counts = await read_counts(run.metrics_ports)
        done = all(committed[place] >= end for place, end in player.log_ends.items())
        if done and (counts is None or board.predictions >= counts["predictions"]):
            return True
        await asyncio.sleep(0.1)
    return False
