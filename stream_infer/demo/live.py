"""The live part of the demo: send, read back, show, until the end or Ctrl-C."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_infer.core.errors import StateError
from stream_infer.demo import servers
from stream_infer.demo.board import Board
from stream_infer.demo.children import Children
from stream_infer.demo.counts import read_counts
from stream_infer.demo.flights import LIVE_FROM, LIVE_TO, microseconds
from stream_infer.demo.player import UNLIMITED, Pace, Player
from stream_infer.demo.prepared import Prepared
from stream_infer.demo.reader import Position, Reader
from stream_infer.demo.table import View
from stream_infer.settings import Settings

SHOW_EVERY_S = 0.5
DRAIN_MAX_S = 15.0
DRAIN_CHECK_S = 0.1
EMBEDDED_FETCH_WAIT_MS = 5
"""The embedded broker answers a fetch only when its wait is over, whatever comes meanwhile."""
EMBEDDED_LINGER_MS = 10
"""It also answers a fetch by what one produce request brought, so many small ones are slow to read.
"""
FETCH_WAIT_MS = 500
PRODUCED_BYTES_MAX = 1 << 18
UNHURRIED = Pace(speed=7_200.0, rate=150.0)
"""Up to this pace the embedded broker takes events one by one, at the least latency."""

clock = time.perf_counter


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that the live part works with."""

    made: Prepared
    settings: Settings
    children: Children
    metrics_ports: Sequence[int]
    partitions: int
    embedded: bool
    pace: Pace
    duration_s: float | None
    stay: bool
    log_from: datetime
    log_to: datetime = LIVE_TO

    @property
    def linger_ms(self) -> int:
        """How long the producer may wait for more events to send together."""
        pace, slow = self.pace, UNHURRIED
        hurried = (pace.rate or 0.0) > (slow.rate or 0.0) or (pace.speed or 0.0) > (slow.speed or 0)
        return EMBEDDED_LINGER_MS if self.embedded and hurried else 0

    @property
    def fetch_wait_ms(self) -> int:
        """How long a fetch of ours may wait at the broker."""
        return EMBEDDED_FETCH_WAIT_MS if self.embedded else FETCH_WAIT_MS


@dataclass(slots=True)
class Ended:
    """What a run came to; times in seconds."""

    board: Board
    counts: Counter[str] | None
    warm_up_s: float = 0.0
    live_s: float = 0.0
    complete: bool = False
    """All events of the year were sent."""
    drained: bool = False
    """The worker finished and committed all that was sent."""
    in_flight: int = 0
    """Events that the worker had not committed at the end."""
    skipped: int = 0
    """Events that were in the log before this run."""


def events_of(log: Any, start: datetime, end: datetime) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """Yield (event time, (partition key, line)) of a span of the log."""
    times = log.times_us(start, end).tolist()
    return zip(times, log.events_between(start, end), strict=True)


async def connected_producer(settings: Settings, linger_ms: int = 0) -> Any:
    """Return a started producer that repeats nothing and keeps the order of each partition."""
    producer: Any = AIOKafkaProducer(
        bootstrap_servers=settings.broker,
        enable_idempotence=True,
        linger_ms=linger_ms,
        max_batch_size=PRODUCED_BYTES_MAX,
    )
    await producer.start()
    return producer


async def run_live(run: Run, view: View, show: Callable[[], None]) -> Ended:
    """Send the log and follow the results; `show` is called as `view` changes.

    Ctrl-C (SIGINT), SIGTERM and SIGHUP end it like its own end. Raises StreamInferError where a
    child process ends, or the log on the broker is not the demo's.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    topology, settings, board = run.made.topology, run.settings, view.board
    group = settings.group or f"stream-infer.{topology.name}"
    ended = Ended(board, None)
    async with contextlib.AsyncExitStack() as stack:
        position = Position(settings.broker, topology.stream.name, run.partitions, group)
        reader = Reader(
            settings.broker, topology, board, clock, fetch_max_wait_ms=run.fetch_wait_ms
        )
        stack.push_async_callback(position.stop)
        await position.start()
        stack.push_async_callback(reader.stop)
        await reader.start()
        producer = await connected_producer(settings, run.linger_ms)
        stack.push_async_callback(producer.stop)
        existing = await position.ends()
        player = Player(producer, topology.stream.name, run.partitions, board, clock, existing)
        ended.skipped = sum(existing.values())
        work = [
            asyncio.create_task(_play(run, view, player, position, stop, ended)),
            asyncio.create_task(reader.follow()),
            asyncio.create_task(_watch(run, view, show)),
        ]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()
            view.phase = "finishing what was sent"
            show()
            ended.drained = await _drained(player, position, board)
            ended.in_flight = await _in_flight(player, position)
            ended.counts = view.counts = await read_counts(run.metrics_ports) or view.counts
            view.phase = "stopping"
            show()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
    return ended


async def _play(
    run: Run,
    view: View,
    player: Player,
    position: Position,
    stop: asyncio.Event,
    ended: Ended,
) -> None:
    """Warm up, then send at the chosen pace."""
    log, board = run.made.log, view.board
    began_s = clock()
    view.phase = f"warming up from {run.log_from:%d %B %Y}, at full speed"
    warm_up = player.skip_existing(events_of(log, run.log_from, LIVE_FROM))
    complete = await player.play(warm_up, UNLIMITED, stop.is_set)
    board.sent_warm_up = board.sent
    # What is measured from here on is not to wait behind the warm-up.
    await _drained(player, position, board, stop.is_set)
    ended.warm_up_s = clock() - began_s
    if not complete or stop.is_set():
        return
    live = player.skip_existing(events_of(log, LIVE_FROM, run.log_to))
    first = next(live, None)
    await _check_log(run, player, position, exhausted=first is None)
    view.phase = _pace_text(run.pace)
    live_s = clock()
    if first is not None:
        ends_s = live_s + run.duration_s if run.duration_s is not None else float("inf")

        def over() -> bool:
            return stop.is_set() or clock() >= ends_s

        ended.complete = await player.play(_again(first, live), run.pace, over)
    else:
        ended.complete = True
    ended.live_s = clock() - live_s
    if ended.complete and run.stay:
        view.phase = "all flights of 2013 are sent; the page stays until Ctrl-C"
        await stop.wait()


def _again(
    first: tuple[int, int, bytes, bytes], rest: Iterator[tuple[int, int, bytes, bytes]]
) -> Iterator[tuple[int, int, bytes, bytes]]:
    yield first
    yield from rest


async def _check_log(run: Run, player: Player, position: Position, *, exhausted: bool) -> None:
    """Raise StateError where what was in the log before is not what the demo sends."""
    before = {place: end for place, end in player.existing.items() if end}
    if not before:
        return
    found = await position.last_values(before)
    for place, end in before.items():
        expected = player.last_existing.get(place)
        # Beyond what this run went through so far nothing is known, unless nothing is left to send.
        if found[place] != expected and (expected is not None or exhausted):
            raise StateError(
                f"topic {run.made.topology.stream.name!r}, partition {place}: the record at offset "
                f"{end - 1} is not the demo's, or of a log begun with other --warm-up-days; give a "
                "broker where that topic is empty"
            )


async def _watch(run: Run, view: View, show: Callable[[], None]) -> None:
    """Keep the view up to date; raises when a child process ends."""
    port = run.settings.http_port
    while True:
        run.children.check()
        view.counts = await read_counts(run.metrics_ports) or view.counts
        if not view.http_ready:
            view.http_ready = await asyncio.to_thread(servers.is_ready, port)
        view.recent.mark(clock(), view.board.sent, view.board.latencies.counts())
        show()
        await asyncio.sleep(SHOW_EVERY_S)


async def _drained(
    player: Player,
    position: Position,
    board: Board,
    until: Callable[[], bool] = lambda: False,
) -> bool:
    """Wait until the worker has committed all that was sent; whether it did in time."""
    deadline_s = clock() + DRAIN_MAX_S
    while clock() < deadline_s and not until():
        sent_all = board.acknowledged + board.refused == board.sent
        if sent_all and not await _in_flight(player, position):
            return True
        await asyncio.sleep(DRAIN_CHECK_S)
    return False


async def _in_flight(player: Player, position: Position) -> int:
    """Events of the log that the worker has not committed."""
    committed = await position.committed()
    return sum(max(0, end - committed[place]) for place, end in player.log_ends.items())


def _pace_text(pace: Pace) -> str:
    if pace.rate is not None:
        return f"live, {pace.rate:g} events a second"
    if pace.speed is None:
        return "live, as fast as it goes"
    hours = pace.speed / 3_600
    return f"live, {hours:g} h of flights a second" if hours >= 1 else f"live, {pace.speed:g} times"


def new_board(made: Prepared) -> Board:
    """Return an empty score sheet that counts from October on."""
    return Board(made.mean_gain_min, microseconds(LIVE_FROM))
