"""Comparing stored rows: two runs of the same log, and what can be read without the kernel."""

import json
import struct
from collections.abc import Mapping
from typing import Any

from tests.faults.fold import Expected, Folded

UNSTEADY = ("predicted_at", "latency_ms")
"""What a repeat may say differently: when it was computed."""
STATE_UNAVAILABLE = "state_unavailable"
"""What a prediction says that was made without rows."""
OF_MODELS = ("score", "scores", "degraded")
SCORE_BYTES = slice(24, 32)
"""Where a row that waits for a label has the prediction's score."""


def without_rows(said: Mapping[str, Any]) -> dict[str, Expected]:
    """Return the features that a prediction without rows may have: those of its event alone."""
    known = said["scores"]["amount"]
    return {name: Expected(known if name == "amount" else None) for name in said["scores"]}


def plain(
    key: str,
    value: Any,
    topology: str,
    *,
    scored: bool = True,
    unsteady: tuple[str, ...] = (),
) -> Any:
    """Return what must be equal in two runs of the same log, but for scores if not `scored`."""
    if ":@labels:" in f":{key}" and value is not None and not scored:
        row = bytearray(value)
        row[SCORE_BYTES] = bytes(8)
        return bytes(row)
    if ":@results:" in f":{key}" and value is not None:
        said = json.loads(value)
        left_out = (*UNSTEADY, *unsteady, "topology")
        said = {name: part for name, part in said.items() if name not in left_out}
        if not scored:
            said = {name: part for name, part in said.items() if name not in OF_MODELS}
        said["prediction_id"] = said["prediction_id"].removeprefix(topology)
        return said
    return value


def folded_differently(number: int, part: Folded, length: int, rows: Mapping[str, Any]) -> set[str]:
    """Compare what can be read of the stored rows without the kernel: header and event ids."""
    different = set()
    meta = rows.get(f"{number}}}:meta", {})
    header = int(meta.get(b"next_offset", 0)), int(meta.get(b"stream_time_us", 0))
    if header != (length, part.newest_us):
        different.add(f"{number}}}:meta")
    prefix = f"{number}}}:@ids:"
    stored = {key.removeprefix(prefix): row for key, row in rows.items() if key.startswith(prefix)}
    for identity in stored.keys() | part.seen_us.keys():
        row = stored.get(identity)
        if row is None or struct.unpack("<q", row)[0] != part.seen_us.get(identity):
            different.add(prefix + identity)
    return different
