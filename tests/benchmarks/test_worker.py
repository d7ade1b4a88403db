"""A short run of the worker's benchmark: every figure is there and can be true."""

from benchmarks import worker
from benchmarks.options import Options
from benchmarks.place import Place


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
