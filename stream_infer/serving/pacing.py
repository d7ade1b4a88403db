"""How many requests are refused before what was accepted gets its turn again.

A turn of the loop reads every connection that has something to say. Beyond capacity these are all
of them, and a batch that needs a few turns would come forward as slowly as thousands of callers are
told that they are refused. So a caller refused in a turn that has refused enough is not
listened to until those before it have been, some in each turn: its next request waits meanwhile.
"""

import asyncio
from collections import deque
from typing import Protocol

REFUSED_A_TURN = 1_000
"""Some 20 ms of refusing. Not to listen and to listen again costs a fifth of a refusal, too, so
nobody is unheard before it must be."""
UNHEARD_SHARE = 4
"""A turn hears this part of the unheard more: the more callers wait, the fewer are scored."""


class Listening(Protocol):
    """A connection that can be left unheard for a while."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Pace:
    """Lets a turn of the loop refuse about `a_turn` requests and a part of what waits, so that
    neither those that are scored nor those that are refused wait for long.
    """

    def __init__(self, a_turn: int = REFUSED_A_TURN) -> None:
        self._a_turn = a_turn
        self._refused = 0
        self._unheard: deque[Listening] = deque()
        self._turning = False

    def refused(self, caller: Listening, loop: asyncio.AbstractEventLoop) -> None:
        """Count a refusal; stop listening to its caller for now where there are many."""
        self._refused += 1
        if self._unheard or self._refused > self._a_turn:
            caller.pause_reading()
            self._unheard.append(caller)
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._refused = 0
        waiting = len(self._unheard)
        for _ in range(min(self._a_turn + waiting // UNHEARD_SHARE, waiting)):
            self._unheard.popleft().resume_reading()
        self._turning = bool(self._unheard)
        if self._turning:
            loop.call_soon(self._turn, loop)
