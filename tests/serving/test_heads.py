"""A request whose head is known is answered as one that is parsed."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.serving import heads, protocol, server
from stream_infer.serving.direct import ROUTE
from stream_infer.serving.heads import Heads
from stream_infer.serving.pacing import Pace
from tests.serving.support import ThreadedServer, shop_services
from tests.serving.test_direct import GOOD, all_received, caller_of, comparable, request

TURN_S = 0.003
HEAD = b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"


@given(st.binary(max_size=80), st.integers(0, len(HEAD)))
def test_nothing_but_the_same_head_and_a_whole_body_is_known(noise: bytes, at: int) -> None:
    known = Heads[str]()
    known.learn(HEAD + b"abc", "target", 3)
    assert known.find(HEAD + b"xyz") == ("target", b"xyz")
    for data in (noise, HEAD[:at], HEAD[:at] + noise + HEAD[at:] + b"xyz", HEAD + noise):
        head, end, body = data.partition(b"\r\n\r\n")
        expected = ("target", body) if head + end == HEAD and len(body) == 3 else None
        assert known.find(data) == expected


def test_what_is_not_one_request_alone_is_not_learnt() -> None:
    known = Heads[str]()
    known.learn(b"", "target", 0)
    known.learn(HEAD + b"abc" + HEAD + b"abc", "target", 3)
    known.learn(b"abc", "target", 3)
    assert known.find(HEAD + b"abc") is None
    assert known.find(b"") is None


def test_heads_that_all_differ_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEADS_MAX", 10)
    known = Heads[int]()
    for number in range(95):
        known.learn(b"%d%b" % (number, HEAD), number, 0)
    assert [known.find(b"%d%b" % (number, HEAD)) for number in (89, 90, 94)] == [
        None,
        (90, b""),
        (94, b""),
    ]
    known.learn(b"x" * heads.HEAD_BYTES_MAX + HEAD, 1, 0)
    assert known.find(b"x" * heads.HEAD_BYTES_MAX + HEAD) is None


class Parsed:
    """Counts the pieces that go to the parser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        parse = protocol.HttpToolsProtocol.data_received

        def counted(connection: Any, data: bytes) -> None:
            self.count += 1
            parse(connection, data)

        monkeypatch.setattr(protocol.HttpToolsProtocol, "data_received", counted)


@pytest.mark.redis
async def test_a_head_is_parsed_once_and_answered_alike_ever_after(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Parsed(monkeypatch)
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    monkeypatch.setattr(services.served[unique].scorer, "_wall_us", lambda: 1_700_000_000_000_001)
    bad = GOOD.replace(b'"a"', b"  7")
    assert len(bad) == len(GOOD)
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as one, caller_of(running.port) as two:
            one.writer.write(request(unique, bad))
            refused = comparable(await one.answer())
            one.writer.write(request(unique, GOOD))
            scored = comparable(await one.answer())
            assert (refused[0], scored[0], parsed.count) == (422, 200, 1)
            for caller in (two, one, two):  # On any connection.
                caller.writer.write(request(unique, GOOD))
                assert comparable(await caller.answer()) == scored
                caller.writer.write(request(unique, bad))
                assert comparable(await caller.answer()) == refused
            assert parsed.count == 1


@pytest.mark.redis
async def test_known_heads_change_nothing_of_other_requests_on_the_connection(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    asked = request(unique, GOOD)
    health = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as caller:
            for pieces, answers in (
                ((asked,), 1),
                ((asked[:40], asked[40:]), 1),
                ((asked,), 1),
                ((asked + asked[:-5], asked[-5:]), 2),
                ((asked + asked, asked), 3),
                ((health,), 1),
                ((asked,), 1),
                ((b"\r\n", asked), 1),
                ((health + asked, asked), 3),
                ((asked + health, asked), 3),
            ):
                for piece in pieces:
                    caller.writer.write(piece)
                    await all_received(running)
                for _ in range(answers):
                    assert (await caller.answer())[0] == 200
            caller.writer.write(request(unique, GOOD, headers="Connection: close\r\n"))
            assert (await caller.answer())[1]["connection"] == "close"
            assert await caller.reader.read() == b""


@pytest.mark.redis
async def test_a_token_is_asked_for_though_a_head_is_known(redis_url: str, unique: str) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0, http_token="secret")
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as caller:
            for token, status in (("secret", 200), ("wrong!", 401), ("secret", 200)) * 2:
                asked = request(unique, GOOD, headers=f"Authorization: Bearer {token}\r\n")
                caller.writer.write(asked)
                assert (await caller.answer())[0] == status


@pytest.mark.redis
async def test_beyond_capacity_every_caller_is_refused_again_and_again_and_served_after(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    batcher = services.served[unique].batcher
    with ThreadedServer(services) as running:
        running.direct.pace = Pace(TURN_S, 4)
        async with AsyncExitStack() as stack:
            callers = [await stack.enter_async_context(caller_of(running.port)) for _ in range(30)]

            async def ask_all() -> list[tuple[int, str | None]]:
                for caller in callers:
                    caller.writer.write(request(unique, GOOD))
                answers = [await caller.answer() for caller in callers]
                return [(status, headers.get("retry-after")) for status, headers, _ in answers]

            assert await ask_all() == [(200, None)] * 30
            with monkeypatch.context() as full:
                full.setattr(batcher, "is_full", lambda size=1: True)
                for _ in range(3):
                    assert await ask_all() == [(503, "1")] * 30
                # One that leaves without its answer, while nobody listens to it.
                callers[0].writer.write(request(unique, GOOD))
                callers.pop(0).writer.close()
            assert await ask_all() == [(200, None)] * 29
    assert services.metrics.requests["POST", ROUTE, 503] >= 90


@pytest.mark.redis
async def test_an_idle_connection_is_closed_after_an_answer_on_the_short_way(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_TIMEOUT_S", 0.2)
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as caller:
            for _ in range(3):
                caller.writer.write(request(unique, GOOD))
                assert (await caller.answer())[0] == 200
            async with asyncio.timeout(20):
                assert await caller.reader.read() == b""
