"""Refusing many does not keep the others waiting, turns stay short, and nobody is left unheard."""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest

from stream_infer.serving.limits import BATCH_EVENTS_MAX
from stream_infer.serving.pacing import REFUSED_SHARE, UNHEARD_SHARE, WAITING_MIN, Pace

TURN_S = 0.004


class Turns:
    """A loop whose turns a test makes: what is due soon, or later, runs in the next one."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.soon: list[Callable[[], Any]] = []

    def call_soon(self, function: Callable[..., Any], *args: Any) -> None:
        self.soon.append(lambda: function(*args))

    def call_later(self, seconds: float, function: Callable[..., Any], *args: Any) -> None:
        assert seconds > 0
        self.call_soon(function, *args)

    def turn(self, took_s: float = TURN_S) -> None:
        self.now_s += took_s
        soon, self.soon = self.soon, []
        for function in soon:
            function()


class Caller:
    """Asks again as soon as it is heard; counts its answers."""

    def __init__(self) -> None:
        self.heard = True
        self.answers = 0

    def pause_reading(self) -> None:
        assert self.heard
        self.heard = False

    def resume_reading(self) -> None:
        assert not self.heard
        self.heard = True


class Crowd:
    """Callers of a server that refuses them all."""

    def __init__(self, count: int, a_turn: int) -> None:
        self.callers = [Caller() for _ in range(count)]
        self.turns = Turns()
        self.pace = Pace(TURN_S, a_turn, lambda: self.turns.now_s)

    def turn(self) -> int:
        """Run what is due, then refuse all who are heard; return how many these were."""
        self.turns.turn()
        heard = [caller for caller in self.callers if caller.heard]
        for caller in heard:
            caller.answers += 1
            self.pace.refused(caller, cast(Any, self.turns))
        return len(heard)


@pytest.mark.parametrize(("count", "a_turn"), [(1, 1), (10, 4), (100, 8), (1_000, 64)])
def test_a_turn_refuses_its_share_and_a_part_of_those_who_wait(count: int, a_turn: int) -> None:
    crowd = Crowd(count, a_turn)
    assert crowd.turn() == count  # Their first requests: all came in one turn.
    assert all(crowd.turn() <= 2 * a_turn + count // UNHEARD_SHARE for _ in range(50))


@pytest.mark.parametrize(("count", "a_turn"), [(1, 1), (10, 4), (100, 8), (1_000, 64)])
def test_everybody_is_answered_again_within_as_many_turns_as_the_crowd_needs(
    count: int, a_turn: int
) -> None:
    crowd = Crowd(count, a_turn)
    crowd.turn()
    latest = deque([[caller.answers for caller in crowd.callers]])
    for _ in range(3):
        for _ in range(-(-count // a_turn) + 1):
            crowd.turn()
        now = [caller.answers for caller in crowd.callers]
        assert all(after > before for before, after in zip(latest[-1], now, strict=True))
        latest.append(now)


def test_all_are_heard_again_once_nothing_is_refused_any_more() -> None:
    crowd = Crowd(100, 8)
    crowd.turn()
    assert sum(caller.heard for caller in crowd.callers) == 8
    for _ in range(12):
        crowd.turns.turn()
    assert all(caller.heard for caller in crowd.callers)
    assert crowd.turns.soon == []  # The loop may rest.


def test_few_refusals_stop_nobody() -> None:
    crowd = Crowd(8, 8)
    for _ in range(10):
        assert crowd.turn() == 8


class Server:
    """Scores at `event_s` an event, refuses at `refusal_s` each; `rate` ask a second."""

    def __init__(self, rate: float, event_s: float, refusal_s: float = 15e-6) -> None:
        self.turns = Turns()
        self.pace = Pace(TURN_S, clock=lambda: self.turns.now_s)
        self.rate, self.event_s, self.refusal_s = rate, event_s, refusal_s
        self.took_s = TURN_S
        self.asked, self.accepted = 0.0, 0

    def turn(self, *, closed: int = 0) -> None:
        """Take up what came while the last turn went on, or all of `closed` callers."""
        self.turns.turn(self.took_s)
        self.asked += self.rate * self.took_s
        asked = closed or int(self.asked)
        self.asked -= int(self.asked)
        self.accepted = 0
        while self.accepted < asked and not self.is_full():
            self.accepted += 1
        refused = asked - self.accepted
        for _ in range(refused):
            self.pace.refused(Caller(), cast(Any, self.turns))
        self.took_s = 0.0005 + self.accepted * self.event_s + refused * self.refusal_s

    def is_full(self) -> bool:
        return self.accepted >= BATCH_EVENTS_MAX or self.pace.is_full(self.accepted)


@pytest.mark.parametrize("rate", [24_000, 30_000, 36_000])
def test_beyond_capacity_turns_become_short_and_as_much_is_scored_as_that_allows(
    rate: float,
) -> None:
    server = Server(rate, 40e-6)
    for _ in range(200):
        server.turn()
    took, accepted = 0.0, 0
    for _ in range(200):
        server.turn()
        assert server.took_s < 1.5 * TURN_S
        took, accepted = took + server.took_s, accepted + server.accepted
    # Time that refusing leaves, but for what each turn costs by itself.
    possible = (1 - 15e-6 * rate) / 25e-6
    assert accepted / took > 0.6 * possible


def test_a_backlog_is_refused_before_more_is_accepted() -> None:
    server = Server(36_000, 40e-6)
    server.took_s = 0.1  # Nothing was read for so long.
    for _ in range(60):
        server.turn()
    assert server.took_s < 1.5 * TURN_S


def test_callers_who_ask_again_at_once_do_not_keep_all_from_being_scored() -> None:
    server = Server(0, 40e-6)
    for _ in range(50):
        server.turn(closed=900)
    assert server.accepted > 900 // (REFUSED_SHARE + 2) > WAITING_MIN


def test_as_much_may_wait_as_before_once_less_is_asked() -> None:
    server = Server(36_000, 40e-6)
    for _ in range(100):
        server.turn()
    assert server.pace.is_full(BATCH_EVENTS_MAX - 1)
    for _ in range(BATCH_EVENTS_MAX):
        server.turns.turn(TURN_S / 2)
    assert not server.pace.is_full(10 * BATCH_EVENTS_MAX)
    assert server.turns.soon == []


def test_what_is_never_refused_is_never_bounded() -> None:
    assert not Pace(TURN_S).is_full(10 * BATCH_EVENTS_MAX)
