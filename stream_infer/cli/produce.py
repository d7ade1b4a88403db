"""`produce`: send a file of events to their stream, at a rate."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_infer.cli.options import Broker, Json, settings_of, topology_of
from stream_infer.cli.output import FAILED, emit_json, say

if TYPE_CHECKING:
    from stream_infer.core.stream import Stream

QUEUED_MAX = 10_000
"""Records that may wait for their acknowledgement."""
LOOK_EVERY = 64


def produce(
    stream: Annotated[
        str,
        typer.Argument(
            metavar="STREAM_OR_TOPOLOGY", help="A topology, or a stream of one.", show_default=False
        ),
    ],
    file: Annotated[
        str,
        typer.Argument(help="One JSON event a line; - reads standard input.", show_default=False),
    ],
    rate: Annotated[
        float, typer.Option(min=0.0, help="Events a second; 0: as fast as Kafka takes them.")
    ] = 0.0,
    unchecked: Annotated[
        bool,
        typer.Option("--unchecked", help="Send lines that are no valid event, too."),
    ] = False,
    broker: Broker = None,
    json: Json = False,
) -> None:
    """Send a file of events to the topic of their stream.

    Events of one key keep their order. A line that is no valid event ends it, before that line is
    sent, unless --unchecked sends it to become a dead letter.
    """
    from stream_infer.cli import kafka

    settings = settings_of(broker=broker)
    declared = stream_of(stream)
    if file != "-" and not Path(file).is_file():
        raise typer.BadParameter(f"there is no file {file!r}", param_hint="FILE")
    counts = {"read": 0, "acknowledged": 0, "failed": 0}
    started_s = time.monotonic()
    problem = kafka.run(
        settings.broker, send(settings.broker, declared, file, rate, unchecked, counts)
    )
    elapsed_s = time.monotonic() - started_s
    per_s = counts["acknowledged"] / elapsed_s if elapsed_s else 0.0
    if json:
        summary = {"topic": declared.name, **counts, "seconds": elapsed_s, "events_per_s": per_s}
        emit_json(summary | {"error": problem})
    else:
        print(
            f"{declared.name}: {counts['acknowledged']:,} events acknowledged in "
            f"{elapsed_s:.1f} s ({per_s:,.0f}/s)"
        )
    if problem is not None or counts["failed"]:
        say(f"{file}: {problem or 'Kafka refused some of the events'}")
        raise typer.Exit(FAILED)


def stream_of(name: str) -> "Stream":
    """Return the stream of a topology, or the stream of that name which some topology reads."""
    from stream_infer.core.errors import DeclarationError, StreamInferError
    from stream_infer.loading import FOLDER

    try:
        read = topology_of(name).streams
    except DeclarationError as missing:
        streams: dict[str, Stream] = {}
        for path in sorted(Path(FOLDER).glob("*.py")):
            try:
                found = topology_of(path.stem).streams
            except StreamInferError:
                continue
            streams.update((stream.name, stream) for stream in found)
        if name in streams:
            return streams[name]
        if "not found" not in str(missing):
            raise
        known = [*streams, *(path.stem for path in Path(FOLDER).glob("[!_]*.py"))]
        raise DeclarationError(
            f"stream or topology {name!r}", "not found", name=name, choices=known
        ) from None
    if len(read) > 1:
        names = " or ".join(stream.name for stream in read)
        raise DeclarationError(f"topology {name!r}", f"reads several streams; name one: {names}")
    return read[0]


def keyed(stream: "Stream", file: str, unchecked: bool) -> Iterator[tuple[bytes | None, bytes]]:
    """Yield (partition key, line) of a file. Raises EventError, with the line's number, for a line
    that is no valid event, unless `unchecked`: its key is None then.
    """
    import msgspec

    from stream_infer.core.columns import decoder
    from stream_infer.core.errors import EventError

    decode = decoder(stream)
    lines = sys.stdin.buffer if file == "-" else open(file, "rb")  # noqa: SIM115
    with lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip(b"\r\n")
            key: bytes | None = None
            try:
                key = str(getattr(decode(line), stream.key)).encode()
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                if not unchecked:
                    raise EventError(f"line {number}", str(error)) from error
            yield key, line


async def send(
    broker: str,
    stream: "Stream",
    file: str,
    rate: float,
    unchecked: bool,
    counts: dict[str, int],
) -> str | None:
    """Send the events and count them in `counts`; return what stopped it before the end."""
    import asyncio

    from aiokafka import AIOKafkaProducer

    from stream_infer.core.errors import EventError

    slots = asyncio.Semaphore(QUEUED_MAX)

    def acknowledged(future: Any) -> None:
        slots.release()
        good = not future.cancelled() and future.exception() is None
        counts["acknowledged" if good else "failed"] += 1

    producer: Any = AIOKafkaProducer(bootstrap_servers=broker, enable_idempotence=True)
    try:
        await producer.start()
        started_s = time.monotonic()
        try:
            for key, line in keyed(stream, file, unchecked):
                if rate:
                    ahead_s = started_s + counts["read"] / rate - time.monotonic()
                    if ahead_s > 0:
                        await asyncio.sleep(ahead_s)
                elif counts["read"] % LOOK_EVERY == 0:
                    await asyncio.sleep(0)
                await slots.acquire()
                counts["read"] += 1
                (await producer.send(stream.name, line, key=key)).add_done_callback(acknowledged)
        except EventError as error:
            return str(error)
        finally:
            await producer.flush()
    finally:
        await producer.stop()
    return None
