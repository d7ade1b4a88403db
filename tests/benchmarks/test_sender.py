"""The open-loop producer: what it sends is made before it is due."""

import msgspec
import numpy as np
import pytest

from benchmarks.generator import CHUNK
from benchmarks.sender import READY_US, now_us, scheduled
from benchmarks.standard import Payment


@pytest.mark.parametrize("count", [0, 1, CHUNK + 500])
def test_all_events_are_made_before_the_first_is_due(count: int) -> None:
    start_us, due_us, events = scheduled(np.zeros(count, np.int64), 1_000.0, seed=1)
    assert now_us() < start_us < now_us() + 60 * READY_US
    assert len(events) == len(due_us) == count
    assert due_us.tolist() == [start_us + n * 1_000 for n in range(count)]


def test_an_event_carries_the_moment_when_it_is_due() -> None:
    _, due_us, events = scheduled(np.arange(200), 30_000.0, seed=1)
    times = [msgspec.json.decode(value, type=Payment).at for _, value in events]
    assert [round(time.timestamp() * 1e6) for time in times] == due_us.tolist()
