"""Commits: coalesced, tried again, and never believed before Kafka confirmed them."""

import asyncio

import pytest

from stream_infer.stream.commits import CommitResult, Committer
from stream_infer.stream.counters import StreamCounters
from stream_infer.stream.processing import TP
from tests.stream.kafka_tools import eventually

A, B = TP("t", 0), TP("t", 1)


class Coordinator:
    def __init__(self, *answers: CommitResult | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[dict[TP, int]] = []

    async def commit(self, positions):
        self.asked.append(dict(positions))
        answer = self.answers.pop(0) if self.answers else CommitResult.DONE
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_positions_noted_between_two_commits_travel_together():
    coordinator = Coordinator()
    committer = Committer(coordinator.commit, 60.0, StreamCounters())
    committer.note({A: 1, B: 5})
    committer.note({A: 2})
    assert await committer.flush()
    assert coordinator.asked == [{A: 2, B: 5}]
    assert await committer.flush()
    assert len(coordinator.asked) == 1


async def test_a_failed_commit_is_not_recorded_and_is_tried_again_with_what_came_since():
    counters = StreamCounters()
    coordinator = Coordinator(ConnectionError("away"))
    committer = Committer(coordinator.commit, 60.0, counters)
    committer.note({A: 1, B: 5})
    assert not await committer.flush()
    assert committer.committed == {}
    committer.note({A: 3})
    assert await committer.flush()
    assert coordinator.asked[-1] == committer.committed == {A: 3, B: 5}
    assert (counters.commits, counters.commit_failures) == (1, 1)


@pytest.mark.parametrize("result", [CommitResult.REBALANCED, CommitResult.ENDED])
async def test_after_a_rebalance_or_an_end_the_commit_is_left_to_the_next_owner(result):
    coordinator = Coordinator(result)
    committer = Committer(coordinator.commit, 60.0, StreamCounters())
    committer.note({A: 1})
    assert not await committer.flush()
    assert committer.committed == {}
    assert await committer.flush()
    assert len(coordinator.asked) == 1


async def test_the_first_position_is_committed_at_once_and_later_ones_after_the_interval():
    coordinator = Coordinator()
    committer = Committer(coordinator.commit, 60.0, StreamCounters())
    running = asyncio.create_task(committer.run())
    committer.note({A: 1})
    await eventually(lambda: bool(committer.committed))
    committer.note({A: 2})
    for _ in range(20):
        await asyncio.sleep(0)
    assert coordinator.asked == [{A: 1}]
    committer.stop()
    await running
    assert await committer.flush()
    assert coordinator.asked == [{A: 1}, {A: 2}]


async def test_a_log_that_is_folded_again_does_not_set_the_commit_back():
    coordinator = Coordinator()
    committer = Committer(coordinator.commit, 0.0, StreamCounters())
    committer.known({A: 100, B: None})
    committer.note({A: 40, B: 40})
    assert await committer.flush()
    committer.note({A: 99, B: 41})
    committer.note({A: 101, B: 40})
    assert await committer.flush()
    assert coordinator.asked == [{B: 40}, {A: 101, B: 41}]
