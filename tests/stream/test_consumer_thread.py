"""The consumer's thread: what is asked of it ends when it ends, and says so."""

import asyncio
import threading
from typing import Any

import pytest
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver

from stream_infer.stream.commits import CommitResult
from stream_infer.stream.consumer_thread import ConsumerThread
from stream_infer.stream.processing import TP
from stream_infer.stream.settings import StreamSettings
from stream_infer.stream.transport import MicroBatchConsumer


class Thread(ConsumerThread):
    """A thread without a consumer: it runs what is asked until told to leave."""

    def __init__(self) -> None:
        self.thread_loop = asyncio.new_event_loop()
        self._close_thread_loop_on_stop = True
        self._asked, self._ended = set(), False
        self._leaving = asyncio.Event()
        self._thread = threading.Thread(target=self._start_thread)

    async def _serve(self) -> None:
        await self._leaving.wait()
        await self._gather_remaining_tasks()

    def leave(self) -> None:
        self.thread_loop.call_soon_threadsafe(self._leaving.set)
        self._thread.join()


async def test_what_a_thread_is_asked_is_answered() -> None:
    thread = Thread()
    thread._thread.start()

    async def answer() -> int:
        return threading.get_ident()

    assert await thread.run_inside(answer) == thread._thread.ident
    assert not thread._asked
    thread.leave()


async def test_what_is_under_way_when_the_thread_ends_is_no_cancellation_of_who_asked() -> None:
    thread = Thread()
    thread._thread.start()
    begun = threading.Event()

    async def never() -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    asking = asyncio.create_task(thread.run_inside(never))
    await asyncio.to_thread(begun.wait)
    await asyncio.to_thread(thread.leave)
    with pytest.raises(ConsumerStoppedError, match="thread has ended"):
        await asking
    with pytest.raises(ConsumerStoppedError, match="thread has ended"):
        await thread.run_inside(never)


async def test_what_never_began_before_the_thread_ended_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thread = Thread()
    asking = asyncio.create_task(thread.run_inside(asyncio.Event().wait))
    await asyncio.sleep(0)
    assert len(thread._asked) == 1
    monkeypatch.setattr(
        driver.AIOKafkaConsumerThread, "_start_thread", lambda self: self.thread_loop.close()
    )
    thread._start_thread()
    with pytest.raises(ConsumerStoppedError, match="thread has ended"):
        await asyncio.wait_for(asking, 10)


async def test_a_closed_loop_is_an_ended_thread() -> None:
    thread = Thread()
    thread.thread_loop.close()
    with pytest.raises(ConsumerStoppedError, match="thread has ended"):
        await thread.run_inside(asyncio.Event().wait)


async def test_who_asked_may_be_cancelled() -> None:
    thread = Thread()
    thread._thread.start()
    asking = asyncio.create_task(thread.run_inside(asyncio.Event().wait))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not thread._asked
    thread.leave()


async def test_a_commit_that_the_threads_end_cuts_off_is_left_to_the_next_owner() -> None:
    thread: Any = Thread()
    thread._ended = True
    thread._ensure_consumer = lambda: None
    thread.thread_loop.close()
    consumer: Any = MicroBatchConsumer.__new__(MicroBatchConsumer)
    consumer._thread, consumer.assignment = thread, lambda: {TP("a", 0)}

    class App:
        stream_settings = StreamSettings()

    consumer.app = App()
    assert await consumer.commit_positions({TP("a", 0): 5}) is CommitResult.ENDED
