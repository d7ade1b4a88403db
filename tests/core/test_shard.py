"""Rows in memory: found by key, bounded in number, never lost before they are stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_infer.core.errors import StateError
from stream_infer.core.shard import Shard

ROW = np.dtype([("seen_us", "<i8"), ("tiles", "<u4", (3,)), ("flag", "|u1")])
KEYS = st.sampled_from([f"k{i}" for i in range(12)])


def filled(max_rows: int, keys: list[str]) -> Shard:
    """Return a shard that holds `keys`."""
    shard = Shard(ROW, max_rows)
    shard.insert(keys, [None] * len(keys))
    return shard


def test_lookup_tells_rows_and_distinct_missing_keys_in_order() -> None:
    shard = filled(10, ["a", "b"])
    rows, missing = shard.lookup(["b", None, "x", "a", "x", "w"])
    assert missing == ["x", "w"]
    assert (rows >= 0).tolist() == [True, False, False, True, False, False]
    assert rows[0] != rows[3]


def test_nothing_to_look_up_is_no_special_case() -> None:
    rows, missing = Shard(ROW, 10).lookup([])
    assert rows.dtype == np.int64
    assert (len(rows), missing) == (0, [])


def test_a_stored_row_comes_back_as_it_was() -> None:
    shard = filled(10, ["a"])
    row = int(shard.lookup(["a"])[0][0])
    shard.rows[row] = (5, (1, 2, 3), 1)
    shard.touch(np.array([row]))
    stored = dict(shard.take_dirty())
    other = Shard(ROW, 10)
    other.insert(["a"], [stored["a"]])
    assert other.payload(int(other.lookup(["a"])[0][0])) == stored["a"] == shard.payload(row)


def test_a_row_of_the_wrong_length_is_refused_and_nothing_is_inserted() -> None:
    shard = Shard(ROW, 10)
    with pytest.raises(StateError, match=r"'b'.*3 bytes, which are no row of 21"):
        shard.insert(["a", "b"], [None, b"123"])
    assert len(shard) == 0


def test_a_resident_key_keeps_its_row() -> None:
    shard = filled(10, ["a"])
    row = int(shard.lookup(["a"])[0][0])
    shard.rows["seen_us"][row] = 7
    shard.insert(["a", "c", "c"], [None, None, None])
    assert shard.rows["seen_us"][shard.lookup(["a"])[0]].tolist() == [7]
    assert len(shard) == 2


def test_taken_rows_are_copies_and_are_taken_once() -> None:
    shard = filled(10, ["a", "b"])
    rows, _ = shard.lookup(["b"])
    shard.rows["seen_us"][rows] = 1
    shard.touch(rows)
    ((key, content),) = shard.take_dirty()
    shard.rows["seen_us"][rows] = 2
    assert key == "b"
    assert content[:8] == (1).to_bytes(8, "little")
    assert shard.take_dirty() == []


def test_dirty_rows_and_those_of_the_batch_in_flight_are_not_evicted() -> None:
    shard = filled(10, ["old", "dirty", "now"])
    shard.touch(shard.lookup(["dirty"])[0])
    shard.lookup(["now"])
    shard.insert(["new"], [None])
    assert shard.evict(0) == 1
    assert [key in shard for key in ("old", "dirty", "now", "new")] == [False, True, True, True]
    shard.take_dirty()
    shard.lookup([])
    assert shard.evict(0) == 3
    assert len(shard) == 0


def test_the_least_recently_used_rows_are_evicted() -> None:
    shard = filled(10, ["a", "b", "c", "d"])
    for key in ("c", "a", "d", "b"):
        shard.lookup([key])
    shard.lookup([])
    assert shard.evict(2) == 2
    assert [key in shard for key in "abcd"] == [False, True, False, True]


def test_an_evicted_row_starts_empty_when_its_place_is_used_again() -> None:
    shard = filled(1, ["a"])
    shard.rows[shard.lookup(["a"])[0]] = (5, (1, 2, 3), 1)
    shard.lookup([])
    shard.insert(["b"], [None])
    assert "a" not in shard
    assert shard.payload(int(shard.lookup(["b"])[0][0])) == bytes(ROW.itemsize)


def test_rows_stay_within_the_limit_or_the_batch_is_refused() -> None:
    shard = filled(3, ["a", "b", "c"])
    shard.touch(shard.lookup(["a", "b"])[0])
    shard.lookup([])
    shard.insert(["d"], [None])
    with pytest.raises(StateError, match="2 new rows do not fit"):
        shard.insert(["e", "f"], [None, None])
    assert len(shard) == 3
    assert shard.allocated_bytes == 4 * ROW.itemsize


def test_growing_keeps_rows_where_they_are() -> None:
    shard = filled(5000, ["a"])
    rows, _ = shard.lookup(["a"])
    shard.rows["seen_us"][rows] = 9
    shard.touch(rows)
    many = [f"k{i}" for i in range(3000)]
    shard.insert(many, [None] * 3000)
    assert shard.lookup(["a"])[0].tolist() == rows.tolist()
    assert shard.rows["seen_us"][rows].tolist() == [9]
    assert [key for key, _ in shard.take_dirty()] == ["a"]
    assert shard.resident_bytes == 3001 * ROW.itemsize <= shard.allocated_bytes
    flat, length, offset = shard.cells("flag")
    shard.rows["flag"][rows] = 3
    assert flat[rows * length + offset].tolist() == [3]


Steps = st.lists(st.tuples(st.lists(KEYS, max_size=6), st.booleans(), st.integers(0, 8)))


@settings(max_examples=150, deadline=None)
@given(Steps)
def test_with_what_was_taken_as_store_no_write_is_ever_lost(
    steps: list[tuple[list[str], bool, int]],
) -> None:
    shard, store, truth = Shard(ROW, 100), dict[str, bytes](), dict[str, int]()
    for keys, store_now, limit in steps:
        _, missing = shard.lookup(keys)
        shard.insert(missing, [store.get(key) for key in missing])
        rows, missing = shard.lookup(keys)
        assert missing == []
        for key, row in zip(keys, rows.tolist(), strict=True):
            assert shard.rows["seen_us"][row] == truth.get(key, 0)
            truth[key] = truth.get(key, 0) + 1
            shard.rows["seen_us"][row] = truth[key]
        shard.touch(rows)
        if store_now:
            store.update(shard.take_dirty())
        shard.lookup([])
        shard.evict(limit)
        assert len(shard) <= max(limit, shard.dirty_count)
