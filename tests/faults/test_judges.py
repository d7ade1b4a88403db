"""The judges of pauses and of growth notice what they are there for."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults.http_load import Answers
from tests.faults.scaling import longest, protocol_s
from tests.faults.steady import FILES_MAX, GROWTH_MAX_BYTES, Samples
from tests.faults.verifier import Figures


class Logged:
    """The part of a worker that is judged: its log."""

    def __init__(self, log: Path) -> None:
        self.log = log


@pytest.mark.parametrize(
    ("bytes_per_s", "files_per_s", "flat"),
    [(0.0, 0.0, True), (GROWTH_MAX_BYTES / 25, 0.0, False), (0.0, (FILES_MAX + 1) / 29, False)],
)
def test_what_grows_over_the_second_half_is_noticed(
    bytes_per_s: float, files_per_s: float, flat: bool
) -> None:
    nobody: Any = None
    samples = Samples(nobody)
    for second in range(60):
        samples.at_s.append(float(second))
        # A first half that still grows is no leak.
        samples.rss_bytes.append(1e8 + 1e7 * min(second, 20) + bytes_per_s * second)
        samples.files.append(30 + files_per_s * second)
    figures = Figures("steady", 0)
    samples.judge(figures, "worker")
    assert figures.passed == flat


def test_a_pause_is_the_longest_gap_that_touches_the_step() -> None:
    times_ms = [0, 5_000, 5_100, 8_000, 8_100, 20_000]
    assert longest(times_ms, 6_000, 9_000) == 11_900
    assert longest(times_ms, 5_050, 7_000) == 2_900
    assert longest([], 1_000, 4_000) == 3_000


def test_the_groups_own_time_is_read_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text(
        "1970-01-01T00:00:05 INFO stream_infer.stream: gave back 2 partitions in 0.1 s\n"
        "1970-01-01T00:00:06 INFO stream_infer.stream: assigned 1 partitions, 0.75 s after "
        "giving back\n"
        "1970-01-01T00:01:06 INFO stream_infer.stream: assigned 1 partitions, 9.00 s after "
        "giving back\n"
    )
    worker: Any = Logged(log)
    assert protocol_s(worker, 5_000, 10_000) == 0.75


def test_requests_without_an_answer_and_5xx_are_failures() -> None:
    answers = Answers()
    answers.statuses.update([200, 200, 404, 503])
    answers.refused = 4
    assert answers.failed == 1
    answers.broken["ReadError"] += 1
    assert answers.failed == 2
