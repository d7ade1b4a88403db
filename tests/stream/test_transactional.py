"""A transactional producer that Kafka has fenced."""

import asyncio
import gc
from typing import Any

import pytest
from aiokafka.errors import ProducerFenced

from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.transactional import TransactionalProducer


@pytest.fixture
async def untold() -> list[dict[str, Any]]:
    """What asyncio complains of, such as of exceptions that nobody has looked at."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def fenced() -> TransactionalProducer:
    """A producer in a transaction whose requests for offsets tell that it is fenced."""

    async def agreed(*_: object) -> None:
        return None

    async def refused(*_: object) -> None:
        raise ProducerFenced

    producer = TransactionalProducer(StreamSettings(), "id")
    producer._txn_manager.set_pid_and_epoch(1, 0)
    producer._sender._ask = agreed
    producer._sender._do_txn_offset_commit = refused
    await producer.begin_transaction()
    return producer


@pytest.mark.parametrize("offsets_wait", [False, True])
async def test_what_fenced_a_producer_is_no_complaint(
    untold: list[dict[str, Any]], offsets_wait: bool
) -> None:
    producer = await fenced()
    if offsets_wait:
        with pytest.raises(ProducerFenced):
            await producer._sender._deliver(None, [], {}, "group")
    producer._txn_manager.fatal_error(ProducerFenced())
    await producer.stop()
    del producer
    gc.collect()
    await asyncio.sleep(0)
    assert untold == []
