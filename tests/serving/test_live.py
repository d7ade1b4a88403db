"""Live results: order, bounds, summaries, and the end."""

import asyncio
import json
from random import Random
from typing import Any

import httpx
import pytest

from stream_infer.serving.errors import OverloadedError
from stream_infer.serving.live import OUTCOME, PREDICTION, Follower, Hub
from tests.browser.feeding import outcome, prediction
from tests.serving.support import ThreadedServer, shop_services


def hub(**options: Any) -> Hub:
    return Hub(("t", "u"), **{"clients_max": 2, "queue_max": 3, **options})


async def read(follower: Follower) -> list[tuple[str, Any]]:
    """Return what waits for a follower."""
    frames = follower.frames()
    text = (await anext(frames)).decode()
    await frames.aclose()  # type: ignore[attr-defined]
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_slow_follower_loses_the_oldest_and_is_told_how_many() -> None:
    tested = hub()
    follower, random = tested.join("t"), Random(1)
    for number in range(10):
        tested.publish("t", PREDICTION, prediction("t", number, random))
    found = await read(follower)
    assert [name for name, _ in found] == ["lost", "history", *["prediction"] * 3]
    assert found[0][1] == {"lost": 7}
    assert [data["prediction_id"].rsplit(":", 1)[1] for _, data in found[2:]] == ["7", "8", "9"]
    tested.publish("t", PREDICTION, prediction("t", 10, random))
    assert [name for name, _ in await read(follower)] == ["prediction"]


async def test_summaries_are_exact_whatever_a_follower_loses_or_skips() -> None:
    tested = hub(now_s=lambda: 7.0)
    slow, few = tested.join("t"), tested.join("t", per_second_max=2)
    random = Random(2)
    predictions = [prediction("t", number, random) for number in range(50)]
    outcomes = [outcome("t", number, random) for number in range(20)]
    for value in predictions:
        tested.publish("t", PREDICTION, value)
    for value in outcomes:
        tested.publish("t", OUTCOME, value)
    tested.tick()
    errors = [json.loads(value)["error"] for value in outcomes]
    for follower in (slow, few):
        found = dict(await read(follower))["summary"]
        assert (found["predictions"], found["outcomes"], found["at_s"]) == (50, 20, 7.0)
        assert found["error_squares"] == pytest.approx(sum(error**2 for error in errors))
        assert found["latency_p50_ms"] <= found["latency_p99_ms"]
    assert few.lost == 0
    late = tested.join("t") if tested.clients < 2 else None
    assert late is None


async def test_followers_of_another_topology_see_nothing() -> None:
    tested = hub()
    follower = tested.join("u")
    tested.publish("t", PREDICTION, prediction("t", 1, Random(1)))
    assert await read(follower) == [("history", [])]


async def test_what_is_no_result_is_left_out_and_cannot_break_the_stream() -> None:
    tested = hub()
    follower = tested.join("t")
    good = prediction("t", 1, Random(1))
    for value in (b"", b"{", b"[]", b"\xff", b'{"prediction_id": 3}'):
        tested.publish("t", PREDICTION, value)
    tested.publish("t", PREDICTION, good.replace(b",", b",\n\nevent: forged\n", 1))
    tested.publish("t", PREDICTION, good.replace(b",", b",\n\n", 1))
    found = await read(follower)
    assert [name for name, _ in found] == ["history", "prediction"]
    assert found[1][1] == json.loads(good)


async def test_so_many_follow_and_no_more() -> None:
    tested = hub()
    first, _ = tested.join("t"), tested.join("t")
    with pytest.raises(OverloadedError):
        tested.join("t")
    tested.leave(first)
    tested.join("t")


@pytest.mark.redis
async def test_a_stream_is_followed_over_http_until_the_server_stops(
    redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0, sse_clients_max=1)
    server = ThreadedServer(services)
    path = f"/v1/topologies/{unique}/predictions"
    events: list[str] = []
    with server:
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=20) as client,
            client.stream("GET", path) as stream,
        ):
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: history"
            assert (await client.get(path)).status_code == 503
            server.call(services.hub.publish, unique, PREDICTION, prediction(unique, 1, Random(1)))
            async for line in lines:
                if line.startswith("event: "):
                    events.append(line)
                if line == "event: prediction":
                    stopping = asyncio.ensure_future(asyncio.to_thread(server.stop))
            await stopping
    assert events[0] == "event: prediction"
    assert events[-1] == "event: goodbye"
    assert services.hub.clients == 0


@pytest.mark.redis
async def test_a_follower_that_leaves_gives_its_place_back(redis_url: str, unique: str) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0, sse_clients_max=1)
    path = f"/v1/topologies/{unique}/predictions"
    with ThreadedServer(services) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            for _ in range(3):
                async with asyncio.timeout(10):
                    while True:
                        async with client.stream("GET", path) as stream:
                            if stream.status_code == 200:
                                assert await anext(stream.aiter_lines()) == "event: history"
                                break


async def test_who_follows_a_server_that_stops_is_told_so_and_not_refused() -> None:
    hub = Hub(("shop",), clients_max=1, queue_max=1)
    hub.close()
    said = [frames async for frames in hub.join("shop").frames()]
    assert [b"goodbye" in frames for frames in said] == [True]
    assert hub.clients == 0
