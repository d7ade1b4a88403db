"""The wire format equals Feast's own serialisation."""

import math
import struct
from typing import Any

import pytest
from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.core.join import MISSING
from stream_infer.store.feast_plan import JoinKey
from stream_infer.store.feast_wire import (
    decode_column,
    decode_timestamp,
    decode_value,
    entity_keys,
    feature_field,
)

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
TYPES: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "DOUBLE": ("double_val", st.floats()),
    "FLOAT": ("float_val", st.floats(width=32)),
    "INT64": ("int64_val", INT64),
    "INT32": ("int32_val", INT32),
    "BOOL": ("bool_val", st.booleans()),
}


def feast_value(name: str, value: Any) -> bytes:
    return bytes((Value() if value is None else Value(**{name: value})).SerializeToString())


def same(decoded: float, value: Any) -> bool:
    if value is None or value != value:
        return math.isnan(decoded)
    return struct.pack("<d", decoded) == struct.pack("<d", float(value))


@pytest.mark.parametrize("dtype", TYPES)
def test_decoding_inverts_feasts_serialisation(dtype: str) -> None:
    name, values = TYPES[dtype]

    @given(st.lists(st.none() | values, max_size=10), st.integers(1, 5))
    def check(some: list[Any], times: int) -> None:
        column = some * times  # Many are decoded together, few one by one.
        stored = [feast_value(name, value) for value in column]
        decoded = decode_column(dtype, stored)
        assert all(map(same, decoded.tolist(), column))
        assert all(map(same, map(decode_value, stored), column))

    check()


@pytest.mark.parametrize("dtype", TYPES)
def test_values_of_an_earlier_schema_are_read_as_what_they_are(dtype: str) -> None:
    stored = [feast_value(name, name == "bool_val" or 1) for name, _ in TYPES.values()]
    for times in (1, 9):
        assert decode_column(dtype, stored * times).tolist() == [1.0] * len(TYPES) * times


@given(st.binary(max_size=14))
def test_bytes_that_are_no_number_are_missing_and_harmless(text: bytes) -> None:
    for dtype in TYPES:
        for times in (1, 9):
            assert len(decode_column(dtype, [text, None] * times)) == 2 * times
    decode_timestamp(text)


def test_absent_fields_and_text_are_missing() -> None:
    stored = [None, b"", feast_value("string_val", "12345678")]
    for dtype in TYPES:
        assert all(math.isnan(value) for value in decode_column(dtype, stored * 9).tolist())
        assert all(math.isnan(value) for value in decode_column(dtype, stored).tolist())


@given(st.integers(-(10**15), 10**17))
def test_timestamps_decode_to_the_microsecond(stamp_us: int) -> None:
    stamp = Timestamp()
    stamp.FromMicroseconds(stamp_us)
    assert decode_timestamp(stamp.SerializeToString()) == stamp_us
    assert decode_timestamp(None) == MISSING


@given(st.text(), INT64, INT32, st.permutations(["b", "a", "c"]))
def test_entity_keys_equal_feasts(text: str, whole: int, short: int, names: list[str]) -> None:
    parts = [
        (names[0], "STRING", text, Value(string_val=text)),
        (names[1], "INT64", whole, Value(int64_val=whole)),
        (names[2], "INT32", short, Value(int32_val=short)),
    ]
    for count in (1, 2, 3):
        chosen = sorted(parts[:count], key=lambda part: part[0])
        make = entity_keys("demo", [JoinKey(name, name, dtype) for name, dtype, _, _ in chosen])
        values = tuple(value for _, _, value, _ in chosen)
        theirs = EntityKey(
            join_keys=[part[0] for part in parts[:count]],
            entity_values=[part[3] for part in parts[:count]],
        )
        assert make(values if count > 1 else values[0]) == _redis_key("demo", theirs)


def test_known_bytes_of_a_key_and_a_field() -> None:
    make = entity_keys("demo", [JoinKey("user_id", "user_id", "INT64")])
    key = make(42)
    assert key is not None
    assert key.hex() == (
        "010000000200000007000000757365725f696404000000080000002a0000000000000064656d6f"
    )
    assert feature_field("user_stats", "txn_count_5m").hex() == "193b4689"


def test_entities_that_cannot_exist_have_no_key() -> None:
    text = entity_keys("demo", [JoinKey("k", "k", "STRING")])
    whole = entity_keys("demo", [JoinKey("k", "k", "INT64")])
    pair = entity_keys("demo", [JoinKey("a", "a", "STRING"), JoinKey("b", "b", "INT32")])
    assert text("\ud800") is None
    assert whole(2**63) is None
    assert pair(("a", None)) is None
    assert pair(("a", 2**31)) is None


def test_a_key_of_the_wrong_type_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="join key 'k' is text; field 'f' holds 3"):
        entity_keys("demo", [JoinKey("k", "f", "STRING")])(3)
    with pytest.raises(TypeError, match="join key 'k' is whole; field 'f' holds '3'"):
        entity_keys("demo", [JoinKey("k", "f", "INT64")])("3")
