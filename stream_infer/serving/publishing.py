"""Publishing events to their stream's topic, answered when Kafka has acknowledged them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from stream_infer.core.stream import Stream
from stream_infer.serving.errors import NotAcceptableError, UnavailableError
from stream_infer.settings import Settings


class Published(msgspec.Struct, frozen=True):
    """Where an event lies in its topic."""

    topic: str
    partition: int
    offset: int


class Publisher:
    """An idempotent producer that connects at its first use, and again after a failure to."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._connecting = asyncio.Lock()

    async def publish(
        self, stream: Stream, keys: Sequence[str | None], values: Sequence[bytes]
    ) -> list[Published]:
        """Publish checked events, each with its key; all of them are acknowledged on return.

        Raises UnavailableError when Kafka does not answer in time.
        """
        producer = await self._connected()
        timeout_s = self._settings.request_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                sent = [
                    await producer.send(stream.name, value, key=key.encode() if key else None)
                    for key, value in zip(keys, values, strict=True)
                ]
                acknowledged = await asyncio.gather(*sent)
        except MessageSizeTooLargeError:
            raise NotAcceptableError(
                "an event is larger than its topic accepts",
                "body",
                "make it smaller, or raise the topic's max.message.bytes",
            ) from None
        except TimeoutError:
            raise UnavailableError(
                f"Kafka did not acknowledge within {timeout_s:g} s; events may have been "
                "published all the same",
                "Kafka",
                "publish them again: a stream with event ids recognises repeats",
            ) from None
        except KafkaError as error:
            raise _unavailable(type(error).__name__) from error
        return [Published(place.topic, place.partition, place.offset) for place in acknowledged]

    async def close(self) -> None:
        """Send what waits, and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._settings.broker,
                    client_id="stream-infer-serve",
                    enable_idempotence=True,
                    request_timeout_ms=int(self._settings.request_timeout_s * 1000),
                )
                try:
                    async with asyncio.timeout(self._settings.request_timeout_s):
                        await producer.start()
                except (KafkaError, OSError, TimeoutError) as error:
                    await producer.stop()
                    raise _unavailable(type(error).__name__) from error
                self._producer = producer
            return self._producer


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(
        f"Kafka does not answer ({reason}); nothing was published",
        "Kafka",
        "try again; if it lasts, check Kafka and the setting STREAM_INFER_BROKER",
    )
