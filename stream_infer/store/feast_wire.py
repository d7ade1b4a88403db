"""How Feast lays a feature row out in Redis: entity keys, field names, values, timestamps.

One hash holds an entity: its key is the serialised entity key (version 3) and the project's name; a
feature's field is a hash of `view:feature`, its value a serialised protobuf `Value`.
"""

import struct
from collections.abc import Callable, Sequence

import mmh3
import numpy as np
from numpy.typing import NDArray

from stream_infer.core.join import MISSING
from stream_infer.store.feast_plan import JoinKey

_STRING = 2
_KEY_CODES = {"STRING": _STRING, "INT32": 3, "INT64": 4}
_KEY_RANGES = {"INT32": (-(1 << 31), 1 << 31), "INT64": (-(1 << 63), 1 << 63)}
_KEY_WIDTHS = {"INT32": 4, "INT64": 8}
_HEADER = struct.Struct("<II")
"""A key's part: the code of its type, and its length."""

_NULL_DOUBLE = b"\x29" + struct.pack("<d", np.nan)
_NULL_FLOAT = b"\x35" + struct.pack("<f", np.nan)
_DOUBLE, _FLOAT, _BOOL, _INT32, _INT64 = 0x29, 0x35, 0x38, 0x18, 0x20
_VARINT_BYTES = 10

_TOGETHER_MIN = 12
"""Fewer values than this are decoded faster one by one."""

Key = str | int | tuple[str | int | None, ...]


def feature_field(view: str, feature: str) -> bytes:
    """The hash field of a feature.

    >>> feature_field("user_stats", "txn_count_5m").hex()
    '193b4689'
    """
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def timestamp_field(view: str) -> bytes:
    """The hash field that holds when a view's row was true."""
    return f"_ts:{view}".encode()


def entity_keys(project: str, join_keys: Sequence[JoinKey]) -> Callable[[Key], bytes | None]:
    """Return the function from an entity (in the order of `join_keys`) to its Redis key.

    One join key takes a plain value, several a tuple. None comes back for a value that no entity
    can have: null, text that is not UTF-8, a number outside the type. A value of the wrong type
    raises TypeError.
    """
    prefix, suffix = key_prefix(join_keys), project.encode()
    parts = [_key_part(key) for key in join_keys]
    if len(parts) == 1:
        only = parts[0]

        def one(value: Key) -> bytes | None:
            part = only(value)
            return None if part is None else prefix + part + suffix

        return one

    def several(values: Key) -> bytes | None:
        assert isinstance(values, tuple)
        found = [part(value) for part, value in zip(parts, values, strict=True)]
        known = [part for part in found if part is not None]
        return prefix + b"".join(known) + suffix if len(known) == len(parts) else None

    return several


def key_prefix(join_keys: Sequence[JoinKey]) -> bytes:
    """Return what the Redis keys of all entities with these join keys begin with."""
    prefix = struct.pack("<I", len(join_keys))
    for key in join_keys:
        name = key.name.encode()
        prefix += struct.pack("<II", _STRING, len(name)) + name
    return prefix


def key_entities(project: str, join_keys: Sequence[JoinKey]) -> Callable[[bytes], Key | None]:
    """Return the function from a Redis key to its entity, None for a key of something else."""
    prefix, suffix = key_prefix(join_keys), project.encode()

    def entity(redis_key: bytes) -> Key | None:
        if not (redis_key.startswith(prefix) and redis_key.endswith(suffix)):
            return None
        values: list[str | int] = []
        place = len(prefix)
        try:
            for _ in join_keys:
                code, size = _HEADER.unpack_from(redis_key, place)
                place += _HEADER.size + size
                part = redis_key[place - size : place]
                whole = code != _STRING
                values.append(
                    int.from_bytes(part, "little", signed=True) if whole else part.decode()
                )
        except (struct.error, UnicodeDecodeError):
            return None
        if place != len(redis_key) - len(suffix):
            return None
        return values[0] if len(values) == 1 else tuple(values)

    return entity


def _key_part(key: JoinKey) -> Callable[[Key | None], bytes | None]:
    code = _KEY_CODES[key.dtype]

    def text(value: Key | None) -> bytes | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise TypeError(f"join key {key.name!r} is text; field {key.field!r} holds {value!r}")
        try:
            encoded = value.encode()
        except UnicodeEncodeError:
            return None
        return _HEADER.pack(code, len(encoded)) + encoded

    if key.dtype == "STRING":
        return text
    low, high = _KEY_RANGES[key.dtype]
    width = _KEY_WIDTHS[key.dtype]

    def whole(value: Key | None) -> bytes | None:
        if value is None:
            return None
        if not isinstance(value, int):
            raise TypeError(f"join key {key.name!r} is whole; field {key.field!r} holds {value!r}")
        if not low <= value < high:
            return None
        return _HEADER.pack(code, width) + value.to_bytes(width, "little", signed=True)

    return whole


def decode_column(dtype: str, values: Sequence[bytes | None]) -> NDArray[np.float64]:
    """Decode one feature of many entities into float64[n]; NaN for null and absent.

    Flags become 0 and 1; whole numbers beyond 2**53 lose their last digits. Values of another
    numeric type than `dtype` (left by an earlier schema) are read as what they are; anything else
    is NaN.
    """
    if len(values) >= _TOGETHER_MIN:
        if dtype == "DOUBLE":
            together = _fixed(values, _NULL_DOUBLE, _DOUBLE, "<f8")
        elif dtype == "FLOAT":
            together = _fixed(values, _NULL_FLOAT, _FLOAT, "<f4")
        else:
            together = _varints(values)
        if together is not None:
            return together
    return np.array([decode_value(value) for value in values], np.float64)


def decode_columns(
    dtypes: Sequence[str], columns: Sequence[Sequence[bytes | None]]
) -> NDArray[np.float64]:
    """Decode features of the same n entities into float64[n, F] (see `decode_column`).

    There may be more columns than `dtypes`; these are of the first ones.
    """
    if len(columns[0]) < _TOGETHER_MIN:
        few = [list(map(decode_value, columns[place])) for place in range(len(dtypes))]
        return np.array(few, np.float64).T
    values = np.empty((len(columns[0]), len(dtypes)))
    for place, dtype in enumerate(dtypes):
        values[:, place] = decode_column(dtype, columns[place])
    return values


def decode_value(value: bytes | None) -> float:
    """Decode one serialised `Value` by its tag; NaN for null, absent or not numeric."""
    if not value:
        return np.nan
    tag = value[0]
    if tag == _DOUBLE and len(value) == 9:
        return float(struct.unpack_from("<d", value, 1)[0])
    if tag == _FLOAT and len(value) == 5:
        return float(struct.unpack_from("<f", value, 1)[0])
    if tag in (_BOOL, _INT32, _INT64):
        number, end = _varint(value, 1)
        if end == len(value):
            return float(number - (1 << 64) if number >> 63 else number)
    return np.nan


def decode_timestamp(value: bytes | None) -> int:
    """Decode a serialised protobuf `Timestamp` to microseconds since the epoch; None is MISSING."""
    if value is None:
        return MISSING
    seconds = nanos = 0
    at = 0
    while at < len(value):
        tag = value[at]
        number, at = _varint(value, at + 1)
        if at < 0:
            return MISSING
        if tag == 0x08:
            seconds = number - (1 << 64) if number >> 63 else number
        elif tag == 0x10:
            nanos = number
        else:
            return MISSING
    return seconds * 1_000_000 + nanos // 1_000


def _varint(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(value) and shift < 70:
        byte = value[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at
    return 0, -1


def _fixed(
    values: Sequence[bytes | None], null: bytes, tag: int, number: str
) -> NDArray[np.float64] | None:
    """Decode values that all have one tag and width at once; None where they have not."""
    width = len(null)
    cells = [value or null for value in values]
    joined = b"".join(cells)
    # Widths that cancel out are seen too: the first wrong value stands aligned, with its own tag.
    if len(joined) != width * len(cells):
        return None
    table = np.frombuffer(joined, np.dtype([("tag", "u1"), ("number", number)]))
    if not (table["tag"] == tag).all():
        return None
    return table["number"].astype(np.float64)


def _varints(values: Sequence[bytes | None]) -> NDArray[np.float64] | None:
    """Decode flags and whole numbers at once; None where there is anything else among them."""
    width = 1 + _VARINT_BYTES
    joined = b"".join([(value or b"").ljust(width, b"\0") for value in values])
    if len(joined) != width * len(values):
        return None
    table = np.frombuffer(joined, np.uint8).reshape(-1, width)
    tags, body = table[:, 0], table[:, 1:]
    null = tags == 0
    if not (null | (tags == _INT64) | (tags == _INT32) | (tags == _BOOL)).all():
        return None
    number = np.zeros(len(values), np.uint64)
    going = np.ones(len(values), np.bool_)
    for place in range(_VARINT_BYTES):
        digit = (body[:, place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
        number += np.where(going, digit, np.uint64(0))
        going = going & (body[:, place] >= 0x80)
        if not going.any():
            break
    return np.where(null, np.nan, number.view(np.int64).astype(np.float64))
