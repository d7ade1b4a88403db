"""Rows as they were read answer as a shard's do, and are never changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.core.errors import StateError
from stream_infer.core.shard import Shard
from stream_infer.core.stored_rows import StoredRows

DTYPE = np.dtype([("seen_us", "<i8"), ("sums", "<f8", (3,)), ("ranks", "u1", (8,))])
KEYS = st.text("abcdef", min_size=1, max_size=2)


@given(
    st.dictionaries(KEYS, st.one_of(st.none(), st.binary(min_size=40, max_size=40)), max_size=8),
    st.lists(st.one_of(st.none(), KEYS), max_size=12),
)
def test_stored_rows_are_found_as_in_a_shard(
    payloads: dict[str, bytes | None], asked: list[str | None]
) -> None:
    stored = StoredRows(DTYPE, list(payloads), list(payloads.values()))
    shard = Shard(DTYPE, len(payloads) + 1)
    shard.insert(list(payloads), list(payloads.values()))
    found, absent = stored.lookup(asked)
    expected, lacking = shard.lookup(asked)
    assert absent == lacking
    assert ((found < 0) == (expected < 0)).all()
    at, there = np.maximum(found, 0), np.maximum(expected, 0)
    assert stored.rows[at].tobytes() == shard.rows[there].tobytes()
    for name in ("seen_us", "sums", "ranks"):
        flat, length, offset = stored.cells(name)
        other, other_length, other_offset = shard.cells(name)
        assert (length, offset) == (other_length, other_offset)
        cells, others = flat[at * length + offset], other[there * length + offset]
        assert cells.tobytes() == others.tobytes()


def test_stored_rows_cannot_be_written_to() -> None:
    stored = StoredRows(DTYPE, ["a"], [None])
    with pytest.raises(ValueError, match="read-only"):
        stored.rows["seen_us"][1] = 5


def test_a_row_of_another_length_is_named() -> None:
    with pytest.raises(StateError, match="stored row of 'b' has 3 bytes, which are no row of 40"):
        StoredRows(DTYPE, ["a", "b"], [None, b"abc"])
