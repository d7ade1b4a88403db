"""The demo's child processes: started with logs of their own, watched, stopped in order."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stream_infer.core.errors import StreamInferError
from stream_infer.demo.environment import environment
from stream_infer.processes import Guarded
from stream_infer.settings import Settings

LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class Child:
    """A child process and the file of its output."""

    name: str
    process: Guarded
    log: Path

    @property
    def last_lines(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (it wrote nothing)"


class Children:
    """Programs of ours, run as child processes that end with this one; stopped newest first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Child] = []

    def start(self, name: str, arguments: Sequence[str], settings: Settings) -> Child:
        """Run `stream-infer ARGUMENTS`; its output goes to NAME.log."""
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / f"{name}.log"
        with path.open("wb") as log:
            process = Guarded(
                [sys.executable, "-m", "stream_infer.cli", *arguments],
                stdout=log,
                stderr=log,
                env=environment(settings),
                grace_s=settings.drain_timeout_s + 5.0,
            )
        child = Child(name, process, path)
        self._running.append(child)
        return child

    def check(self) -> None:
        """Raise StreamInferError, with its last lines, where a child has ended."""
        for child in self._running:
            code = child.process.poll()
            if code is not None:
                raise ChildEndedError(child, code)

    def stop(self) -> dict[str, int]:
        """Stop them, the last one started first; their exit codes."""
        codes = {}
        while self._running:
            child = self._running.pop()
            codes[child.name] = child.process.stop()
        return codes


class ChildEndedError(StreamInferError):
    """A child process ended by itself: `child`, with exit code `code`."""

    def __init__(self, child: Child, code: int) -> None:
        super().__init__(
            f"the {child.name} ended with exit code {code}; the end of {child.log}:\n"
            f"{child.last_lines}"
        )
        self.child = child
        self.code = code
