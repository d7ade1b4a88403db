"""Dead letters as they are read: whatever a record holds, it is a letter and no mark."""

from types import SimpleNamespace
from typing import Any

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.stream.dead_letters import HEADERS, dead_letter
from stream_infer.stream.letters import (
    REPLAYED_OF,
    Letter,
    Oldest,
    Selection,
    Source,
    is_mark,
    letter_of,
    mark_of,
)
from stream_infer.stream.partitioning import Partitioner
from stream_infer.stream.processing import TP
from stream_infer.stream.redelivery import original

header_lists = st.lists(
    st.tuples(st.sampled_from([REPLAYED_OF, "trace", *HEADERS]), st.binary(max_size=8)),
    max_size=5,
)


def consumed(**fields: Any) -> Any:
    plain = {"topic": "sales", "partition": 1, "offset": 7, "timestamp": 5_000}
    return SimpleNamespace(**(plain | {"key": b"k", "value": b"v", "headers": ()} | fields))


def set_aside(record: Any, stage: str = "decode", reason: str = "no JSON") -> Letter:
    """The letter of a record, as read from the dead-letter topic."""
    letter = dead_letter(
        record,
        TP(record.topic, record.partition),
        topology="t",
        topic="t.dead_letters",
        stage=stage,
        reason=reason,
    )
    fields = {"key": letter.key, "value": letter.value, "headers": letter.headers}
    return letter_of(consumed(topic=letter.topic, partition=3, offset=40, **fields))


@given(headers=header_lists)
def test_no_header_of_a_record_makes_its_letter_a_mark_or_moves_its_source(headers):
    letter = set_aside(consumed(headers=tuple(headers)))
    assert not is_mark(letter.headers)
    assert letter.source == Source("sales", 1, 7)
    assert (letter.stage, letter.reason) == ("decode", "no JSON")


@given(
    key=st.none() | st.binary(max_size=9),
    value=st.none() | st.binary(max_size=9),
    headers=st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=4)), max_size=3),
    count=st.integers(2, 6),
)
def test_what_goes_back_is_the_record_itself_where_its_key_belongs(key, value, headers, count):
    letter = set_aside(consumed(key=key, value=value, headers=tuple(headers)))
    source = Source("sales", 1, 7)
    back = original(letter, source, count, Partitioner())
    kept = tuple(pair for pair in headers if not pair[0].startswith("si-"))
    assert (back.topic, back.key, back.value, back.headers) == ("sales", key, value, kept)
    everywhere = list(range(count))
    wanted = 1 if key is None else DefaultPartitioner()(key, everywhere, everywhere)
    assert back.partition == wanted


def test_without_a_key_and_its_partition_a_record_goes_to_one_that_exists():
    letter = set_aside(consumed(key=None, partition=9))
    assert original(letter, Source("sales", 9, 7), 2, Partitioner()).partition in (0, 1)


def test_a_mark_says_which_letter_and_lies_beside_it():
    letter = set_aside(consumed())
    mark = mark_of(letter, Source("sales", 1, 7), topology="t", topic="t.dead_letters")
    assert is_mark(mark.headers)
    assert (mark.topic, mark.partition, mark.key, mark.value) == ("t.dead_letters", 3, None, b"")
    assert dict(mark.headers)[REPLAYED_OF] == b"3:40"


def test_headers_that_are_no_position_are_no_source():
    for texts in (
        {},
        {"si-topic": b"sales", "si-partition": b"-1", "si-offset": b"2"},
        {"si-topic": b"sales", "si-partition": "²".encode(), "si-offset": b"2"},
        {"si-topic": b"sales", "si-partition": b"1", "si-offset": b"9" * 20},
        {"si-topic": b"sales", "si-partition": b"1", "si-offset": b"\xff"},
    ):
        assert letter_of(consumed(headers=tuple(texts.items()))).source is None


def test_a_selection_takes_what_fulfils_all_of_it():
    letter = set_aside(consumed(), stage="validate", reason="the Amount is NaN")
    for fits in ({}, {"reason": "amount"}, {"stage": "validate"}, {"since_ms": 5_000}):
        assert Selection(**fits).takes(letter)
    for fails in ({"reason": "key"}, {"stage": "valid"}, {"since_ms": 5_001}, {"until_ms": 5_000}):
        assert not Selection(**fails).takes(letter)
        assert not Selection(**({"reason": "amount"} | fails)).takes(letter)


@given(
    times=st.lists(st.integers(0, 9), max_size=30),
    limit=st.integers(0, 12),
)
def test_the_oldest_are_those_that_sorting_all_puts_first(times, limit):
    every = [
        letter_of(consumed(partition=n % 3, offset=n, timestamp=at)) for n, at in enumerate(times)
    ]
    oldest = Oldest(limit)
    for letter in every:
        oldest.add(letter)
    found = [(letter.timestamp_ms, letter.partition, letter.offset) for letter in oldest.letters()]
    whole = sorted((letter.timestamp_ms, letter.partition, letter.offset) for letter in every)
    assert found == whole[:limit]
    assert all(letter.value is None and letter.size_bytes == 2 for letter in oldest.letters())
