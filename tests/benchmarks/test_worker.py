"""A short run of the worker's benchmark: every figure is there and can be true."""

import pytest

from benchmarks import worker
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.worker import Sample, figures_of


def test_a_backlog_gives_throughput_processor_time_and_memory(place: Place) -> None:
    options = Options(keys=(300,), draws=("zipf",), events=30_000, runs=1)
    figures = {item.name: item for item in worker.measure(place, options)}
    assert figures["throughput"].unit == "events/s"
    assert figures["throughput"].value > 100
    assert 0 < figures["CPU"].value < 10_000
    assert 20 < figures["memory"].value < 10_000
    assert figures["CPU"].case == {"keys": 300, "draw": "zipf"}
    assert len(figures["CPU"].runs) == 1


def test_a_run_leaves_neither_topics_nor_state(place: Place) -> None:
    name = place.job(300)
    place.forget(name)
    assert not [topic for topic in place.kafka.topics() if topic.startswith(name)]


def followed(*committed: int) -> list[Sample]:
    """A sample each second, at which a worker had used 0.1 s more."""
    return [Sample(float(n), done, n / 10, 0.0, 0.0) for n, done in enumerate(committed)]


@pytest.mark.parametrize(
    ("committed", "throughput", "seconds"),
    [
        ((0, 80, 120, 300, 600, 1_100), (1_100 - 120) / 3, 3),  # from past the warm-up of 100
        ((0, 80, 120, 1_100), 980, 1),
        ((0, 80, 1_000, 1_100), (1_100 - 80) / 2, 2),  # most went by before that
        ((0, 80, 1_100), 1_020, 1),
        ((0, 1_100), 1_100, 1),  # all at once
    ],
)
def test_a_backlog_has_figures_however_few_commits_are_seen(
    committed: tuple[int, ...], throughput: float, seconds: float
) -> None:
    found = figures_of(followed(*committed), keys=50, warm=100)
    assert found["throughput"][0] == pytest.approx(throughput)
    assert found["measured"][0] == seconds
    assert found["CPU"][0] == pytest.approx(1e5 / throughput)


def test_few_events_are_committed_more_often_and_many_as_by_default() -> None:
    assert worker.watchable(worker.SHORT_EVENTS) == {}
    assert worker.watchable(30_000) == {"commit_interval_s": pytest.approx(0.05)}
    assert worker.watchable(1) == {"commit_interval_s": worker.COMMIT_MIN_S}
