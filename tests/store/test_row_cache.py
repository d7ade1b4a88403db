"""Laws of the row cache: bounded, least recently used out first, rows never mixed up."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.store.row_cache import NOBODY, RowCache


def put(cache: RowCache, keys: list[int], read_at: float = 0.0) -> None:
    values = np.array(keys, np.float64)[:, None]
    cache.put(keys, values, np.array(keys, np.int64)[:, None], read_at)


def kept(cache: RowCache, keys: range) -> set[int]:
    return {key for key, slot in zip(keys, cache.slots(keys).tolist(), strict=True) if slot >= 0}


def test_the_least_recently_used_row_leaves_first() -> None:
    cache = RowCache(3, 1, 1)
    for key in (1, 2, 3):
        put(cache, [key])
    cache.touch(cache.slots([1]))
    put(cache, [4])
    assert kept(cache, range(5)) == {1, 3, 4}


def test_more_rows_than_fit_keep_the_last() -> None:
    cache = RowCache(3, 1, 1)
    put(cache, [9])
    put(cache, [1, 2, 3, 4, 5])
    assert kept(cache, range(10)) == {3, 4, 5}


def test_the_row_of_no_key_is_never_evicted() -> None:
    cache = RowCache(1, 2, 1)
    for key in range(5):
        cache.put([key], np.ones((1, 2)), np.ones((1, 1), np.int64), 0.0)
    assert cache.slots([None]).tolist() == [NOBODY]
    assert np.isnan(cache.values[NOBODY]).all()


@given(st.integers(1, 40), st.lists(st.lists(st.integers(0, 60), unique=True), max_size=30))
def test_rows_are_bounded_and_always_those_of_their_key(
    rows_max: int, batches: list[list[int]]
) -> None:
    cache = RowCache(rows_max, 1, 1)
    for batch in batches:
        put(cache, batch)
        assert len(cache) <= rows_max
        assert len(cache.values) <= rows_max + 1
        assert kept(cache, range(61)) >= set(batch[-rows_max:])
        for key, slot in enumerate(cache.slots(range(61)).tolist()):
            assert slot < 0 or cache.values[slot] == cache.timestamps_us[slot] == key
