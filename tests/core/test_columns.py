"""Bytes to columns: one bad record never spoils its batch, and says what is wrong with it."""

from datetime import datetime

import msgspec
import numpy as np
import pytest

from stream_infer.core.columns import Batch, decode, decoder
from stream_infer.core.events import Event
from stream_infer.core.stream import Stream

HOUR_US = 3_600_000_000
NOON_US = 1_380_628_800_000_000  # 2013-10-01T12:00:00Z


class Sale(Event, tag="sale"):
    shop: str
    at: datetime
    amount: float
    member: bool = False
    note: str | None = None


class Refund(Event, tag="refund"):
    shop: str
    at: datetime
    refunded: int | None = None


SALES = Stream("sales", Sale | Refund, key="shop", time="at", max_bytes=400)


def batch(*values: bytes | None, ingested_us: int = NOON_US) -> Batch:
    n = len(values)
    ingested = np.full(n, ingested_us)
    return decode(SALES, decoder(SALES), values, np.arange(100, 100 + n), ingested)


def sale(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "type": "sale",
        "shop": "a",
        "at": "2013-10-01T12:00:00Z",
        "amount": 2.5,
    }
    fields.update(changes)
    return msgspec.json.encode({k: v for k, v in fields.items() if v is not ...})


REFUND = b'{"type":"refund","shop":"b","at":"2013-10-01T14:00:00+02:00","refunded":null,"x":[1]}'


def test_events_become_columns() -> None:
    got = batch(sale(member=True), REFUND, sale(note="hi"))
    assert not got.rejects
    assert got.offsets.tolist() == [100, 101, 102]
    assert got.kinds.tolist() == [0, 1, 0]
    assert got.times_us.tolist() == [NOON_US] * 3
    np.testing.assert_array_equal(got.column("amount"), [2.5, np.nan, 2.5])
    np.testing.assert_array_equal(got.column("member"), [1, np.nan, 0])
    np.testing.assert_array_equal(got.column("refunded"), [np.nan] * 3)
    assert got.labels("note") == [None, None, "hi"]
    assert got.keys(("shop", "note")) == [None, None, "a\x1fhi"]


BAD = {
    "null": (None, "decode", "null body"),
    "empty": (b"", "decode", "truncated"),
    "not json": (b"{", "decode", "truncated"),
    "not utf-8": (b'{"type":"sale","shop":"\xff"}', "decode", ""),
    "nan text": (sale().replace(b"2.5", b"NaN"), "decode", "malformed"),
    "infinite": (sale().replace(b"2.5", b"1e999"), "decode", "out of range"),
    "wrong type": (sale(amount="much"), "decode", "$.amount"),
    "unknown tag": (sale(type="gift"), "decode", "gift"),
    "no tag": (sale(type=...), "decode", "type"),
    "no key": (sale(shop=...), "decode", "shop"),
    "null key": (sale(shop=None), "decode", "shop"),
    "empty key": (sale(shop=""), "validate", "shop is empty"),
    "separator in key": (sale(shop="\x1f"), "validate", "U+001F"),
    "naive time": (sale(at="2013-10-01T12:00:00"), "validate", "no time zone"),
    "1900": (sale(at="1900-01-01T00:00:00Z"), "validate", "before 2000"),
    "2999": (sale(at="2999-01-01T00:00:00Z"), "validate", "ahead of its record"),
    "magnitude": (sale(amount=1e300), "validate", "resolution"),
    "oversized": (sale(note="x" * 400), "decode", "limit of 400"),
    "array": (b"[1]", "decode", "array"),
    "deep": (b"[" * 300, "decode", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_record_never_spoils_its_batch(name: str) -> None:
    value, stage, reason = BAD[name]
    got = batch(sale(), value, REFUND)
    assert got.offsets.tolist() == [100, 102]
    assert got.positions.tolist() == [0, 2]
    assert [(reject.position, reject.stage) for reject in got.rejects] == [(1, stage)]
    assert reason in got.rejects[0].reason


def test_every_record_of_a_bad_batch_is_set_aside_in_order() -> None:
    values = [value for value, _, _ in BAD.values()]
    got = batch(*values)
    assert len(got) == 0
    assert [reject.position for reject in got.rejects] == list(range(len(values)))


def test_events_from_a_file_are_not_bounded_by_a_broker_timestamp() -> None:
    got = decode(SALES, decoder(SALES), [sale(at="2999-01-01T00:00:00Z")], np.array([0]), None)
    assert len(got) == 1


def test_an_event_ahead_of_its_record_is_refused_beyond_the_bound_only() -> None:
    assert len(batch(sale(), ingested_us=NOON_US - HOUR_US)) == 1
    assert len(batch(sale(), ingested_us=NOON_US - HOUR_US - 1)) == 0


def test_taking_some_events_keeps_their_columns() -> None:
    whole = batch(sale(amount=1), sale(amount=2), sale(amount=3))
    whole.column("amount")
    part = whole.take(np.array([True, False, True]))
    assert part.column("amount").tolist() == [1, 3]
    assert part.offsets.tolist() == [100, 102]
    assert len(part.events) == 2
