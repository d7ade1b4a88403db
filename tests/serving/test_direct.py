"""The short way of a request differs from the application's in nothing but its cost."""

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from stream_infer.serving import direct, server
from stream_infer.serving.bodies import Body
from tests.serving.support import ThreadedServer, event, shop_services
from tests.serving.test_predict import BAD_EVENTS

pytestmark = pytest.mark.redis

GOOD = msgspec.json.encode(event())
BODIES = [
    GOOD,
    msgspec.json.encode([event(), event(shop="b")]),
    *(body for body, *_ in BAD_EVENTS if 0 < len(body) < 4_000),
]


def request(name: str, body: bytes, *, headers: str = "") -> bytes:
    head = f"POST /v1/topologies/{name}/predict HTTP/1.1\r\nHost: localhost\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Caller:
    """One connection, read answer by answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in fields}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body


@asynccontextmanager
async def caller_of(port: int) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()


def comparable(answer: tuple[int, dict[str, str], bytes]) -> Any:
    status, headers, body = answer
    said = json.loads(body)
    for prediction in said.get("predictions", [said]):
        prediction.pop("prediction_id", None)
        prediction.pop("predicted_at", None)
    return status, sorted(set(headers.items()) - {("date", headers["date"])}), said


class Ways:
    """Counts the requests that go the short way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.direct = 0
        begin = direct.DirectCycle.begin

        def counted(*args: Any) -> None:
            self.direct += 1
            begin(*args)

        monkeypatch.setattr(direct.DirectCycle, "begin", counted)


async def test_a_request_in_one_piece_is_answered_as_one_in_parts(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = Ways(monkeypatch)
    services, _, _ = shop_services(unique, redis_url, http_port=0, http_events_max=2)
    bodies = [*BODIES, b"[1,2,3]"]
    # Predictions that were made at other moments have other lengths.
    monkeypatch.setattr(services.served[unique].scorer, "_wall_us", lambda: 1_700_000_000_000_001)
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as whole, caller_of(running.port) as parts:
            for number, body in enumerate(bodies):
                asked = request(unique, body)
                whole.writer.write(asked)
                first = comparable(await whole.answer())
                assert ways.direct == number + 1
                parts.writer.write(asked[:-1])
                await all_received(running)
                parts.writer.write(asked[-1:])
                assert comparable(await parts.answer()) == first, body[:80]
                assert ways.direct == number + 1
    assert services.metrics.requests["POST", direct.ROUTE, 200] == 4


async def all_received(running: ThreadedServer) -> None:
    """Let the server's loop go round: what was sent before is read by then."""
    for _ in range(20):
        await asyncio.to_thread(running.call, lambda: None)
        await asyncio.sleep(0.001)


async def test_what_the_guard_refuses_is_refused_on_the_short_way(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0, http_token="secret")
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as caller:
            for headers, status in (
                ("", 401),
                ("Authorization: Bearer wrong\r\n", 401),
                ("Authorization: Bearer secret\r\n", 200),
                ("Authorization: Bearer secret\r\nOrigin: http://evil.example\r\n", 403),
            ):
                caller.writer.write(request(unique, GOOD, headers=headers))
                assert (await caller.answer())[0] == status


async def test_requests_sent_at_once_are_answered_in_their_order(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as caller:
            bodies = [
                msgspec.json.encode(event(sale_id=f"s{i}", shop=f"shop-{i}")) for i in range(6)
            ]
            health = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
            asked = [request(unique, body) for body in bodies]
            caller.writer.write(b"".join([*asked[:3], health, *asked[3:]]))
            answers = [json.loads((await caller.answer())[2]) for _ in range(7)]
    assert answers.pop(3) == {"status": "ok"}
    assert [answer["key"] for answer in answers] == [f"s{i}" for i in range(6)]


async def test_a_caller_that_says_close_is_closed_after_its_answer(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as caller:
            caller.writer.write(request(unique, GOOD, headers="Connection: close\r\n"))
            status, headers, _ = await caller.answer()
            assert (status, headers["connection"]) == (200, "close")
            async with asyncio.timeout(20):
                assert await caller.reader.read() == b""


async def test_beyond_its_capacity_the_server_refuses_at_once_and_answers_the_others(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    served = services.served[unique]
    read, go = served.scorer.read, asyncio.Event()

    async def held_up(*args: Any, **options: Any) -> Any:
        await go.wait()
        return await read(*args, **options)

    monkeypatch.setattr(served.scorer, "read", held_up)
    with ThreadedServer(services) as running:
        filled, answered = itertools.count(), threading.Semaphore(0)

        def fill() -> None:
            while not served.batcher.is_full():
                next(filled)
                served.batcher.offer(Body([GOOD] * 1_000, True), lambda _: answered.release())

        async with caller_of(running.port) as early, caller_of(running.port) as late:
            early.writer.write(request(unique, GOOD))
            await all_received(running)
            for _ in range(2):  # First the slot that is free, then what waits.
                await asyncio.to_thread(running.call, fill)
                await all_received(running)
            ways = Ways(monkeypatch)
            head = request(unique, GOOD).removesuffix(GOOD)
            for _ in range(3):
                # Refused before the body has come, which is passed over.
                late.writer.write(head)
                status, headers, body = await late.answer()
                assert (status, headers["retry-after"]) == (503, "1")
                assert json.loads(body)["error"]["what"] == "too many events wait to be scored"
                late.writer.write(GOOD)
            assert (services.metrics.shed, ways.direct) == (3, 0)
            await asyncio.to_thread(running.call, go.set)
            assert (await early.answer())[0] == 200
            for _ in range(next(filled)):
                assert await asyncio.to_thread(answered.acquire, timeout=20)
            late.writer.write(request(unique, GOOD))
            assert (await late.answer())[0] == 200
    assert services.metrics.requests["POST", direct.ROUTE, 503] == 3


async def test_connections_beyond_the_bound_are_refused_and_the_others_served(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 1)
    services, _, _ = shop_services(unique, redis_url, http_port=0, sse_clients_max=1)
    with ThreadedServer(services) as running:
        async with caller_of(running.port) as one, caller_of(running.port) as two:
            for caller in (one, two):
                caller.writer.write(request(unique, GOOD))
                assert (await caller.answer())[0] == 200
            async with caller_of(running.port) as three:
                three.writer.write(request(unique, GOOD))
                status, headers, _ = await three.answer()
                assert (status, headers["connection"]) == (503, "close")
            one.writer.write(request(unique, GOOD))
            assert (await one.answer())[0] == 200
    assert services.metrics.shed == 1
