"""What is known of a Redis that may evict, and when a partition's rows are to be trusted."""

import pytest

from stream_infer.core.errors import EvictingError, RowsEvictedError
from stream_infer.store.eviction import LOOK_EVERY_S, UNKNOWN, EvictionWatch, Memory, may_lack_rows
from stream_infer.stream.refold_pace import HOLD_MAX_S, HOLD_MIN_S, RefoldPace

EVICTING = Memory("allkeys-lru", 1000, "run", 5)
SAFE = Memory("noeviction", 1000, "run", 5)
UNBOUNDED = Memory("allkeys-lru", 0, "run", 5)


def reply(policy: str, evicted: int) -> list[bytes]:
    return [policy.encode(), b"1000", b"run", str(evicted).encode()]


@pytest.mark.parametrize(
    ("stored", "memory", "expected"),
    [
        ({}, SAFE, True),  # the header itself may have been evicted, before the policy was set
        ({}, Memory("noeviction", 1000, "run", 0), False),
        ({b"next_offset": b"7"}, SAFE, False),
        ({b"next_offset": b"7"}, EVICTING, True),
        ({}, UNBOUNDED, True),
        ({}, UNKNOWN, False),
        ({}, EVICTING, True),
        ({}, Memory("allkeys-lru", 1000, "run", 0), False),
        ({b"evictions": b"run:5"}, EVICTING, False),
        ({b"evictions": b"run:5"}, SAFE, False),
        ({b"evictions": b"run:4"}, EVICTING, True),
        ({b"evictions": b"run:4"}, SAFE, True),
        ({b"evictions": b"earlier:5"}, EVICTING, True),
        ({b"discarding": b"1"}, SAFE, True),
    ],
)
def test_rows_are_trusted_when_nothing_can_have_been_evicted_since_they_were_whole(
    stored: dict[bytes, bytes], memory: Memory, expected: bool
) -> None:
    assert may_lack_rows(stored, memory) is expected


def test_only_an_absent_row_after_an_eviction_is_suspect() -> None:
    watch = EvictionWatch(EVICTING, 0.0)
    watch.judge(reply("allkeys-lru", 5), absent=True, now_s=1)
    watch.judge(reply("allkeys-lru", 6), absent=False, now_s=1)
    with pytest.raises(RowsEvictedError, match="6 keys evicted"):
        watch.judge(reply("allkeys-lru", 6), absent=True, now_s=1)


def test_a_policy_that_is_changed_is_noticed() -> None:
    watch = EvictionWatch(SAFE, 0.0)
    assert not watch.wants(LOOK_EVERY_S - 1)
    assert watch.wants(LOOK_EVERY_S)
    watch.judge(reply("allkeys-lru", 5), absent=True, now_s=LOOK_EVERY_S)
    assert watch.wants(LOOK_EVERY_S)
    with pytest.raises(RowsEvictedError):
        watch.judge(reply("noeviction", 6), absent=True, now_s=LOOK_EVERY_S)
    earlier = EvictionWatch(SAFE, 0.0)
    earlier.unasked(absent=True)
    with pytest.raises(RowsEvictedError):
        earlier.judge(reply("allkeys-lru", 6), absent=False, now_s=LOOK_EVERY_S)
    assert not EvictionWatch(UNKNOWN, 0.0).wants(1e6)


def test_pauses_double_while_redis_evicts_and_end_when_it_does_not() -> None:
    pace, now_s, hold_s = RefoldPace(), 0.0, HOLD_MIN_S
    pace.begin(0, EVICTING, now_s)
    for _ in range(9):
        with pytest.raises(EvictingError, match="partition 0 is paused"):
            pace.begin(0, EVICTING, now_s + hold_s * 0.99)
        now_s += hold_s
        pace.begin(0, EVICTING, now_s)
        hold_s = min(2 * hold_s, HOLD_MAX_S)
    pace.begin(1, EVICTING, now_s)
    pace.begin(0, SAFE, now_s)
