"""What a long-running program does when it is told to stop before it has begun."""

import os
import signal
from types import FrameType

from stream_infer.cli.output import PROGRAM


def end_at_once_when_told() -> None:
    """Let SIGTERM and SIGINT end this process with code 0, until its own handlers take over.

    Nothing is in flight yet; importing and loading models leave nothing to put away.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    try:
        os.write(2, f"{PROGRAM}: told to stop before it had started\n".encode())
    finally:
        os._exit(0)
