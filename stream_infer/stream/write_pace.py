"""How often the rows of a worker's partitions are written: by what that costs, and by its load."""

import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Generic, TypeVar

from stream_infer.settings import Settings
from stream_infer.stream.pickup import size_bytes
from stream_infer.stream.processing import ConsumerRecord

T = TypeVar("T")

PAUSE_MIN_S = 0.008
"""Least time between two writes: what a write costs for one row or for a few is about the same."""
WRITE_PAUSE = 4
"""Least time between two writes, in times of the processor time that the last one took."""
BEHIND_PAUSE = 10
"""Time between two writes of a worker that is behind altogether, in flush intervals."""
RECENT_S = 0.5
"""How fast it is forgotten that micro-batches were full: to a third within this."""
BATCH_LONG_S = 0.2
"""What one micro-batch counts for at most: a worker that was held up once is not behind."""
FULL = 0.9
"""From this part of the most records or bytes on, a micro-batch is full."""


class WritePace:
    """Says when rows are to be written again.

    A worker that keeps up writes every few milliseconds, but not in more than a fifth of its time,
    so that who reads the rows sees new events soon; and after `flush_interval_s` at the latest. It
    is behind while its micro-batches are full. The more of the recent time that was so, from half
    of it on, the longer it waits, gradually, up to ten flush intervals: most rows change again
    meanwhile, and a backlog is worked off sooner.
    """

    def __init__(self, settings: Settings, monotonic_s: Callable[[], float]) -> None:
        self._flush_interval_s = settings.flush_interval_s
        self._full_records = settings.batch_records_max * FULL
        self._full_bytes = settings.batch_bytes_max * FULL
        self._monotonic_s = monotonic_s
        self._began_s = -math.inf
        self._batch_s = monotonic_s()
        self._behind = 0.0
        self._cost_s = self._spent_s = 0.0

    def folded(self, parts: Sequence[Sequence[ConsumerRecord]]) -> None:
        """Hear of the records of a micro-batch that was folded just now."""
        now_s = self._monotonic_s()
        full = (
            sum(map(len, parts)) >= self._full_records
            or sum(map(size_bytes, parts)) >= self._full_bytes
        )
        self._pass(min(now_s - self._batch_s, BATCH_LONG_S), full)
        self._batch_s = now_s

    @property
    def pause_s(self) -> float:
        """The least time from the beginning of the last write to that of the next one."""
        cost_s = max(self._cost_s, self._spent_s)
        written_s = min(max(cost_s * WRITE_PAUSE, PAUSE_MIN_S), self._flush_interval_s)
        behind = max(2 * self._behind - 1, 0.0)
        return max(written_s, behind * BEHIND_PAUSE * self._flush_interval_s)

    @property
    def due(self) -> bool:
        """Whether the last write is long enough ago; a lull is no time of being behind."""
        now_s = self._monotonic_s()
        lull_s = now_s - self._batch_s - BATCH_LONG_S
        if lull_s > 0:
            self._pass(lull_s, full=False)
            self._batch_s = now_s - BATCH_LONG_S
        return now_s - self._began_s >= self.pause_s

    def begin(self) -> None:
        """Note that a write begins."""
        self._began_s = self._monotonic_s()
        self._cost_s, self._spent_s = self._spent_s, 0.0

    def spend(self, processor_s: float) -> None:
        """Note processor time that the write took which began last."""
        self._spent_s += processor_s

    def _pass(self, elapsed_s: float, full: bool) -> None:
        kept = math.exp(-elapsed_s / RECENT_S)
        self._behind = kept * self._behind + (1 - kept) * full


class Metered(Awaitable[T], Generic[T]):
    """Awaits a call, and counts the processor time that it takes: what runs meanwhile does not."""

    def __init__(
        self, call: Coroutine[Any, Any, T], processor_s: Callable[[], float] = time.thread_time
    ) -> None:
        self._call = call
        self._processor_s = processor_s
        self.spent_s = 0.0

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._call.__await__()
        step: Callable[[Any], Any] = steps.send
        given: Any = None
        while True:
            began_s = self._processor_s()
            try:
                waited_for = step(given)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                self.spent_s += self._processor_s() - began_s
            try:
                given, step = (yield waited_for), steps.send
            except BaseException as error:
                given, step = error, steps.throw
