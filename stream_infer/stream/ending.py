"""The end of a process at once: where its memory is no longer to be trusted, or there is none."""

import logging
import mmap
import os

log = logging.getLogger("stream_infer.stream")
EXIT_BROKEN = 70
NO_THREAD = "can't start new thread"
"""What Python says then."""

_reserve = mmap.mmap(-1, 4 << 20)
"""Let go of so that there is room to say that there is none; untouched until then."""


def out_of_memory(error: MemoryError) -> str:
    """Return one line for an end by want of memory, with what helps."""
    what = " ".join(str(error).split())
    return (
        f"out of memory{f' ({what})' if what else ''}: give the worker more, or lower "
        "STREAM_INFER_STATE_ROWS_MAX or STREAM_INFER_BATCH_RECORDS_MAX"
    )


def want_of_memory(error: BaseException | None) -> MemoryError | None:
    """Return the want of memory that an error comes from, None where it has another cause.

    A thread that cannot be started finds no room for its stack.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError):
            return error
        if isinstance(error, RuntimeError) and str(error) == NO_THREAD:
            return MemoryError(NO_THREAD)
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def end_process(error: Exception) -> None:
    """End this process at once: its rows are no longer a fold of the log."""
    try:
        if (lack := want_of_memory(error)) is not None:
            _reserve.close()
            log.critical("%s; nothing is lost, the next worker goes on", out_of_memory(lack))
        else:
            log.critical("a micro-batch failed after the state had moved; ending", exc_info=error)
        logging.shutdown()
    finally:  # Without memory, even saying so may fail.
        os._exit(EXIT_BROKEN)


def end_without_memory(error: BaseException | None) -> None:
    """End this process at once where an error comes from want of memory.

    Whoever lacked memory may have left work half done, and an orderly end needs memory, too.
    """
    if (lack := want_of_memory(error)) is not None:
        end_process(lack)
