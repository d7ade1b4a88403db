"""The evaluation's laws, on a short log: the whole quarter takes `make evaluate`."""

import pytest

from tests.demo.conftest import Start
from tests.servers.kafka import Kafka

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


def test_live_offline_and_http_say_the_same(
    start: Start, empty_kafka: Kafka, redis_url: str
) -> None:
    running = start(
        "--until",
        "2013-10-03",
        "--broker",
        empty_kafka.bootstrap,
        "--redis",
        redis_url,
        command="evaluate",
    )
    ran = running.ended()
    assert ran.code == 0, ran.err
    judgement = ran.json
    laws = judgement["laws"]
    assert laws["live_equals_offline"]["holds"], laws
    assert laws["http_equals_stream"]["holds"], laws
    assert laws["http_equals_stream"]["samples"] > 30
    assert laws["conservation"]["holds"], laws
    assert judgement["predictions"] == judgement["predictions_offline"] > 25_000
    assert running.left() == []
