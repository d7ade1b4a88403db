"""Live results: every result of the stream to every follower, through queues that are bounded."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from stream_infer.monitoring.metrics import HttpMetrics
from stream_infer.serving.errors import OverloadedError
from stream_infer.serving.limits import LIVE_SUMMARIES_MAX
from stream_infer.serving.summary import Summary, Tally

PREDICTION, OUTCOME = "prediction", "outcome"
_encode = msgspec.json.Encoder().encode


def frame(event: str, data: bytes) -> bytes:
    """Return one server-sent event; `data` is JSON without line breaks."""
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


class Follower:
    """One caller that follows one topology's results, with a queue of its own.

    With `per_second_max`, results beyond so many a second are skipped, which the summaries say.
    """

    def __init__(self, topology: str, queue_max: int, per_second_max: int | None = None) -> None:
        self.topology = topology
        self.lost = 0
        self._lost_told = 0
        self._per_second_max = per_second_max
        self._results_this_second = 0
        self._results: deque[bytes] = deque()
        self._notes: deque[bytes] = deque(maxlen=LIVE_SUMMARIES_MAX)
        self._queue_max = queue_max
        self._wake = asyncio.Event()
        self._closed = False

    def result(self, frames: bytes) -> int:
        """Queue a result; return how many were lost for it (0 or 1)."""
        self._results_this_second += 1
        if self._per_second_max is not None and self._results_this_second > self._per_second_max:
            return 0
        lost = len(self._results) >= self._queue_max
        if lost:
            self._results.popleft()
            self.lost += 1
        self._results.append(frames)
        self._wake.set()
        return int(lost)

    def note(self, frames: bytes) -> None:
        """Queue a summary, with which a new second begins."""
        self._results_this_second = 0
        self._notes.append(frames)
        self._wake.set()

    def close(self) -> None:
        """End the stream after a farewell."""
        self._closed = True
        self._wake.set()

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield what there is, several events at a time, until closed."""
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            parts: list[bytes] = []
            if self.lost > self._lost_told:
                parts.append(frame("lost", _encode({"lost": self.lost})))
                self._lost_told = self.lost
            parts += self._notes
            parts += self._results
            self._notes.clear()
            self._results.clear()
            if parts:
                yield b"".join(parts)
        yield frame("goodbye", b'{"reason": "the server stops"}')


class Hub:
    """Hands results to followers, and sums them up each second.

    At most `clients_max` follow at a time. Every topology's summaries of the last minutes are kept
    while somebody follows any.
    """

    def __init__(
        self,
        topologies: tuple[str, ...],
        *,
        clients_max: int,
        queue_max: int,
        metrics: HttpMetrics | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._clients_max = clients_max
        self._queue_max = queue_max
        self._metrics = metrics or HttpMetrics()
        self._now_s = now_s
        self._followers: set[Follower] = set()
        self._tallies = {name: Tally() for name in topologies}
        self._summaries: dict[str, deque[Summary]] = {
            name: deque(maxlen=LIVE_SUMMARIES_MAX) for name in topologies
        }
        self._anyone = asyncio.Event()
        self.closed = False

    @property
    def clients(self) -> int:
        """How many follow now."""
        return len(self._followers)

    async def someone(self) -> None:
        """Return when at least one follows."""
        await self._anyone.wait()

    def join(self, topology: str, per_second_max: int | None = None) -> Follower:
        """Begin to follow; raises OverloadedError where too many do already.

        While the server stops, what follows ends at once, as what followed before did.
        """
        if self.closed:
            late = Follower(topology, self._queue_max, per_second_max)
            late.close()
            return late
        if len(self._followers) >= self._clients_max:
            raise OverloadedError(
                f"{len(self._followers)} callers follow results already",
                "server",
                "try again later, or raise STREAM_INFER_SSE_CLIENTS_MAX",
            )
        follower = Follower(topology, self._queue_max, per_second_max)
        history = list(self._summaries[topology])
        follower.note(frame("history", _encode(history)))
        self._followers.add(follower)
        self._metrics.clients = len(self._followers)
        self._anyone.set()
        return follower

    def leave(self, follower: Follower) -> None:
        """Stop following."""
        self._followers.discard(follower)
        self._metrics.clients = len(self._followers)
        if not self._followers:
            self._anyone.clear()

    def publish(self, topology: str, event: str, value: bytes) -> None:
        """Hand one encoded prediction or outcome to the followers of its topology.

        A value that is neither is left out: anybody may write to a topic.
        """
        tally = self._tallies[topology]
        accepted = tally.prediction(value) if event == PREDICTION else tally.outcome(value)
        if not accepted:
            return
        if b"\n" in value or b"\r" in value:
            value = msgspec.json.format(value, indent=-1)
        frames = frame(event, value)
        for follower in self._followers:
            if follower.topology == topology:
                self._metrics.lost += follower.result(frames)

    def tick(self) -> None:
        """Sum up the time since the last tick, for everybody."""
        for name, tally in self._tallies.items():
            summary = tally.take(self._now_s())
            self._summaries[name].append(summary)
            frames = frame("summary", _encode(summary))
            for follower in self._followers:
                if follower.topology == name:
                    follower.note(frames)

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        for follower in self._followers:
            follower.close()
