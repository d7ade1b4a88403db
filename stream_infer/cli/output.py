"""What commands print: one JSON object for programs, or text for people; errors in one line."""

import logging
import sys
from typing import Any, NoReturn

import typer

PROGRAM = "stream-infer"
FAILED, USAGE = 1, 2


def emit_json(payload: Any) -> None:
    """Write one JSON object and a line end to standard output; NaN becomes null."""
    import msgspec  # Late, as everything in the command line: help must come at once.

    sys.stdout.buffer.write(msgspec.json.encode(payload) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Write a line for people to standard error."""
    print(text, file=sys.stderr, flush=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with one line on standard error."""
    say(f"{PROGRAM}: {' '.join(message.split())}")
    raise typer.Exit(code)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send log lines of a long-running command to standard error, libraries' from warnings up."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("stream_infer").setLevel(level)


def keep_libraries_quiet() -> None:
    """Silence the libraries' own log in a short command: it reports failures by itself."""
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
