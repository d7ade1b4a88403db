"""The worker on the embedded broker, which can neither create topics nor tell their settings."""

from stream_infer.stream.broker import EmbeddedBroker
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import (
    Reader,
    echo_app,
    ends,
    eventually,
    produce,
    running,
    stream_settings,
)


async def test_the_worker_runs_on_the_embedded_broker(unique: str) -> None:
    source, output = f"{unique}.in", f"{unique}.out"
    with EmbeddedBroker() as broker:
        address = broker.bootstrap
        echo = Echo(output)
        app = echo_app(stream_settings(address), source, output, echo, unique)
        async with running(app):
            sent = produce(address, source, (str(n) for n in range(2_000)))
            await eventually(lambda: app.counters.produced == sent)
            await eventually(lambda: echo.positions == ends(address, source))
        reader = Reader(address, output)
        assert reader.read() == sent
        reader.close()
