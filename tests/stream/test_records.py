"""Dead letters keep the record; keys go where Kafka's own partitioner puts them; sizes hold."""

from itertools import groupby
from operator import attrgetter
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka.partitioner import DefaultPartitioner, murmur2
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_infer.core.arrays import FEW
from stream_infer.core.errors import SettingsError
from stream_infer.stream.dead_letters import HEADERS, dead_letter
from stream_infer.stream.parcels import Packer
from stream_infer.stream.partitioning import (
    BATCH_OVERHEAD_BYTES,
    KEY_BYTES_MAX,
    KEYS_CACHED_MAX,
    Partitioner,
    murmur2_of,
    record_bytes,
)
from stream_infer.stream.processing import (
    TP,
    Outgoing,
    OutgoingRecord,
    OutgoingRecords,
    one_by_one,
)
from stream_infer.stream.settings import StreamSettings

optional_bytes = st.none() | st.binary(max_size=50)


@given(
    key=optional_bytes,
    value=optional_bytes,
    headers=st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=8)), max_size=4),
    reason=st.text(max_size=40),
)
def test_a_dead_letter_is_the_record_itself_with_the_reason_in_its_headers(
    key, value, headers, reason
):
    record = SimpleNamespace(
        topic="flights", partition=3, offset=77, timestamp=1_380_000_000_123, key=key, value=value
    )
    record.headers = headers
    letter = dead_letter(
        record,
        TP(record.topic, record.partition),
        topology="delay",
        topic="dead",
        stage="decode",
        reason=reason,
    )
    assert (letter.topic, letter.key, letter.value) == ("dead", key, value)
    assert letter.headers[: len(headers)] == tuple(headers)
    ours = dict(letter.headers[len(headers) :])
    assert tuple(ours) == HEADERS
    assert ours["si-reason"] == reason.encode("utf-8", "replace")
    assert ours["si-stage"] == b"decode"
    assert (ours["si-topic"], ours["si-partition"], ours["si-offset"]) == (b"flights", b"3", b"77")
    assert ours["si-timestamp-ms"] == b"1380000000123"
    assert ours["si-topology"] == b"delay"


def test_a_dead_letter_of_a_replayed_dead_letter_has_each_header_once():
    first = SimpleNamespace(
        topic="t", partition=0, offset=1, timestamp=1, key=None, value=None, headers=[("a", b"b")]
    )
    letter = dead_letter(
        first, TP(first.topic, first.partition), topology="x", topic="dead", stage="s", reason="one"
    )
    again = SimpleNamespace(
        topic="t", partition=0, offset=9, timestamp=2, key=None, value=None, headers=letter.headers
    )
    second = dead_letter(
        again, TP(again.topic, again.partition), topology="x", topic="dead", stage="s", reason="two"
    )
    assert [name for name, _ in second.headers] == ["a", *HEADERS]
    assert dict(second.headers)["si-reason"] == b"two"


@given(st.lists(st.binary(max_size=30)), st.integers(1, 64))
def test_keys_go_where_the_default_partitioner_puts_them(keys, count):
    partitions = list(range(count))
    ours, theirs = Partitioner(), DefaultPartitioner()
    for key in [*keys, *keys]:
        assert ours.partition(key, partitions) == theirs(key, partitions, partitions)


def test_records_without_a_key_go_around_all_partitions():
    ours = Partitioner()
    assert {ours.partition(None, [0, 1, 2]) for _ in range(6)} == {0, 1, 2}


def test_the_size_of_a_record_covers_key_value_and_headers():
    record = OutgoingRecord("t", b"k" * 10, b"v" * 100, (("name", b"w" * 20),))
    assert 10 + 100 + 4 + 20 < record_bytes(record) < 300
    assert record_bytes(OutgoingRecord("t", None, None)) < 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_records_max": 0},
        {"commit_interval_s": -1.0},
        {"session_timeout_s": 40.0},
        {"heartbeat_interval_s": 11.0},
        {"drain_timeout_s": 31.0},
    ],
)
def test_settings_outside_their_bounds_are_refused_by_name(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        StreamSettings(**wrong)


def test_addresses_are_read_with_and_without_a_scheme():
    settings = StreamSettings(broker="kafka://a:1, b:2;kafka://c:3")
    assert settings.bootstrap == ["a:1", "b:2", "c:3"]
    assert msgspec.structs.asdict(settings)["broker"] == settings.broker


@given(st.lists(st.binary(max_size=40)))
def test_keys_hashed_together_have_the_hashes_of_kafka(keys):
    assert murmur2_of(keys).tolist() == [murmur2(key) for key in keys]


@pytest.mark.parametrize("size", [8, KEY_BYTES_MAX + 1])
def test_many_keys_hashed_at_once_have_the_hashes_of_kafka(size):
    keys = [f"{number % 60:0{size}}".encode() for number in range(100)]
    partitioner = Partitioner()
    known = [partitioner.partition(key, range(7)) for key in keys[:20]]
    hashes = partitioner.hashes(keys)
    assert hashes.tolist() == [murmur2(key) & 0x7FFFFFFF for key in keys]
    assert (hashes[:20] % 7).tolist() == known


ordinary = st.builds(
    OutgoingRecord, st.sampled_from(["a", "b"]), st.binary(max_size=3), st.binary(max_size=20)
)
any_record = st.builds(
    OutgoingRecord,
    st.sampled_from(["a", "b"]),
    optional_bytes,
    optional_bytes,
    st.lists(st.tuples(st.text(max_size=4), st.none() | st.binary(max_size=4)), max_size=1).map(
        tuple
    ),
    st.none() | st.integers(0, 2),
)


def by_topic(records: list[OutgoingRecord]) -> list[OutgoingRecord]:
    """Put records in the order that makes the longest runs of one topic."""
    return sorted(records, key=attrgetter("topic"))


def as_columns(records: list[OutgoingRecord]) -> list[Outgoing]:
    """Put runs of one topic together, where all are as columns have them."""
    found: list[Outgoing] = []
    for topic, run in groupby(records, attrgetter("topic")):
        items = list(run)
        if all(r.key is not None and r.value is not None for r in items) and not any(
            r.headers or r.partition is not None for r in items
        ):
            found.append(OutgoingRecords(topic, [r.key for r in items], [r.value for r in items]))
        else:
            found += items
    return found


@settings(deadline=None)
@given(
    st.lists(ordinary, min_size=2 * FEW + 1, max_size=3 * FEW).map(by_topic)
    | st.lists(ordinary | any_record, min_size=2 * FEW + 1, max_size=3 * FEW).map(by_topic)
    | st.lists(ordinary | any_record, max_size=10),
    st.sampled_from([1_000_000, BATCH_OVERHEAD_BYTES + 22]),
    st.booleans(),
)
def test_records_packed_together_are_those_packed_one_by_one(records, limit, columns):
    partitions = {"a": [0, 1, 2, 3], "b": [0, 2, 5]}
    outgoing = as_columns(records) if columns else records
    assert one_by_one(outgoing) == records
    if len(records) > FEW:  # Columns are sent before single records.
        outgoing = sorted(outgoing, key=lambda item: isinstance(item, OutgoingRecord))
    found = Packer(limit).pack(outgoing, partitions)
    wanted: dict[tuple[str, int], list[OutgoingRecord]] = {}
    choose, refused = Partitioner().partition, []
    for record in one_by_one(outgoing):
        if record_bytes(record) > limit:
            refused.append(record)
            continue
        place = record.partition
        if place is None:
            place = choose(record.key, partitions[record.topic])
        wanted.setdefault((record.topic, place), []).append(record)
    packed: dict[tuple[str, int], list[OutgoingRecord]] = {}
    for parcel in found.parcels:
        own = packed.setdefault((parcel.topic, parcel.partition), [])
        own += one_by_one(parcel.outgoing)
    assert packed == wanted
    assert [error.record for error in found.refused] == refused


def test_what_is_remembered_of_keys_stays_bounded():
    partitioner = Partitioner()
    for start in range(0, 4 * KEYS_CACHED_MAX, KEYS_CACHED_MAX // 4):
        keys = [b"%d" % number for number in range(start, start + KEYS_CACHED_MAX // 4)]
        assert partitioner.hashes(keys)[-1] == murmur2(keys[-1]) & 0x7FFFFFFF
        assert len(partitioner._hashes) <= KEYS_CACHED_MAX
