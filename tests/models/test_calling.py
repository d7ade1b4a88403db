"""A model holds nobody up for longer than its time limit."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stream_infer.models import calling
from stream_infer.models.calling import ROWS_IN_TURN, TimedCaller, caller
from stream_infer.models.ensemble import ModelSet, call_directly
from stream_infer.models.sessions import Rows, Scores
from tests.laws.shop import Blocks, First

VECTORS = np.arange(6, dtype=np.float32).reshape(2, 3)
ROOT = Path(__file__).parents[2]
AMPLE_S = 30.0
SHORT_S = 0.02


class Raises:
    def run(self, vectors: Rows) -> Scores:
        raise ValueError("no")


class WhichThread:
    """Scores every row by the thread that runs it."""

    def run(self, vectors: Rows) -> Scores:
        return np.full(len(vectors), float(threading.get_ident()))


@dataclass
class Releases:
    """Scores as `First` does, and releases another model."""

    blocked: Blocks

    def run(self, vectors: Rows) -> Scores:
        self.blocked.released.set()
        return First().run(vectors)


@contextmanager
def blocking() -> Iterator[Blocks]:
    """A model that blocks; released at the end whatever happens."""
    model = Blocks()
    try:
        yield model
    finally:
        model.released.set()


def recovered(call: TimedCaller, model: Blocks) -> Scores:
    """The scores of the first call that is answered again."""
    deadline_s = time.monotonic() + AMPLE_S
    while True:
        try:
            return call({"slow": model}, VECTORS)[0]()
        except TimeoutError:
            assert time.monotonic() < deadline_s


def test_without_a_limit_models_run_in_the_callers_thread() -> None:
    assert caller(0) is call_directly
    limited = caller(1_500)
    assert isinstance(limited, TimedCaller)
    assert limited.timeout_s == 1.5


def test_scores_within_the_limit_are_those_of_the_model() -> None:
    call = TimedCaller(AMPLE_S)
    direct = ModelSet({"a": First(), "b": Raises()}).run(VECTORS)
    limited = ModelSet({"a": First(), "b": Raises()}, call).run(VECTORS)
    assert limited.scores.tobytes() == direct.scores.tobytes()
    assert limited.failures == direct.failures == {"b": "model:b:error"}
    assert limited.details == direct.details


def test_models_of_a_small_batch_share_a_thread_and_those_of_a_large_one_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calling, "TURN_MAX_S", AMPLE_S)
    models = ModelSet({"a": WhichThread(), "b": WhichThread()}, TimedCaller(AMPLE_S))
    for rows, threads in ((ROWS_IN_TURN, 1), (ROWS_IN_TURN + 1, 2)):
        vectors = np.zeros((rows, 3), np.float32)
        first, second = models.run(vectors).scores, models.run(vectors).scores
        np.testing.assert_array_equal(first, second)
        assert len({threading.get_ident(), *first[0].tolist()}) == 1 + threads


async def test_the_loop_goes_on_while_models_of_a_large_batch_run() -> None:
    vectors = np.zeros((ROWS_IN_TURN + 1, 3), np.float32)
    with blocking() as slow:
        running = ModelSet({"slow": slow, "good": First()}, TimedCaller(AMPLE_S)).begin(vectors)
        ended = asyncio.create_task(running.ended())
        await asyncio.to_thread(slow.entered.wait, AMPLE_S)
        assert not ended.done()
        slow.released.set()
        await ended
        assert running.scores().failures == {}


async def test_the_loop_waits_for_an_overdue_model_no_longer_than_its_limit() -> None:
    vectors = np.zeros((ROWS_IN_TURN + 1, 3), np.float32)
    with blocking() as slow:
        running = ModelSet({"slow": slow, "good": First()}, TimedCaller(SHORT_S)).begin(vectors)
        await running.ended()
        assert running.scores().failures == {"slow": "model:slow:timeout"}


def test_a_model_that_takes_its_time_lets_those_behind_it_begin() -> None:
    with blocking() as ahead:
        models = ModelSet({"ahead": ahead, "behind": Releases(ahead)}, TimedCaller(AMPLE_S))
        result = models.run(VECTORS)
    np.testing.assert_array_equal(result.scores, [[0, 0], [3, 3]])
    assert result.failures == {}


@pytest.mark.parametrize("order", [("a", "b", "good"), ("good", "a", "b"), ("a", "good", "b")])
def test_several_that_hang_run_at_the_same_time_and_the_others_answer(
    order: tuple[str, ...],
) -> None:
    with blocking() as a, blocking() as b:
        known = {"a": a, "b": b, "good": First()}
        call = TimedCaller(0.5)
        models = ModelSet({name: known[name] for name in order}, call)
        result = models.run(VECTORS)
        assert set(result.failures) == {"a", "b"}
        assert a.entered.is_set()
        assert b.entered.is_set()
        np.testing.assert_array_equal(result.scores[:, order.index("good")], [0, 3])


def test_while_a_model_hangs_the_others_of_a_small_batch_share_another_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calling, "TURN_MAX_S", AMPLE_S)
    with blocking() as slow:
        models = ModelSet({"slow": slow, "a": WhichThread(), "b": WhichThread()}, TimedCaller(0.5))
        models.run(VECTORS)
        scores = models.run(VECTORS).scores
        assert scores[0, 1] == scores[0, 2]
        assert np.isnan(scores[0, 0])


def test_an_overdue_model_is_left_out_until_it_returns() -> None:
    with blocking() as slow:
        call = TimedCaller(SHORT_S)
        models = ModelSet({"slow": slow, "good": First()}, call)
        for _ in range(3):
            result = models.run(VECTORS)
            assert result.failures["slow"] == "model:slow:timeout"
            assert np.isnan(result.scores[:, 0]).all()
        assert "still runs" in result.details["slow"]
        assert slow.calls == 1
        slow.released.set()
        np.testing.assert_array_equal(recovered(call, slow), [0, 3])


def test_a_late_answer_is_not_taken_for_that_of_another_call() -> None:
    with blocking() as slow:
        call = TimedCaller(SHORT_S)
        with pytest.raises(TimeoutError, match="not done within 20 ms"):
            call({"slow": slow}, VECTORS)[0]()
        slow.released.set()
        deadline_s = time.monotonic() + AMPLE_S
        while True:
            try:
                scores = call({"slow": slow}, VECTORS + 100)[0]()
                break
            except TimeoutError:
                assert time.monotonic() < deadline_s
        np.testing.assert_array_equal(scores, [100, 103])


def test_calls_of_one_model_at_the_same_time_each_get_their_own_answer() -> None:
    with blocking() as slow:
        call = TimedCaller(AMPLE_S)
        first, second = call({"slow": slow}, VECTORS)[0], call({"slow": slow}, VECTORS + 100)[0]
        slow.released.set()
        np.testing.assert_array_equal(second(), [100, 103])
        np.testing.assert_array_equal(first(), [0, 3])


def test_models_begun_together_run_at_the_same_time() -> None:
    with blocking() as a, blocking() as b:
        call = TimedCaller(AMPLE_S)
        begun = [call({"a": a}, VECTORS)[0], call({"b": b}, VECTORS)[0]]
        for model in (a, b):
            assert model.entered.wait(AMPLE_S)
        for model in (a, b):
            model.released.set()
        for finish in begun:
            np.testing.assert_array_equal(finish(), [0, 3])


def test_threads_end_with_what_calls_them() -> None:
    call = TimedCaller(AMPLE_S)
    call({"known by this name": First()}, VECTORS)[0]()
    (thread,) = (t for t in threading.enumerate() if t.name == "model known by this name")
    del call
    gc.collect()
    thread.join(AMPLE_S)
    assert not thread.is_alive()


def test_a_thread_that_finds_no_memory_to_begin_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = TimedCaller(AMPLE_S)
    monkeypatch.setattr(calling, "BEGIN_MAX_S", SHORT_S)
    monkeypatch.setattr(threading, "_start_new_thread", lambda run, arguments: None)
    with pytest.raises(MemoryError, match="did not begin"):
        call({"a": First()}, VECTORS)


@pytest.mark.parametrize(("released", "output"), [(False, b""), (True, b"taken down\n")])
def test_a_process_with_an_overdue_call_ends_without_taking_the_interpreter_down(
    released: bool, output: bytes
) -> None:
    program = f"""
import atexit
import sys
import numpy as np
from stream_infer.models.calling import TimedCaller, exit_code
from tests.laws.shop import Blocks
atexit.register(print, "taken down")
model = Blocks()
if {released}:
    model.released.set()
call = TimedCaller(30.0 if {released} else 0.01)
try:
    call({{"slow": model}}, np.zeros((1, 1), np.float32))[0]()
except TimeoutError:
    pass
del call
sys.exit(exit_code(4))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        timeout=60,
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert (ended.returncode, ended.stdout) == (4, output)


def test_a_hanging_model_does_not_keep_the_process_from_ending() -> None:
    program = """
import numpy as np
from stream_infer.models.calling import TimedCaller
from tests.laws.shop import Blocks
try:
    TimedCaller(0.01)({"slow": Blocks()}, np.zeros((1, 1), np.float32))[0]()
except TimeoutError:
    raise SystemExit(3)
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, cwd=ROOT)
    assert ended.returncode == 3
