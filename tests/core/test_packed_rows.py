"""What is stored of rows gives them back bit for bit, and takes no more room than they do."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.core.errors import StateError
from stream_infer.core.packed_rows import CHUNK_BYTES, WORDS_MIN, pack, unpack
from stream_infer.core.shard import Shard

WORDS = 21
ROW_BYTES = WORDS * 8
Words = npt.NDArray[np.uint64]


@st.composite
def rows(draw: st.DrawFn) -> Words:
    """Draw rows in which any words are filled, none and all of them among others."""
    count = draw(st.integers(1, 6))
    number = st.integers(1, (1 << 64) - 1)
    made = np.zeros((count, WORDS), np.uint64)
    for row in made:
        for place, value in draw(st.dictionaries(st.integers(0, WORDS - 1), number)).items():
            row[place] = value
    return made


def spread(filled: int, count: int = 1) -> Words:
    made = np.zeros((count, WORDS), np.uint64)
    made[:, :filled] = 1 << 63
    return made


@given(rows())
def test_rows_come_back_bit_for_bit(made: Words) -> None:
    places = list(range(len(made)))[::-1]
    keys = [f"k{place}" for place in places]
    stored = pack(made, places)
    assert unpack(keys, stored, ROW_BYTES) == made[::-1].tobytes()
    assert max(map(len, stored)) <= ROW_BYTES


@given(rows())
def test_what_is_stored_of_a_row_does_not_depend_on_the_rows_beside_it(made: Words) -> None:
    places = list(range(len(made)))
    assert pack(made, places) == [pack(made, [place])[0] for place in places]


def test_only_filled_words_are_stored_while_they_are_few() -> None:
    marks = 3
    assert [len(pack(spread(filled), [0])[0]) for filled in (0, 1, 10, 11, 21)] == [
        marks,
        marks + 8,
        marks + 80,
        ROW_BYTES,
        ROW_BYTES,
    ]


def test_more_rows_than_are_packed_at_a_time() -> None:
    count = 2 * CHUNK_BYTES // ROW_BYTES + 3
    made = spread(0, count)
    made[np.arange(count), np.arange(count) % WORDS] = np.arange(1, count + 1)
    stored = pack(made, list(range(count)))
    keys = [str(place) for place in range(count)]
    assert unpack(keys, stored, ROW_BYTES) == made.tobytes()


def test_rows_as_they_are_and_packed_ones_and_missing_ones_side_by_side() -> None:
    whole, sparse = spread(WORDS), spread(2)
    payloads = [whole.tobytes(), None, pack(sparse, [0])[0], sparse.tobytes()]
    found = unpack(["a", "b", "c", "d"], payloads, ROW_BYTES)
    assert found == whole.tobytes() + bytes(ROW_BYTES) + 2 * sparse.tobytes()


@pytest.mark.parametrize("wrong", ["", "ff", "800000", "800000" + "00" * 7, "000000" + "00" * 8])
def test_what_is_no_row_is_refused_by_its_key(wrong: str) -> None:
    with pytest.raises(StateError, match=r"stored row of 'b'.*no row of 168"):
        unpack(["a", "b"], [None, bytes.fromhex(wrong)], ROW_BYTES)


def test_short_rows_are_stored_as_they_are() -> None:
    layout = np.dtype([("tiles", "<i8", (WORDS_MIN - 1,))])
    shard = Shard(layout, 10)
    shard.insert(["a"], [None])
    shard.touch(shard.lookup(["a"])[0])
    ((_, stored),) = shard.take_dirty()
    assert stored == bytes(layout.itemsize)
    with pytest.raises(StateError, match="stored row of 'a'"):
        Shard(layout, 10).insert(["a"], [bytes(2)])


def test_a_shard_stores_and_takes_rows_without_their_empty_words() -> None:
    layout = np.dtype([("seen_us", "<i8"), ("tiles", "<i8", (WORDS - 1,))])
    shard = Shard(layout, 10)
    shard.insert(["a", "b"], [None, None])
    places, _ = shard.lookup(["a", "b"])
    shard.rows["tiles"][places, 5] = 7
    shard.touch(places)
    stored = shard.take_dirty()
    assert {len(payload) for _, payload in stored} == {3 + 8}
    other = Shard(layout, 10)
    other.insert([key for key, _ in stored], [payload for _, payload in stored])
    found, _ = other.lookup(["a", "b"])
    assert other.rows[found].tobytes() == shard.rows[places].tobytes()
