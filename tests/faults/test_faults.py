"""The short part of the battery; `make faults` runs all of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stream_infer.core.errors import SettingsError
from stream_infer.failpoints import parse
from tests.faults.__main__ import play
from tests.faults.harness import ROOT, Bench
from tests.servers.kafka import Kafka
from tests.servers.redis import Redis


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.parametrize("scenario", ["kill", "zombie-state-written"])
def test_nothing_is_lost_and_nothing_counts_twice(
    kafka_server: Kafka, redis_server: Redis, tmp_path: Path, scenario: str
) -> None:
    figures = play(Bench(kafka_server, redis_server, tmp_path), scenario, seed=0)
    assert figures.passed, figures.line()


def test_a_failpoint_acts_at_its_visit_and_only_there() -> None:
    program = (
        "from stream_infer.failpoints import failpoint\n"
        "for n in range(3):\n"
        "    failpoint('committed'); failpoint('folded'); print(n, flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "STREAM_INFER_FAILPOINTS": "folded=kill@3"},
        capture_output=True,
        check=False,
    )
    assert ended.stdout.split() == [b"0", b"1"]
    assert ended.returncode == -9


@pytest.mark.parametrize("text", ["foldet=kill", "folded=explode", "folded=kill@soon"])
def test_an_unknown_failpoint_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="STREAM_INFER_FAILPOINTS"):
        parse(text)
