"""A model that hangs, raises or gives no numbers: the others' scores arrive, and it comes back."""

import dataclasses
import logging
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from redis.asyncio import Redis

from stream_infer.core.topology import Topology
from stream_infer.models.calling import TimedCaller
from stream_infer.models.ensemble import ModelSet, Scorer
from stream_infer.models.sessions import Rows, Scores
from stream_infer.monitoring.counters import TopologyCounters
from stream_infer.settings import Settings
from stream_infer.store.state import StateStore
from stream_infer.stream.failures import FailureLog
from stream_infer.stream.processing import TP, one_by_one
from stream_infer.stream.processor import TopologyProcessor
from tests.laws.shop import Blocks, LogMaker, Record, as_records, shop_runtime, shop_topology

pytestmark = pytest.mark.redis

LIMIT_S = 0.5
PER_BATCH = 10


class Raises:
    def run(self, vectors: Rows) -> Scores:
        raise ValueError("no such thing")


class GivesNan:
    def run(self, vectors: Rows) -> Scores:
        return np.full(len(vectors), np.nan)


class Worker:
    """A processor whose model `first` is another one."""

    def __init__(self, redis: Redis, topology: Topology, first: Scorer) -> None:
        runtime = shop_runtime(topology)
        models = ModelSet({**runtime.models.models, "first": first}, TimedCaller(LIMIT_S))
        runtime = dataclasses.replace(runtime, models=models)
        self.topology = topology
        self.counters = TopologyCounters()
        self.tp = TP(topology.stream.name, 0)
        self.processor = TopologyProcessor(
            runtime,
            redis,
            StateStore(redis, topology.name, runtime.engine.schema, 1),
            Settings(),
            self.counters,
        )

    async def start(self) -> None:
        await self.processor.assign([self.tp], {self.tp: None})

    async def predictions(self, records: list[Record]) -> list[dict[str, Any]]:
        outcome = await self.processor.process({self.tp: records})
        self.processor.acknowledged(outcome.positions)
        await self.processor.store()
        return [
            msgspec.json.decode(record.value)
            for record in one_by_one(outcome.outgoing)
            if record.topic == self.topology.output and record.value is not None
        ]


@pytest.fixture
def hanging() -> Iterator[Blocks]:
    """A model that hangs, released at the end whatever happens."""
    model = Blocks()
    yield model
    model.released.set()


def batches(topology: Topology, n: int = 2_000) -> Iterator[list[Record]]:
    records = as_records(topology.stream.name, 0, LogMaker(Random(1)).values(n))
    return (records[at : at + PER_BATCH] for at in range(0, n, PER_BATCH))


def assert_only_sum_scored(predictions: list[dict[str, Any]]) -> None:
    assert predictions
    for prediction in predictions:
        assert prediction["scores"]["first"] is None
        assert prediction["score"] == prediction["scores"]["sum"] is not None
        assert "model:first" in prediction["degraded"]
        assert "model:sum" not in prediction["degraded"]


@pytest.mark.parametrize(("model", "reason"), [(Raises(), "error"), (GivesNan(), "nan")])
async def test_a_model_that_fails_leaves_the_others_predicting(
    redis: Redis, unique: str, model: Scorer, reason: str
) -> None:
    worker = Worker(redis, shop_topology(unique), model)
    await worker.start()
    taken = batches(worker.topology)
    for _ in range(3):
        assert_only_sum_scored(await worker.predictions(next(taken)))
    assert worker.counters.model_failures == {("first", reason): 3}
    assert worker.counters.ends.conserved


async def test_a_model_that_hangs_holds_up_one_batch_and_takes_part_again_when_it_returns(
    redis: Redis, unique: str, hanging: Blocks
) -> None:
    worker = Worker(redis, shop_topology(unique), hanging)
    await worker.start()
    taken = batches(worker.topology)
    for _ in range(20):
        assert_only_sum_scored(await worker.predictions(next(taken)))
    assert hanging.calls == 1
    assert worker.counters.model_failures == {("first", "timeout"): 20}
    assert worker.counters.degraded["model:first"] == worker.counters.ends.predictions
    hanging.released.set()
    for batch in taken:
        predictions = await worker.predictions(batch)
        if predictions and "model:first" not in predictions[0]["degraded"]:
            break
    assert all(p["scores"]["first"] is not None for p in predictions)
    failures = worker.counters.model_failures.copy()
    assert all("model:first" not in p["degraded"] for p in await worker.predictions(next(taken)))
    assert worker.counters.model_failures == failures
    assert worker.counters.ends.conserved


def test_failures_are_logged_at_once_and_then_not_too_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    log = FailureLog(60.0, lambda: now_s)
    failures, details = {"a": "model:a:timeout", "b": "model:b:nan"}, {"a": "TimeoutError: late"}
    with caplog.at_level(logging.WARNING, "stream_infer.stream"):
        for now_s in (0.0, 1.0, 59.0, 60.0):  # noqa: B007 - the clock reads it
            log.note("t", failures, details)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "topology 't' goes on without model:a:timeout: TimeoutError: late",
        "topology 't' goes on without model:b:nan: not a finite number for some rows",
        "topology 't' goes on without model:a:timeout: TimeoutError: late"
        " (2 more since the last such line)",
        "topology 't' goes on without model:b:nan: not a finite number for some rows"
        " (2 more since the last such line)",
    ]
