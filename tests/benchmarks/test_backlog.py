"""How far a worker is through a backlog, as its group's offsets say."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from benchmarks import backlog
from benchmarks.backlog import Progress


class Answers:
    """Stands for a consumer that says these one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise KafkaException(KafkaError(answer))
        return answer


def progress(answers: Answers) -> Progress:
    place = cast(Any, SimpleNamespace(kafka=SimpleNamespace(bootstrap="127.0.0.1:1")))
    made = Progress(place, "name", "topic")
    made.close()
    made._consumer = cast(Any, answers)
    return made


def test_a_broker_that_does_not_know_the_coordinator_yet_is_asked_again() -> None:
    found = [TopicPartition("topic", 0, 5), TopicPartition("topic", 1, -1001)]
    answers = Answers(KafkaError.NOT_COORDINATOR, KafkaError._WAIT_COORD, found)
    assert progress(answers).committed() == 5
    assert not answers.answers


def test_it_is_not_asked_for_ever_and_not_after_other_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KafkaException):
        progress(Answers(KafkaError.GROUP_AUTHORIZATION_FAILED, [])).committed()
    monkeypatch.setattr(backlog, "COORDINATOR_MAX_S", -1.0)
    with pytest.raises(KafkaException):
        progress(Answers(KafkaError.NOT_COORDINATOR, [])).committed()
