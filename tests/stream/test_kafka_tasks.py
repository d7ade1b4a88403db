"""A task of aiokafka's that ends by an error ends the app, and says so; a closed one does not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber

from stream_infer.stream import ending, kafka_tasks
from stream_infer.stream.app import StreamApp
from stream_infer.stream.kafka_tasks import KafkaClientBroken, watch_consumer, watch_producer
from tests.servers.kafka import Kafka
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import (
    PARTITIONS,
    committed,
    echo_app,
    ends,
    eventually,
    produce,
    running,
    stream_settings,
)


def no_memory() -> KafkaError:
    error = KafkaError("Unexpected error")
    error.__cause__ = MemoryError()
    return error


class Client:
    """A consumer and a producer at once: tasks that end when told, as aiokafka's do."""

    def __init__(self) -> None:
        self._closed = False
        self.ends = {name: asyncio.Event() for name in ("fetching", "leaders", "sending")}
        self.errors: dict[str, Exception] = {}
        self.tasks = {name: asyncio.create_task(self._run(name)) for name in self.ends}
        self._fetcher = SimpleNamespace(_fetch_task=self.tasks["fetching"])
        self._client = self.client = SimpleNamespace(_sync_task=self.tasks["leaders"])
        self.order: list[str] = []
        self._sender = SimpleNamespace(_sender_task=self.tasks["sending"], _fail_all=self._fail_all)
        self.tasks["sending"].add_done_callback(self._fail_all)

    def _fail_all(self, task: asyncio.Task[None]) -> None:
        self.order.append("failed what it was given")

    async def _run(self, name: str) -> None:
        await self.ends[name].wait()
        raise self.errors[name]

    async def end(self, name: str, error: Exception) -> None:
        self.errors[name] = error
        self.ends[name].set()
        await asyncio.wait([self.tasks[name]])
        await asyncio.sleep(0)

    async def stop(self) -> None:
        self._closed = True
        for task in self.tasks.values():
            task.cancel()
        await asyncio.wait(self.tasks.values())
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("watch", "name", "error", "said"),
    [
        (watch_consumer, "fetching", no_memory(), "stopped fetching (MemoryError"),
        (watch_consumer, "leaders", RuntimeError("x"), "leaders (RuntimeError: x)"),
        (watch_producer, "leaders", RuntimeError("x"), "leaders (RuntimeError: x)"),
        (watch_producer, "sending", no_memory(), "stopped sending (MemoryError"),
    ],
)
async def test_a_task_that_ends_by_an_error_is_told_once_with_its_cause(
    watch: Any, name: str, error: Exception, said: str
) -> None:
    told: list[Exception] = []
    client = Client()
    watch(client, told.append)
    await client.end(name, error)
    await client.stop()
    (broken,) = told
    assert said in str(broken)
    assert "start the worker again" in str(broken)
    assert broken.__cause__ is error


@pytest.mark.parametrize("watch", [watch_consumer, watch_producer])
async def test_an_orderly_stop_says_nothing(watch: Any) -> None:
    told: list[Exception] = []
    client = Client()
    watch(client, told.append)
    client._closed = True
    await client.end("leaders", RuntimeError("while it was stopped"))
    await client.stop()
    assert told == []


async def test_want_of_memory_while_sending_is_told_before_anything_else_is_tried() -> None:
    client = Client()
    watch_producer(client, lambda _: client.order.append("told"))
    await client.end("sending", no_memory())
    assert client.order == ["told", "failed what it was given"]
    await client.stop()


async def test_sending_that_a_new_producer_takes_over_says_nothing() -> None:
    told: list[Exception] = []
    client = Client()
    watch_producer(client, told.append)
    await client.end("sending", OutOfOrderSequenceNumber())
    await client.stop()
    assert told == []


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("reset")])
async def test_want_of_memory_in_a_connection_is_heard_and_its_loss_is_not(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        AIOKafkaConnection, "_on_read_task_error", AIOKafkaConnection._on_read_task_error
    )
    kafka_tasks.hear_want_of_memory()
    heard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))

    def answered(connection: AIOKafkaConnection, answer: bytes) -> None:
        raise error

    monkeypatch.setattr(AIOKafkaConnection, "_handle_frame", answered)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        connection = AIOKafkaConnection(*server.sockets[0].getsockname())
        with pytest.raises(KafkaError):  # asks for versions, and is cut off
            await asyncio.wait_for(connection.connect(), 10)
    assert [context["exception"] for context in heard] == [error] * isinstance(error, MemoryError)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(4)
    writer.write(bytes((0, 0, 0, 4, 0, 0, 0, 1)))
    await reader.read()
    writer.close()


def break_fetching(app: StreamApp) -> None:
    def broken(assignment: object) -> Any:
        raise RuntimeError("broken")

    fetcher = app.consumer._thread._consumer._fetcher
    fetcher._get_actions_per_node = broken
    fetcher._notify(fetcher._wait_consume_future)


def break_consumers_leaders(app: StreamApp) -> None:
    break_leaders(app.consumer._thread._consumer._client)


def break_producers_leaders(app: StreamApp) -> None:
    outlet: Any = app._outlet
    break_leaders(outlet._producer._producer.client)


def break_leaders(client: Any) -> None:
    async def broken(*_: object) -> Any:
        raise RuntimeError("broken")

    client._metadata_update = broken
    client.force_metadata_update()


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (break_fetching, "stopped fetching (RuntimeError: broken)"),
        (break_consumers_leaders, "leaders (RuntimeError: broken)"),
        (break_producers_leaders, "leaders (RuntimeError: broken)"),
    ],
)
async def test_an_app_whose_kafka_client_has_broken_ends_and_says_why(
    kafka_server: Kafka, unique: str, break_it: Callable[[StreamApp], None], said: str
) -> None:
    async with working(kafka_server, unique) as app:

        def has_ended() -> bool:
            break_it(app)  # Again: an update of leaders that was under way goes well.
            return app.crash_reason is not None

        await eventually(has_ended)
    assert isinstance(app.crash_reason, KafkaClientBroken)
    assert said in str(app.crash_reason)


@pytest.mark.kafka
async def test_an_app_that_lacks_memory_while_it_fetches_ends_its_process(
    kafka_server: Kafka, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Exception] = []
    monkeypatch.setattr(ending, "end_process", ended.append)
    async with working(kafka_server, unique) as app:

        async def fetch(*_: object) -> bool:
            raise MemoryError("no room")

        fetcher = app.consumer._thread._consumer._fetcher
        fetcher._proc_fetch_request = fetch
        await eventually(lambda: bool(ended))
    assert {str(error) for error in ended} == {"no room"}


@pytest.mark.kafka
async def test_an_app_that_is_stopped_in_order_has_not_failed(
    kafka_server: Kafka, unique: str
) -> None:
    async with working(kafka_server, unique) as app:
        pass
    assert app.crash_reason is None


@asynccontextmanager
async def working(kafka: Kafka, unique: str) -> AsyncIterator[StreamApp]:
    """An app that has produced results, so that all of its clients are settled."""
    broker, source, output = kafka.bootstrap, f"{unique}.in", f"{unique}.out"
    kafka.create_topics({source: PARTITIONS, output: PARTITIONS})
    sent = produce(broker, source, map(str, range(200)))
    app = echo_app(stream_settings(broker), source, output, Echo(output), unique)
    async with running(app):
        await eventually(lambda: app.counters.produced == sent)
        await eventually(lambda: committed(broker, unique, source) == ends(broker, source))
        yield app
