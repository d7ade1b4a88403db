"""The server as a program, and its Kafka side against a real broker."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream_infer.core.engine import Engine
from stream_infer.models.repository import ModelRepository
from stream_infer.processes import free_port
from stream_infer.serving import protocol, server
from stream_infer.serving.following import ResultReader, result_topics
from stream_infer.serving.publishing import Publisher
from stream_infer.settings import Settings
from tests.browser.feeding import prediction
from tests.laws.shop import shop_topology
from tests.models.tiny import linear, save
from tests.serving.support import ThreadedServer, client_of, event, shop_services

ROOT = Path(__file__).parents[2]
TOPOLOGY = "from tests.laws.shop import shop_topology\ntopology = shop_topology('shop')\n"


def stored_models(root: Path) -> None:
    """Store linear models of the shop topology."""
    names = Engine(shop_topology("shop")).vector_names
    repository = ModelRepository(root)
    for model in ("sum", "first"):
        proto = linear([1.0] * len(names), metadata=names)
        save(repository, proto, model=model, topology="shop", features=names)


def test_the_program_stays_up_without_redis_and_kafka_and_stops_cleanly(tmp_path: Path) -> None:
    stored_models(tmp_path / "models")
    (tmp_path / "shop.py").write_text(TOPOLOGY)
    nowhere = free_port()
    code = (
        "import sys; from stream_infer.serving.server import serve; "
        "from stream_infer.settings import load; sys.exit(serve([sys.argv[1]], load()))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "STREAM_INFER_REDIS": f"redis://127.0.0.1:{nowhere}/0",
        "STREAM_INFER_BROKER": f"127.0.0.1:{nowhere}",
        "STREAM_INFER_MODELS_DIR": str(tmp_path / "models"),
        "STREAM_INFER_HTTP_PORT": "0",
        "STREAM_INFER_REQUEST_TIMEOUT_S": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "shop.py")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("stream-infer serves shop at http://127.0.0.1:"), process.stderr
        url = line.split()[-1]
        with httpx.Client(base_url=url, timeout=20) as client:
            assert client.get("/health/live").status_code == 200
            ready = client.get("/health/ready")
            assert ready.status_code == 503
            assert ready.json()["checks"]["redis"]
            assert ready.json()["checks"]["follower"]
            assert ready.json()["checks"]["models"] is None
            answer = client.post("/v1/topologies/shop/predict", json=event())
            assert answer.status_code == 503
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert output == ""
    assert "Traceback" not in errors


@pytest.mark.redis
async def test_requests_in_flight_finish_when_the_server_stops(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    scorer = services.served[unique].scorer
    begun, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    read = scorer.read

    async def slow(*args: Any, **options: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
        return await read(*args, **options)

    monkeypatch.setattr(scorer, "read", slow)
    with ThreadedServer(services) as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            path = f"/v1/topologies/{unique}/predict"
            asked = asyncio.create_task(client.post(path, json=event()))
            await begun.wait()
            stopping = asyncio.create_task(asyncio.to_thread(running.stop))
            await asyncio.sleep(0)
            go.set()
            assert (await asked).status_code == 200
            await stopping


@pytest.mark.redis
async def test_an_idle_connection_is_answered_once_more_when_the_server_stops(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FAREWELL_S", 20.0)
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    with ThreadedServer(services) as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            first = await client.get("/health/live")
            assert "connection" not in first.headers
            stopping = asyncio.create_task(asyncio.to_thread(running.stop))
            async with asyncio.timeout(20):
                await refuses(running.port)
            last = await client.get("/health/live")
            assert (last.status_code, last.headers["connection"]) == (200, "close")
            await stopping


async def refuses(port: int) -> None:
    """Return once nobody listens on a port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        writer.close()


@pytest.mark.redis
async def test_a_connection_that_sends_no_request_is_closed(
    redis_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADERS_TIMEOUT_S", 0.2)
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    with ThreadedServer(services) as running:
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(sent)
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


def test_a_taken_port_is_told_in_one_line() -> None:
    from stream_infer.core.errors import SettingsError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
            server.bind(Settings(http_port=port))


def test_open_files_are_allowed_as_far_as_the_system_lets() -> None:
    code = (
        "import resource, sys; from stream_infer.serving.server import allow_open_files; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)); allow_open_files(200); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)); allow_open_files(150); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)); allow_open_files(400); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:3] == ["(200, 300)", "(200, 300)", "(300, 300)"]
    assert "only 300 files may be open here" in done.stderr


@pytest.mark.kafka
async def test_results_on_the_topics_reach_followers_and_earlier_ones_do_not(
    kafka_server: Any, redis_url: str, unique: str
) -> None:
    topology = shop_topology(unique)
    topics = result_topics([topology])
    kafka_server.create_topics(dict.fromkeys(topics, 2))
    services, _, _ = shop_services(unique, redis_url, broker=kafka_server.bootstrap)
    services.reader = ResultReader(topics, services.settings, services.hub)
    random = Random(1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_server.bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(topology.output, prediction(unique, 1, random))
        async with client_of(services):
            follower = services.hub.join(unique)
            frames, seen = follower.frames(), ""
            async with asyncio.timeout(30):
                while "event: prediction" not in seen:
                    await producer.send_and_wait(topology.output, prediction(unique, 2, random))
                    seen += (await anext(frames)).decode()
            services.hub.leave(follower)
            assert services.reader.problem is None
        assert f"{unique}:flights:2:2" in seen
        assert f"{unique}:flights:1:1" not in seen
    finally:
        await producer.stop()


@pytest.mark.kafka
async def test_published_events_lie_where_the_answer_says(
    kafka_server: Any, redis_url: str, unique: str
) -> None:
    stream = f"{unique}.sales"
    kafka_server.create_topics({stream: 3})
    services, _, _ = shop_services(unique, redis_url, broker=kafka_server.bootstrap)
    services.publisher = Publisher(services.settings)
    events = [event(sale_id=f"s{i}", shop=f"shop-{i}") for i in range(20)]
    async with client_of(services) as client:
        answer = await client.post(f"/v1/streams/{stream}/events", json=events)
    assert answer.status_code == 200, answer.text
    consumer = AIOKafkaConsumer(
        stream, bootstrap_servers=kafka_server.bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: dict[tuple[int, int], Any] = {}
    try:
        async with asyncio.timeout(30):
            while len(found) < len(events):
                record = await consumer.getone()
                found[record.partition, record.offset] = record
    finally:
        await consumer.stop()
    scorer = services.served[unique].scorer
    scorer.partitions = 3
    batch = scorer.decode([msgspec.json.encode(one) for one in events])
    expected = scorer._partitions_of(batch)
    for place, sent, partition in zip(answer.json()["published"], events, expected, strict=True):
        record = found[place["partition"], place["offset"]]
        assert json.loads(record.value) == sent
        assert record.key == sent["shop"].encode()
        assert place["partition"] == partition
