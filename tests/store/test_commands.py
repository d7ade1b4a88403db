"""One connection for many callers: each gets its own replies, and a broken one is replaced."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream_infer.processes import free_port
from stream_infer.store.commands import Commands
from stream_infer.store.connection import connect
from tests.faults.proxy import Proxy
from tests.faults.servers import port_of

pytestmark = pytest.mark.redis


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy.started(port_of(redis_url)) as proxy:
        yield proxy


@pytest.fixture
async def redis(redis_url: str, proxy: Proxy) -> AsyncIterator[Redis]:
    client = connect(f"redis://127.0.0.1:{proxy.port}/{redis_url.rsplit('/', 1)[1]}", timeout_s=5)
    yield client
    await client.aclose()


@pytest.fixture
async def commands(redis: Redis) -> AsyncIterator[Commands]:
    made = Commands(redis, timeout_s=5)
    yield made
    made.close()


async def test_each_caller_gets_the_replies_to_its_commands_in_their_order(
    redis: Redis, commands: Commands, unique: str
) -> None:
    await redis.mset({f"{unique}:{number}": f"value {number} é" * 500 for number in range(50)})

    async def ask(number: int) -> None:
        key = f"{unique}:{number}"
        expected = f"value {number} é".encode() * 500
        replies = await commands.run([("GET", key), ("MGET", key, b"nothing"), ("EXISTS", key)])
        assert replies == [expected, [expected, None], 1]

    await asyncio.gather(*(ask(number) for number in range(50)))
    assert await commands.run([]) == []


async def test_all_callers_share_one_connection(proxy: Proxy, commands: Commands) -> None:
    await asyncio.gather(*(commands.run([("PING",)]) for _ in range(20)))
    assert proxy.connections == 1


async def test_a_refused_command_fails_for_its_caller_only(
    redis: Redis, commands: Commands, unique: str
) -> None:
    await redis.set(unique, "text")
    refused, fine = await asyncio.gather(
        commands.run([("GET", unique), ("HGET", unique, "field")]),
        commands.run([("GET", unique)]),
        return_exceptions=True,
    )
    assert isinstance(refused, ResponseError)
    assert fine == [b"text"]


async def test_an_attempt_returns_refusals_in_their_place(commands: Commands, unique: str) -> None:
    call = ("EVALSHA", "0" * 40, 1, unique)
    await commands.run([("SET", unique, "text")])
    before, unknown, wrong, after = await commands.attempt(
        [("GET", unique), call, ("HGET", unique, "field"), ("EXISTS", unique)]
    )
    assert (before, after) == (b"text", 1)
    assert isinstance(unknown, NoScriptError)
    assert isinstance(wrong, ResponseError)


async def test_an_attempt_whose_answer_is_lost_is_not_repeated(
    redis: Redis, proxy: Proxy, commands: Commands, unique: str
) -> None:
    assert await commands.attempt([("INCR", unique)]) == [1]
    with proxy.silent():
        asked = asyncio.create_task(commands.attempt([("INCR", unique)]))
        await asyncio.sleep(0)
        proxy.reset()
        with pytest.raises(RedisConnectionError):
            await asked
    assert int(await redis.get(unique)) <= 2


async def test_a_sole_caller_that_gives_up_takes_the_connection_with_it(
    redis: Redis, proxy: Proxy
) -> None:
    commands = Commands(redis, timeout_s=60, shared=False)
    assert await commands.run([("PING",)]) == [b"PONG"]
    with proxy.silent():
        gone = asyncio.create_task(commands.run([("ECHO", "a")]))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    assert await commands.run([("ECHO", "b")]) == [b"b"]
    assert proxy.connections == 2


async def test_the_connection_is_closed_with_its_client(redis_url: str, unique: str) -> None:
    async with connect(redis_url, timeout_s=5) as client, connect(redis_url, timeout_s=5) as other:
        commands = Commands(client, timeout_s=60)
        await commands.run([("CLIENT", "SETNAME", unique)])
        asked = asyncio.create_task(commands.attempt([("BLPOP", unique, "60")]))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(RedisConnectionError):
            await asked
        async with asyncio.timeout(20):
            while any(  # noqa: ASYNC110 (nobody sets an event for it)
                one["name"] == unique for one in await other.client_list()
            ):
                await asyncio.sleep(0)


async def test_a_connection_that_ends_while_the_pool_looks_at_it_is_not_taken_over(
    proxy: Proxy, redis: Redis, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = redis.connection_pool
    take = pool.get_connection

    async def ended() -> Any:
        taken: Any = await take()
        taken._reader.feed_eof()
        return taken

    monkeypatch.setattr(pool, "get_connection", ended)
    assert await commands.run([("PING",)]) == [b"PONG"]
    assert proxy.connections == 2


async def test_a_broken_connection_is_replaced_also_under_a_question(
    proxy: Proxy, commands: Commands
) -> None:
    assert await commands.run([("PING",)]) == [b"PONG"]
    proxy.reset()
    assert await commands.run([("PING",)]) == [b"PONG"]
    with proxy.silent():
        asked = [asyncio.create_task(commands.run([("ECHO", str(n))])) for n in range(3)]
        await asyncio.sleep(0)
        proxy.reset()
    assert await asyncio.gather(*asked) == [[b"0"], [b"1"], [b"2"]]


async def test_a_caller_that_leaves_costs_the_others_nothing(
    proxy: Proxy, commands: Commands
) -> None:
    assert await commands.run([("PING",)]) == [b"PONG"]
    with proxy.silent():
        gone, stays = (asyncio.create_task(commands.run([("ECHO", text)])) for text in "ab")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
    assert await stays == [b"b"]
    assert proxy.connections == 1


async def test_a_server_that_says_nothing_is_an_error_in_time_and_asked_anew_later(
    redis: Redis, proxy: Proxy
) -> None:
    commands = Commands(redis, timeout_s=0.2)
    assert await commands.run([("PING",)]) == [b"PONG"]
    with proxy.silent():
        async with asyncio.timeout(20):
            with pytest.raises(RedisTimeoutError):
                await commands.run([("PING",)])
    assert await commands.run([("PING",)]) == [b"PONG"]
    commands.close()


async def test_a_server_that_takes_nothing_is_an_error_in_time(redis: Redis, proxy: Proxy) -> None:
    commands = Commands(redis, timeout_s=0.2, shared=False)
    assert await commands.attempt([("PING",)]) == [b"PONG"]
    with proxy.silent():
        async with asyncio.timeout(20):
            with pytest.raises(RedisTimeoutError):
                await commands.attempt([("SET", "key", b"x" * (32 << 20))])
    assert await commands.attempt([("PING",)]) == [b"PONG"]


async def test_a_server_that_is_not_there_is_an_error() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}/0", timeout_s=1)
    with pytest.raises(RedisConnectionError):
        await Commands(client, timeout_s=1).run([("PING",)])
    await client.aclose()
