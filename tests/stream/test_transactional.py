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


async def test_the_end_of_a_fenced_transaction_is_no_complaint(
    untold: list[dict[str, Any]],
) -> None:
    producer = await fenced()
    producer._txn_manager.fatal_error(ProducerFenced())
    await producer.stop()
    del producer
    gc.collect()
    await asyncio.sleep(0)
    assert untold == []


async def test_offsets_that_wait_when_a_producer_is_fenced_are_no_complaint(
    untold: list[dict[str, Any]],
) -> None:
    producer = await fenced()
    with pytest.raises(ProducerFenced):
        await producer._sender._deliver(None, [], {}, "group")
    producer._txn_manager.fatal_error(ProducerFenced())
    await producer.stop()
    del producer
    gc.collect()
    await asyncio.sleep(0)
    assert untold == []
