"""A topology of one's own with the commands alone: train, check, topics, produce, worker, tail."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import (
    Ran,
    environment,
    one_line,
    payment_lines,
    program,
    run,
    write_topology,
)
from tests.servers.kafka import Kafka

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
EVENTS = 600


class Place:
    """A folder with a topology, its models and its events, and the settings of a program there."""

    def __init__(self, folder: Path, name: str, kafka: Kafka, redis_url: str) -> None:
        self.folder, self.name = folder, name
        self.stream = f"{name}.events"
        write_topology(folder, name)
        self.file = folder / "events.ndjson"
        self.file.write_text("\n".join(payment_lines(EVENTS)) + "\n")
        self.env = {
            "STREAM_INFER_BROKER": kafka.bootstrap,
            "STREAM_INFER_REDIS": redis_url,
            "STREAM_INFER_PARTITIONS": "2",
        }

    def run(self, *arguments: str, stdin: str | None = None) -> Ran:
        return run(*arguments, cwd=self.folder, env=self.env, stdin=stdin)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            program(*arguments),
            cwd=self.folder,
            env=environment(self.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def place(tmp_path: Path, unique: str, kafka_server: Kafka, redis_url: str) -> Place:
    return Place(tmp_path, unique, kafka_server, redis_url)


def test_from_a_file_of_events_to_predictions(place: Place) -> None:
    trained = place.run(
        "train", place.name, "--events", str(place.file), "--until", "2024-01-03", "--json"
    )
    assert trained.code == 0, trained.err
    assert set(trained.json["weights"]) == {"boosted_trees", "mlp", "linear"}

    checked = place.run("check", place.name, "--json")
    assert checked.code == 0, checked.err
    assert checked.json["ok"]
    assert {model["name"] for model in checked.json["models"]} == set(trained.json["weights"])

    created = place.run("topics", "create", place.name, "--json")
    assert created.code == 0, created.err
    assert created.json["topics"][place.stream] == 2
    assert place.stream in place.run("topics", "list", "--json").json["topics"]
    assert place.run("topics", "create", place.name, "--json").json["created"] == []

    worker = place.start("worker", place.name, "--processes", "2")
    try:
        sent = place.run("produce", place.stream, str(place.file), "--json")
        assert sent.code == 0, sent.err
        assert sent.json["acknowledged"] == 2 * EVENTS
        tailed = place.run("tail", place.name, "--from-beginning", "--max", str(EVENTS), "--json")
        predictions = [json.loads(line) for line in tailed.out.splitlines()]
        assert {prediction["key"] for prediction in predictions} == {f"p{i}" for i in range(EVENTS)}
    finally:
        worker.send_signal(signal.SIGTERM)
        log, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, log


def test_events_keep_their_pace(place: Place) -> None:
    place.run("topics", "create", place.name)
    lines = "\n".join(payment_lines(40, verdicts=False))
    sent = place.run("produce", place.name, "-", "--rate", "100", "--json", stdin=lines)
    assert sent.code == 0, sent.err
    assert sent.json["acknowledged"] == 40
    assert sent.json["seconds"] >= 0.39


def test_an_invalid_line_ends_produce_unless_it_is_wanted(place: Place) -> None:
    place.run("topics", "create", place.name)
    good = payment_lines(2, verdicts=False)
    lines = "\n".join([good[0], '{"type":"payment"}', good[1]])
    refused = place.run("produce", place.name, "-", "--json", stdin=lines)
    assert refused.code == 1
    assert refused.json["acknowledged"] == 1
    assert "line 2" in one_line(refused.err)
    sent = place.run("produce", place.name, "-", "--unchecked", "--json", stdin=lines)
    assert sent.code == 0, sent.err
    assert sent.json["acknowledged"] == 3


def test_an_absent_file_is_wrong_usage(place: Place) -> None:
    assert place.run("produce", place.name, "none.ndjson").code == 2


def test_names_that_do_not_exist_are_answered_by_the_nearest(place: Place) -> None:
    place.run("topics", "create", place.name)
    ran = place.run("tail", f"{place.name}.prediction")
    assert ran.code == 1
    assert f"did you mean '{place.name}.predictions'?" in one_line(ran.err)
    ran = place.run("produce", f"{place.name}.event", str(place.file))
    assert ran.code == 1
    assert f"did you mean '{place.stream}'?" in one_line(ran.err)


@pytest.mark.parametrize("command", ["list", "create"])
def test_an_absent_kafka_is_one_line(place: Place, command: str) -> None:
    names = [place.name] if command == "create" else []
    ran = place.run("topics", command, *names, "--broker", "127.0.0.1:1")
    assert ran.code == 1
    assert "127.0.0.1:1" in one_line(ran.err)


def test_a_worker_without_models_is_refused_with_their_name(place: Place) -> None:
    ran = place.run("worker", place.name)
    assert ran.code == 1
    assert "boosted_trees" in one_line(ran.err)
