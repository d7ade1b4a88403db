"""What a turn of the loop takes up beyond capacity, so that turns stay short.

A turn of the loop reads every connection that has something to say, and what is accepted in it is
answered about three turns later: a batch must be begun, and its rows read. Beyond capacity most of
a turn goes by with refusing. If as much were accepted as can be scored in what is left of the time,
nothing would be left to catch up with: what waits unread would stay as much as it has become, and
all would wait for it. So long turns make less be accepted, until they are short again.

Where even that does not help, a caller refused in a turn that has refused enough is not listened to
until those before it have been, some in each turn: its next request waits meanwhile.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from stream_infer.serving.limits import BATCH_EVENTS_MAX

REFUSED_A_TURN = 1_000
"""Some 20 ms of refusing. Not to listen and to listen again costs a fifth of a refusal, too, so
nobody is unheard before it must be."""
UNHEARD_SHARE = 4
"""A turn hears this part of the unheard more: the more callers wait, the fewer are scored."""
TURNS_A_WAIT = 5
"""How many turns there are meant to be in the longest wait that is allowed."""
WAITING_MIN = 48
"""So many events may wait in any case: smaller batches cost more an event."""
REFUSED_SHARE = 8
"""One for each so many refusals of a turn may wait in any case: callers who ask again at once make
turns long whatever is accepted."""


class Listening(Protocol):
    """A connection that can be left unheard for a while."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Pace:
    """Says how many events may wait while requests are refused, so that turns of the loop take no
    longer than `turn_s`, and lets a turn refuse about `a_turn` requests and a part of what waits.

    `clock` returns seconds of processor time: a turn is no shorter for accepting less where another
    process has the processor.
    """

    def __init__(
        self,
        turn_s: float,
        a_turn: int = REFUSED_A_TURN,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._turn_s = turn_s
        self._a_turn = a_turn
        self._clock = clock
        self._refused = 0
        self._unheard: deque[Listening] = deque()
        self._turning = False
        self._since_s: float | None = None
        self._waiting_max = BATCH_EVENTS_MAX

    def is_full(self, waiting: int) -> bool:
        """Whether no more than so many events may wait for now."""
        return waiting >= self._waiting_max and self._turning

    def refused(self, caller: Listening, loop: asyncio.AbstractEventLoop) -> None:
        """Count a refusal; stop listening to its caller for now where there are many."""
        self._refused += 1
        if self._unheard or self._refused > self._a_turn:
            caller.pause_reading()
            self._unheard.append(caller)
        if not self._turning:
            self._turning = True
            self._since_s = None
            loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = self._clock()
        if self._since_s is not None:
            self._follow(now_s - self._since_s)
        self._since_s = now_s
        refused, self._refused = self._refused, 0
        waiting = len(self._unheard)
        for _ in range(min(self._a_turn + waiting // UNHEARD_SHARE, waiting)):
            self._unheard.popleft().resume_reading()
        if refused or self._unheard:
            loop.call_soon(self._turn, loop)
        elif self._waiting_max < BATCH_EVENTS_MAX:
            # All is accepted, for now: until as much may wait as before, without turning for it.
            loop.call_later(self._turn_s / 2, self._turn, loop)
        else:
            self._turning = False

    def _follow(self, took_s: float) -> None:
        """Let less wait after a turn that took too long, and more after another."""
        if took_s > self._turn_s:
            least = max(WAITING_MIN, min(self._refused // REFUSED_SHARE, BATCH_EVENTS_MAX))
            self._waiting_max = max(least, self._waiting_max * 3 // 4)
        elif self._waiting_max < BATCH_EVENTS_MAX:
            self._waiting_max += 1
