"""The demo as a user runs it: it ends by itself, on Ctrl-C, and leaves nothing running."""

import signal
from pathlib import Path

import pytest

from stream_infer.processes import wait_until
from tests.cli.support import Ran, one_line, run
from tests.demo.conftest import SHORT, Start, end_group
from tests.servers.kafka import Kafka

FIRST_PREDICTION_MAX_S = 15.0
ENDS = ("predictions", "updates", "dead_letters", "late", "duplicates", "replayed")


def assert_conserved(ran: Ran) -> None:
    summary = ran.json
    ends = summary["ends"]
    assert summary["ok"], summary["errors"]
    assert ends["conserved"]
    assert ends["consumed"] == sum(ends[end] for end in ENDS) > 0
    assert ends["in_flight"] == 0
    assert summary["read_back"]["predictions"] == ends["predictions"]


def test_a_demo_ends_by_itself_with_every_event_accounted_for(start: Start) -> None:
    running = start("--duration-s", "4", "--rate", "200", *SHORT)
    ran = running.ended()
    assert ran.code == 0, ran.err
    assert_conserved(ran)
    summary = ran.json
    assert summary["ends"]["consumed"] == summary["sent"]["events"]
    assert summary["exit_codes"] == {"worker": 0, "server": 0}
    assert summary["seconds"]["set_up"] == {}, "the steps are made once"
    assert summary["seconds"]["first_prediction"] < FIRST_PREDICTION_MAX_S
    assert summary["latency_ms"]["measured"] > 0
    assert summary["rmse_min"]["labelled"] > 0
    assert "keeps nothing" in ran.out
    assert running.left() == []


def test_ctrl_c_stops_all_of_it_cleanly(start: Start) -> None:
    running = start("--speed", "3600", *SHORT)
    running.wait_for("live, ")
    assert len(running.left()) > 4
    running.process.send_signal(signal.SIGINT)
    ran = running.ended()
    assert ran.code == 0, ran.err
    assert_conserved(ran)
    assert running.left() == []


def test_ctrl_c_before_the_first_event_stops_all_of_it_too(start: Start) -> None:
    running = start(*SHORT)
    assert wait_until(lambda: len(running.left()) > 1, timeout_s=30.0)
    running.process.send_signal(signal.SIGINT)
    ran = running.ended()
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    assert isinstance(ran.json, dict)
    assert running.left() == []


def test_nothing_outlives_a_demo_that_was_killed(start: Start) -> None:
    running = start("--speed", "3600", *SHORT)
    running.wait_for("live, ")
    end_group(running)
    assert wait_until(lambda: running.left() == [], timeout_s=40.0), running.left()


def test_a_child_that_dies_is_named_with_its_last_lines(start: Start) -> None:
    import psutil

    running = start("--speed", "3600", *SHORT)
    running.wait_for("live, ")
    worker = next(
        process
        for process in psutil.Process(running.process.pid).children(recursive=True)
        if process.cmdline()[1:4] == ["-m", "stream_infer.cli", "worker"]
    )
    worker.kill()
    ran = running.ended()
    assert ran.code == 1
    assert "the worker ended with exit code 137" in ran.err
    assert "reading flights/0" in ran.err
    assert running.left() == []


@pytest.mark.kafka
@pytest.mark.redis
def test_a_second_demo_on_real_servers_goes_on_where_the_log_ends(
    start: Start, empty_kafka: Kafka, redis_url: str
) -> None:
    servers = ("--broker", empty_kafka.bootstrap, "--redis", redis_url)
    first = start("--duration-s", "2", "--rate", "200", *SHORT, *servers).ended()
    assert first.code == 0, first.err
    assert_conserved(first)
    second = start("--duration-s", "2", "--rate", "200", *SHORT, *servers).ended()
    assert second.code == 0, second.err
    assert_conserved(second)
    assert second.json["sent"]["in_the_log_before"] == first.json["sent"]["events"]
    assert second.json["sent"]["warm_up"] == 0
    other = start("--duration-s", "2", *SHORT, "--redis", redis_url).ended()
    assert other.code == 1
    assert "--reset-state" in other.err


def test_speed_and_rate_exclude_each_other(start: Start) -> None:
    ran = start("--speed", "10", "--rate", "10", *SHORT).ended()
    assert ran.code == 2
    assert "--rate" in ran.err


def test_an_absent_redis_is_one_line(start: Start) -> None:
    ran = start("--redis", "redis://127.0.0.1:1/0", *SHORT).ended()
    assert ran.code == 1
    assert "no Redis answers" in ran.err
    assert "Traceback" not in ran.err


def test_an_absent_kafka_is_one_line(start: Start) -> None:
    ran = start("--broker", "127.0.0.1:1", *SHORT).ended()
    assert ran.code == 1
    assert "no Kafka answers at 127.0.0.1:1" in ran.err
    assert "Traceback" not in ran.err


def test_outside_a_clone_the_demo_says_so(tmp_path: Path) -> None:
    ran = run("demo", cwd=tmp_path)
    assert ran.code == 2
    assert "clone" in one_line(ran.err)
