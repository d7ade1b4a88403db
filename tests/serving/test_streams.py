"""A topology of several streams, as it is described, published to, and fed from files."""

from pathlib import Path

import numpy as np
import pytest
import typer
from redis.asyncio import Redis

from stream_infer.cli.produce import stream_of
from stream_infer.cli.train import files_of
from stream_infer.core.errors import DeclarationError
from stream_infer.serving.asyncapi import document, schemas
from stream_infer.serving.scoring import Scorer
from tests.laws.shop import shop_runtime
from tests.laws.test_streams import Worker, part
from tests.laws.weather_shop import logs, merged, weather_topology


def test_the_document_has_a_channel_for_each_topic_that_is_read() -> None:
    topology = weather_topology("shop")
    made = document(topology)
    channels = made["channels"]
    assert channels["events"]["address"] == "shop.sales"
    assert channels["events.shop.weather"]["address"] == "shop.weather"
    assert list(channels["events.shop.weather"]["messages"]) == ["Weather"]
    actions = {name: one["action"] for name, one in made["operations"].items()}
    assert actions["readEvents"] == actions["readEvents.shop.weather"] == "receive"
    assert "Weather" in schemas(topology)
    assert "Weather" in made["components"]["messages"]


@pytest.mark.redis
async def test_http_scores_as_the_stream_does_at_the_same_state(
    redis_url: str, unique: str
) -> None:
    """Sales that the worker has not seen yet are scored over HTTP, then by the worker."""
    topology = weather_topology(unique)
    records = merged(topology, logs(topology, 8, 300, 300))
    redis = Redis.from_url(redis_url)
    worker = Worker(topology, redis)
    await worker.start()
    scorer = Scorer(shop_runtime(topology), redis, 1)
    compared = 0
    for n in range(len(records)):
        one, source = records[n], records.sources[n]
        batch = scorer.decode([one.value or b""]) if source == 0 else None
        asked = batch is not None and len(batch) == 1 and not scorer.problems(batch)
        before = len(worker.of(topology.output))
        if asked and batch is not None and n > 100:
            vectors = scorer.vectors(await scorer.read(batch, with_times=True), batch)
            scores = scorer.score(vectors).each[0]
        await worker.consume(part(records, n, n + 1))
        await worker.processor.store()
        said = worker.of(topology.output)[before:]
        if asked and n > 100 and said:
            assert list(said[0]["scores"].values()) == scores.tolist()
            compared += not np.isnan(vectors.values).all()
    scorer.close()
    await redis.aclose()
    assert compared > 100


def test_events_are_checked_by_the_rules_of_the_stream_that_they_are_published_to() -> None:
    topology = weather_topology("shop")
    scorer = Scorer(shop_runtime(topology), Redis(), 1)
    report = b'{"type":"weather","report_id":"w","shop":"a","seen_at":"2024-01-01T00:00:00Z"}'
    assert scorer.decode([report]).rejects
    batch = scorer.decode([report], "shop.weather")
    assert not batch.rejects
    assert batch.labels("shop") == ["a"]
    assert len(scorer.problems(batch)) == 1


def test_a_file_is_named_for_each_stream(tmp_path: Path) -> None:
    topology = weather_topology("shop")
    paths = [tmp_path / "sales.ndjson", tmp_path / "weather.ndjson"]
    for path in paths:
        path.write_text("")
    named = [f"shop.weather={paths[1]}", f"shop.sales={paths[0]}"]
    assert files_of(topology, named) == paths
    for wrong in ([str(paths[0])], named[:1], [*named, named[0]], ["shop.sales=no", named[0]]):
        with pytest.raises(typer.BadParameter, match=r"shop\.sales"):
            files_of(topology, wrong)


def test_a_stream_of_the_example_is_found_by_its_name() -> None:
    assert stream_of("weather").name == "weather"
    assert stream_of("flight_delay").name == "flights"
    with pytest.raises(DeclarationError, match="several streams; name one: flights or weather"):
        stream_of("flight_weather")
