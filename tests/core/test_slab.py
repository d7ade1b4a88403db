"""Shards of several partitions in one slab: side by side, and never in each other's way."""

import gc

import numpy as np
import pytest

from stream_infer.core.errors import StateError
from stream_infer.core.shard import Shard, lookup_together, take_dirty_together
from stream_infer.core.slab import Slab

ROW = np.dtype([("seen_us", "<i8")])


def two(keys: list[str]) -> tuple[Slab, Shard, Shard]:
    slab = Slab(ROW, 1 << 20)
    shards = Shard(ROW, 1 << 20, slab), Shard(ROW, 1 << 20, slab)
    for number, shard in enumerate(shards):
        shard.insert(keys, [None] * len(keys))
        rows, _ = shard.lookup(keys)
        shard.rows["seen_us"][rows] = np.arange(len(keys)) + 100 * number
    return slab, *shards


def test_the_same_key_has_a_row_in_each_shard() -> None:
    _, one, other = two(["a", "b"])
    rows, absent = lookup_together([one, other], [0, 3, 5], ["b", "x", None, "y", "b"])
    assert one.rows["seen_us"][rows[[0, 4]]].tolist() == [1, 101]
    assert rows[1:4].tolist() == [-1, -1, -1]
    assert absent == [["x"], ["y"]]


def test_a_shard_takes_only_what_changed_of_its_own() -> None:
    _, one, other = two(["a", "b"])
    rows, _ = lookup_together([one, other], [0, 1, 3], ["b", "b", "a"])
    one.touch(rows)
    assert dict(one.take_dirty()) == {"b": (1).to_bytes(8, "little")}
    assert one.dirty_count == 0
    assert [key for key, _ in other.take_dirty()] == ["a", "b"]


def test_shards_of_several_slabs_take_what_changed_of_their_own_together() -> None:
    _, one, other = two(["a", "b"])
    third, unasked = Shard(ROW, 10), Shard(ROW, 10, one.slab)
    for shard, keys in ((one, ["b"]), (other, ["a", "b"]), (third, ["c"]), (unasked, ["d"])):
        absent = shard.lookup(keys)[1]
        shard.insert(absent, [None] * len(absent))
        shard.touch(shard.lookup(keys)[0])
    taken = take_dirty_together([other, third, one])
    assert [[key for key, _ in rows] for rows in taken] == [["a", "b"], ["c"], ["b"]]
    assert dict(taken[0])["b"] == (101).to_bytes(8, "little")
    assert take_dirty_together([one, third, other]) == [[], [], []]
    assert [key for key, _ in unasked.take_dirty()] == ["d"]


def test_rows_of_a_batch_stay_though_another_shard_is_asked_later() -> None:
    _, one, other = two(list("abcdef"))
    rows, _ = lookup_together([one, other], [0, 2, 4], ["a", "b", "c", "d"])
    other.lookup(["e"])
    assert one.evict(0) == 4
    assert other.evict(0) == 5
    assert one.lookup(["a", "b"])[0].tolist() == rows[:2].tolist()
    assert "c" not in other


def test_rows_of_a_shard_that_nobody_has_any_more_are_free_again() -> None:
    slab, one, other = two([str(number) for number in range(30)])
    before, capacity = slab.free, len(slab.rows)
    one.touch(one.lookup(["3"])[0])
    del one
    gc.collect()
    assert slab.free == before + 30
    other.insert(["x", "y"], [None, None])
    assert other.rows["seen_us"][other.lookup(["x", "y"])[0]].tolist() == [0, 0]
    assert other.take_dirty() == []
    assert len(slab.rows) == capacity


def test_shards_of_different_slabs_are_not_looked_up_together() -> None:
    shards = [Shard(ROW, 10), Shard(ROW, 10)]
    with pytest.raises(StateError, match="several slabs"):
        lookup_together(shards, [0, 1, 2], ["a", "a"])
