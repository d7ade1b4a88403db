"""Refusing many does not keep the others waiting, and nobody is left unheard."""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest

from stream_infer.serving.pacing import UNHEARD_SHARE, Pace


class Turns:
    """A loop whose turns a test makes: what is due soon runs in the next one."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], Any]] = []

    def call_soon(self, function: Callable[..., Any], *args: Any) -> None:
        self.soon.append(lambda: function(*args))

    def turn(self) -> None:
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
        self.pace = Pace(a_turn)

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
