"""What a worker writes to its log: one line a record, and a trace for defects only."""

import asyncio
import logging
import sys

import pytest

from stream_infer.core.errors import StateError
from stream_infer.stream.worker import OneLine


def written(error: BaseException) -> str:
    try:
        raise error
    except BaseException:
        found = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "it %s", ("failed",), found)
    return OneLine().format(record)


@pytest.mark.parametrize(
    "error", [StateError("no such state"), asyncio.CancelledError(), MemoryError()]
)
def test_what_is_no_defect_takes_one_line(error: BaseException) -> None:
    assert written(error).endswith("ERROR x: it failed")


def test_a_defect_shows_its_trace() -> None:
    text = written(ValueError("broken"))
    assert "it failed\nTraceback" in text
    assert text.endswith("ValueError: broken")
