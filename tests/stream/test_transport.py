"""The consumer: the end of a log as it was heard last."""

from typing import Any

import pytest
from faust.exceptions import ConsumerNotStarted

from stream_infer.stream.processing import TP
from stream_infer.stream.transport import MicroBatchConsumer

A = TP("a", 0)


class Told:
    """A consumer's thread, and its consumer, that tells the ends of its fetches, or raises."""

    def __init__(self, told: int | Exception | None) -> None:
        self.told = told

    def _ensure_consumer(self) -> "Told":
        if isinstance(self.told, ConsumerNotStarted):
            raise self.told
        return self

    def highwater(self, partition: Any) -> int | None:
        assert tuple(partition) == A
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def consumer(told: int | Exception | None, **asked: int) -> Any:
    made: Any = MicroBatchConsumer.__new__(MicroBatchConsumer)
    made._thread, made._ends = Told(told), {TP(topic, 0): end for topic, end in asked.items()}
    return made


@pytest.mark.parametrize("given_away", [AssertionError(), KeyError(), ConsumerNotStarted()])
def test_an_end_that_was_heard_holds_while_a_partition_is_given_away(given_away: Exception) -> None:
    assert consumer(given_away, a=5).end(A) == 5


@pytest.mark.parametrize(("fetched", "end"), [(None, 5), (3, 5), (7, 7)])
def test_the_end_is_the_highest_that_was_heard(fetched: int | None, end: int) -> None:
    assert consumer(fetched, a=5).end(A) == end


def test_an_end_of_which_nothing_was_heard_is_not_known() -> None:
    assert consumer(None).end(A) is None
    assert consumer(AssertionError()).end(A) is None
    assert consumer(7).end(A) == 7
