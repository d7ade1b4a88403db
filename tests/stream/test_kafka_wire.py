"""Our bytes and values are those of aiokafka's own classes, for any request and response."""

import struct
from io import BytesIO

import pytest
from aiokafka.protocol.fetch import (
    FetchRequest,
    FetchRequest_v10,
    FetchRequest_v11,
    FetchResponse_v11,
)
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.stream import kafka_wire

int8, int16, int32, int64 = (st.integers(-(1 << n), (1 << n) - 1) for n in (7, 15, 31, 63))
text = st.text(max_size=12)
records = st.binary(max_size=300)


def topics(*parts: st.SearchStrategy[object]) -> st.SearchStrategy[list[tuple[str, list[object]]]]:
    return st.lists(st.tuples(text, st.lists(st.tuples(*parts), max_size=4)), max_size=3)


asked = topics(int32, int32, int64, int64, int32)
aborted = st.none() | st.lists(st.tuples(int64, int64), max_size=3)
fetched = topics(int32, int16, int64, int64, int64, aborted, int32, st.none() | records)
produced = topics(int32, int16, int64, int64, int64)


@given(
    st.tuples(
        int32, int32, int32, int32, int8, int32, int32, asked, st.just([]), st.text(max_size=5)
    )
)
def test_a_fetch_has_the_bytes_of_aiokafka(values):
    theirs, ours = FetchRequest_v11(*values), kafka_wire.FetchPacked(*values)
    assert ours.encode() == theirs.encode()


@given(st.tuples(st.none() | text, int16, int32, topics(int32, records)))
def test_a_produce_request_has_the_bytes_of_aiokafka(values):
    theirs, ours = ProduceRequest_v7(*values), kafka_wire.ProducePacked(*values)
    assert ours.encode() == theirs.encode()


@given(int32, text)
def test_headers_are_those_of_aiokafka(number, client):
    theirs = FetchRequest_v11(*[None] * len(FetchRequest_v11.SCHEMA.names))
    ours = kafka_wire.FetchPacked(*[None] * len(FetchRequest_v11.SCHEMA.names))
    told = {"correlation_id": number, "client_id": client}
    header = ours.build_request_header(**told)
    assert header.encode() == theirs.build_request_header(**told).encode()
    answer = BytesIO(number.to_bytes(4, "big", signed=True) + b"rest")
    assert ours.parse_response_header(answer).correlation_id == number
    assert answer.read() == b"rest"


@given(int32, int16, int32, fetched, st.binary(max_size=6))
def test_a_fetch_response_has_the_values_of_aiokafka(throttle, error, session, found, before):
    data = FetchResponse_v11(throttle, error, session, found).encode()
    theirs = FetchResponse_v11.decode(data)
    assert kafka_wire.FetchResponse.decode(data) == theirs
    within = BytesIO(before + data)
    within.seek(len(before))
    assert kafka_wire.FetchResponse.decode(within) == theirs


@given(produced, int32)
def test_a_produce_response_has_the_values_of_aiokafka(found, throttle):
    data = ProduceResponse_v7(found, throttle).encode()
    assert kafka_wire.ProduceResponse.decode(data) == ProduceResponse_v7.decode(data)


def test_a_response_that_ends_too_soon_is_refused():
    found = [("events", [(0, 0, 5, 5, 0, [], -1, b"records")])]
    data = FetchResponse_v11(0, 0, 0, found).encode()
    with pytest.raises(struct.error):
        kafka_wire.FetchResponse.decode(data[:20])
    with pytest.raises(ValueError, match="records of 7 bytes"):
        kafka_wire.FetchResponse.decode(data[:-1])


def test_only_brokers_that_know_the_newest_versions_are_spoken_to_so(monkeypatch):
    for request in (FetchRequest, ProduceRequest):
        monkeypatch.setattr(request, "_CLASSES", request._CLASSES)
    kafka_wire.pack_requests()
    kafka_wire.pack_requests()  # a process may have several workers
    fetch = FetchRequest(500, 1, 1 << 20, 0, [("events", [(0, 7, 1 << 10)])])
    produce = ProduceRequest(None, -1, 1_000, [("results", [(0, b"records")])])
    assert type(fetch.prepare({1: (4, 17)})) is kafka_wire.FetchPacked
    assert type(fetch.prepare({1: (4, 10)})) is FetchRequest_v10
    assert type(produce.prepare({0: (3, 13)})) is kafka_wire.ProducePacked
    assert type(produce.prepare({0: (3, 6)})).__name__ == "ProduceRequest_v6"
