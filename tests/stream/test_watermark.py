"""The watermark never passes an offset that is not acknowledged, and holds nothing back else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.stream.watermark import Watermark


@given(
    start=st.integers(0, 1 << 40),
    sizes=st.lists(st.integers(0, 5), max_size=40),
    order=st.randoms(use_true_random=False),
)
def test_the_watermark_is_the_end_of_the_acknowledged_prefix_in_any_order(start, sizes, order):
    mark = Watermark(start)
    ends, tickets = [], []
    for size in sizes:
        ends.append((ends[-1] if ends else start) + size)
        tickets.append(mark.take(ends[-1]))
    acknowledged: set[int] = set()
    shuffled = list(range(len(tickets)))
    order.shuffle(shuffled)
    for index in shuffled:
        position = mark.acknowledge(tickets[index])
        acknowledged.add(index)
        prefix = 0
        while prefix in acknowledged:
            prefix += 1
        assert position == mark.position == (ends[prefix - 1] if prefix else start)
        assert mark.in_flight == len(tickets) - len(acknowledged)
    assert mark.position == mark.taken


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60))
def test_the_watermark_never_passes_what_is_unacknowledged_while_more_is_taken(steps):
    mark = Watermark(100)
    open_tickets: list[tuple[int, int]] = []
    before = 100
    for take, number in steps:
        if take or not open_tickets:
            first = mark.taken
            open_tickets.append((mark.take(first + number), first))
        else:
            ticket, _ = open_tickets.pop(number % len(open_tickets))
            mark.acknowledge(ticket)
        lowest = min((first for _, first in open_tickets), default=mark.taken)
        assert before <= mark.position <= mark.taken
        assert mark.position == lowest
        before = mark.position


def test_a_ticket_counts_once_and_taking_never_goes_back():
    mark = Watermark(5)
    ticket = mark.take(7)
    mark.acknowledge(ticket)
    with pytest.raises(KeyError):
        mark.acknowledge(ticket)
    with pytest.raises(ValueError, match="7"):
        mark.take(6)
