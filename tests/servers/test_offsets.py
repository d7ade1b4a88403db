"""Offsets are asked for again while a broker does not know who coordinates the group."""

from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.servers import offsets
from tests.servers.offsets import committed_offsets


class Answers:
    """Stands for a consumer that says these one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise KafkaException(KafkaError(answer))
        return answer


def test_a_broker_that_does_not_know_the_coordinator_yet_is_asked_again() -> None:
    found = [TopicPartition("topic", 0, 5), TopicPartition("topic", 1, -1001)]
    answers = Answers(KafkaError.NOT_COORDINATOR, KafkaError._WAIT_COORD, found)
    assert committed_offsets(cast(Any, answers), found) == found
    assert not answers.answers


def test_it_is_not_asked_for_ever_and_not_after_other_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KafkaException):
        committed_offsets(cast(Any, Answers(KafkaError.GROUP_AUTHORIZATION_FAILED, [])), [])
    monkeypatch.setattr(offsets, "COORDINATOR_MAX_S", -1.0)
    with pytest.raises(KafkaException):
        committed_offsets(cast(Any, Answers(KafkaError.NOT_COORDINATOR, [])), [])
