"""Dead letters from the worker to the terminal, and back to the stream after a fix."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stream_infer import weighted_mean
from stream_infer.cli.letter_text import content, printable, readable
from stream_infer.core.engine import Engine
from stream_infer.loading import load_topology
from stream_infer.models.ensemble import ModelSet
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import load
from stream_infer.stream.log_reader import LogReader
from stream_infer.stream.runtime import Runtime
from stream_infer.stream.service import faust_app
from tests.cli.support import Ran, one_line, run, write_topology
from tests.laws.shop import Sum
from tests.servers.kafka import Kafka
from tests.stream.kafka_tools import eventually, ordered_producer, running

LIMIT = "is over the stream's limit"
HOSTILE = b'\x1b[31m{"type":\xe2\x80\xae'
LARGE = 3
TIME = 'time="at"'


def payment(payment_id: str, account: str = "a1") -> bytes:
    event = {"type": "payment", "payment_id": payment_id, "account": account}
    return json.dumps(event | {"at": "2024-01-01T00:00:00Z", "amount": 5.0}).encode()


class Shop:
    """A topology in a folder, its worker, and the program run there."""

    def __init__(self, folder: Path, name: str, kafka: Kafka, redis_url: str) -> None:
        self.folder, self.name, self.broker, self.redis = folder, name, kafka.bootstrap, redis_url
        self.declare(200)
        topology = self.topology()
        self.source, self.output = topology.stream.name, topology.output
        kafka.create_topics(dict.fromkeys([self.source, self.output, topology.dead_letters], 2))

    def declare(self, max_bytes: int) -> None:
        """Write the declaration, with what the stream takes."""
        changes = {TIME: f"{TIME}, max_bytes={max_bytes}"}
        self.path = write_topology(self.folder, self.name, **changes)

    def topology(self) -> Any:
        return load_topology(str(self.path))

    def send(self, *records: tuple[bytes, bytes]) -> None:
        producer = ordered_producer(self.broker)
        for key, value in records:
            producer.produce(self.source, value, key, headers=[("trace", b"7"), ("si-x", b"1")])
        producer.flush()

    async def dlq(self, *arguments: str) -> Ran:
        command, *others = arguments
        return await asyncio.to_thread(
            run,
            *("dlq", command, self.name, *others, "--broker", self.broker),
            cwd=self.folder,
        )

    async def held(self, topic: str) -> list[Any]:
        async with LogReader(self.broker) as log:
            return [record async for record in log.records(topic, await log.spans(topic))]

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[TopologyCounters]:
        """A worker in this process, with models that need no training."""
        topology, counters = self.topology(), TopologyCounters()
        names = ("boosted_trees", "mlp", "linear")
        models, versions = ModelSet({n: Sum() for n in names}), dict.fromkeys(names, "1")
        graph = weighted_mean(dict.fromkeys(names, 1.0))
        runtime = Runtime(topology, Engine(topology), None, models, graph, versions)
        settings = load(broker=self.broker, redis=self.redis, partitions=2)
        async with running(faust_app(topology, settings, runtime=runtime, ends=counters)):
            yield counters


@pytest.fixture
def shop(tmp_path: Path, unique: str, kafka_server: Kafka, redis_url: str) -> Shop:
    return Shop(tmp_path, unique, kafka_server, redis_url)


@pytest.mark.kafka
@pytest.mark.redis
async def test_poison_is_listed_and_goes_through_once_after_a_fix(shop: Shop) -> None:
    large = [f"{n}" + "x" * 300 for n in range(LARGE)]
    shop.send(
        *((f"a{n}".encode(), payment(text, f"a{n}")) for n, text in enumerate(large)),
        *((b"a1", payment(f"good{n}")) for n in range(4)),
        (b"a2", HOSTILE),
        (b"a2", b"{}"),
    )
    async with shop.worker() as counters:
        await eventually(lambda: counters.ends.dead_letters == LARGE + 2)
        await eventually(lambda: counters.ends.predictions == 4)

    listed = (await shop.dlq("ls", "--json")).json
    assert listed["selected"] == LARGE + 2
    assert {letter["stage"] for letter in listed["letters"]} == {"decode"}
    assert {letter["source"]["topic"] for letter in listed["letters"]} == {shop.source}
    assert sum(cause["letters"] for cause in listed["by_reason"] if LIMIT in cause["reason"]) == 3
    table = await shop.dlq("ls", "--reason", LIMIT, "--since", "1h")
    assert table.code == 0, table.err
    assert f"{LARGE} letters" in table.out
    assert (await shop.dlq("ls", "--until", "1h", "--json")).json["selected"] == 0

    (hostile,) = [one["letter"] for one in listed["letters"] if one["bytes"] == len(HOSTILE) + 2]
    shown = await shop.dlq("show", hostile)
    assert r"\x1b[31m" in shown.out
    assert r"\u202e" in shown.out
    assert all(line.isprintable() for line in shown.out.splitlines())
    assert (await shop.dlq("show", hostile, "--json")).json["body"] == HOSTILE.decode()

    before = await shop.held(shop.source)
    dry = await shop.dlq("replay", "--reason", LIMIT, "--dry-run", "--json")
    assert dry.json["replayed"] == LARGE
    assert len(await shop.held(shop.source)) == len(before)

    shop.declare(1_000)
    async with shop.worker() as counters:
        done = await shop.dlq("replay", "--reason", LIMIT, "--json")
        assert done.code == 0, done.err
        assert done.json["replayed"] == LARGE
        await eventually(lambda: counters.ends.predictions == LARGE)
        again = await shop.dlq("replay", "--reason", LIMIT, "--json")
        assert (again.json["replayed"], again.json["replayed_before"]) == (0, LARGE)
    after = await shop.held(shop.source)
    assert len(after) == len(before) + LARGE
    kept = {(record.partition, record.key, record.value) for record in before}
    assert {(record.partition, record.key, record.value) for record in after} == kept
    keys = [json.loads(record.value)["key"] for record in await shop.held(shop.output)]
    wanted = [f"good{n}" for n in range(4)] + large
    assert sorted(keys) == sorted(wanted)
    assert sum("si-x" in dict(r.headers) for r in after) == len(before)
    listed = (await shop.dlq("ls", "--json")).json
    assert listed["selected"] == LARGE + 2
    assert sum(letter["replayed"] for letter in listed["letters"]) == LARGE


@pytest.mark.kafka
async def test_what_is_no_letter_is_said_in_one_line(shop: Shop) -> None:
    for place, code in (("0:5", 1), ("9:0", 1), ("x", 2), ("1:-1", 2)):
        ran = await shop.dlq("show", place)
        assert ran.code == code, ran.err
        if code == 1:
            assert place in one_line(ran.err)
    assert (await shop.dlq("ls", "--since", "yesterday")).code == 2
    empty = await shop.dlq("ls", "--json")
    assert (empty.json["letters"], empty.json["selected"]) == ([], 0)


@pytest.mark.parametrize("text", ["\x1b]0;x\x07", "a\r\nb", "\u202eabc", "\x9b31m", "\x7f"])
def test_nothing_shown_can_steer_a_terminal(text: str) -> None:
    assert not text.isprintable()
    assert printable(text).isprintable()
    assert readable(text.encode()) == printable(text)


def test_a_body_that_is_no_text_is_shown_in_hex() -> None:
    assert readable(b"\xff\x00") == "(hex) ff00"
    assert content("body", b"\xff\x00") == {"body_hex": "ff00"}
    assert (readable(None), readable(b"")) == ("none", "")
