"""Bytes to columns: one bad record never spoils its batch, and says what is wrong with it."""

from datetime import datetime

import msgspec
import numpy as np
import pytest

from stream_infer.core.arrays import FEW
from stream_infer.core.columns import Batch, decode, decoder
from stream_infer.core.errors import DeclarationError
from stream_infer.core.events import Event
from stream_infer.core.features import mean
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
SALES.view("by_shop", by=["shop"], features={"mean": mean("amount", over="1h")})


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


MOMENTS = (
    "2013-10-01T12:00:00.123457Z",
    "2013-10-01T12:00:00",
    "2000-01-01T00:00:00Z",
    "1999-12-31T23:59:59.999999Z",
    "2013-10-01T13:00:00Z",
    "2013-10-01T13:00:00.000001Z",
)
AMOUNTS = (2.5, -1e30, 1e30, 0, -2.5, 2.0**40 * 1e-6, 1e6)


def test_few_events_are_judged_as_many_are() -> None:
    values = [sale(at=moment) for moment in MOMENTS * FEW]
    values += [sale(amount=amount) for amount in AMOUNTS * FEW] + [REFUND] * FEW
    whole = batch(*values)
    assert len(whole.rejects) == (3 + 3) * FEW
    for size in range(1, FEW + 1):
        parts = [batch(*values[at : at + size]) for at in range(0, len(values), size)]
        assert np.concatenate([part.times_us for part in parts]).tobytes() == (
            whole.times_us.tobytes()
        )
        reasons = [reject.reason for part in parts for reject in part.rejects]
        assert reasons == [reject.reason for reject in whole.rejects]


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


class Order(Event, tag="order"):
    customer: int
    at: datetime
    price: float
    units: int | None = None


class Text(Event, tag="text"):
    customer: int
    at: datetime
    price: str


def orders(*bodies: str) -> Batch:
    stream = Stream("orders", Order, key="customer", time="at")
    stream.view("by_customer", by=["customer"], features={"mean": mean("price", over="1h")})
    values = [f'{{"type":"order","at":"2013-10-01T12:00:00Z",{body}}}'.encode() for body in bodies]
    n = len(values)
    return decode(stream, decoder(stream), values, np.arange(n), np.full(n, NOON_US))


@pytest.mark.parametrize("field", ["customer", "units"])
@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 5000])
def test_an_integer_beyond_all_floats_spoils_its_record_only(field: str, number: str) -> None:
    body = {"customer": "1", "price": "1.5", "units": "2"} | {field: number}
    wrong = ",".join(f'"{name}":{value}' for name, value in body.items())
    found = orders('"customer":1,"price":1.5', wrong, '"customer":2,"price":2.5')
    assert found.positions.tolist() == [0, 2]
    assert [reject.position for reject in found.rejects] == [1]
    assert field in found.rejects[0].reason


def test_numbers_that_are_summed_are_bounded_by_their_resolution_and_others_are_not() -> None:
    found = orders(
        '"customer":42000000001,"price":1.5,"units":5000000', '"customer":1,"price":5000000'
    )
    assert found.keys(("customer",)) == ["42000000001"]
    assert found.column("units").tolist() == [5_000_000.0]
    assert "price is 5e+06" in found.rejects[0].reason


def test_a_field_that_is_a_number_here_and_text_there_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Order\.price is number, but Text\.price is text"):
        Stream("orders", Order | Text, key="customer", time="at")
