"""What a scenario changes inside a worker under test: its clock, and how its models behave.

Armed by tests.faults.shop, thus in that process only, by variables that name a file each:
STREAM_INFER_TEST_CLOCK and STREAM_INFER_TEST_MODELS. The scenario writes to them meanwhile.
"""

import json
import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnxruntime import RunOptions

from stream_infer.models.sessions import OnnxModel, Rows, Scores

OFFSET = struct.Struct("<q")
POLL_S = 0.02
SLOW_S = 0.4
"""What a slow model takes more; less than any time limit of the battery but one."""


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Change what the environment asks for; nothing where it does not."""
    if path := environment.get("STREAM_INFER_TEST_CLOCK"):
        shift_clock(Path(path))
    if path := environment.get("STREAM_INFER_TEST_MODELS"):
        spoil_models(Path(path))


def set_clock(path: Path, offset_s: float) -> None:
    """Set a worker's clock forward or back, from the true time."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(OFFSET.pack(int(offset_s * 1e9)))


def shift_clock(path: Path) -> None:
    """Let this process read the clock that `set_clock` sets; the monotonic one stays."""
    with path.open("rb") as file:
        shared = mmap.mmap(file.fileno(), OFFSET.size, access=mmap.ACCESS_READ)
    true_ns = time.time_ns

    def time_ns() -> int:
        return true_ns() + int(OFFSET.unpack_from(shared)[0])

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


def set_models(path: Path, faults: Mapping[str, str]) -> None:
    """Let models of a worker `hang`, be `slow`, `raise` or give `nan`; the others are well."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(dict(faults)))
    draft.replace(path)


def spoil_models(path: Path) -> None:
    """Let this process' models do as `set_models` says."""
    run = OnnxModel.run

    def fault_of(name: str) -> str | None:
        found: str | None = json.loads(path.read_text()).get(name)
        return found

    def spoiled(self: OnnxModel, vectors: Rows, stop: RunOptions | None = None) -> Scores:
        fault = fault_of(self.name)
        if fault == "hang":
            # A graph that hangs between two operators: it can be stopped where it is watched.
            while fault_of(self.name) == "hang" and not (stop is not None and stop.terminate):
                time.sleep(POLL_S)
        elif fault == "slow":
            time.sleep(SLOW_S)
        elif fault == "raise":
            raise ArithmeticError("told to fail")
        elif fault == "nan":
            return np.full(len(vectors), np.nan)
        return run(self, vectors, stop)

    OnnxModel.run = spoiled  # type: ignore[method-assign]
