"""Named points at which a test may end or freeze this process; unasked, they do nothing.

`STREAM_INFER_FAILPOINTS="state_written=kill@3,revoking=stop"` kills the process when it reaches
`state_written` for the third time, and freezes it when it first reaches `revoking`.
"""

import os
import signal

from stream_infer.core.errors import SettingsError, did_you_mean

VARIABLE = "STREAM_INFER_FAILPOINTS"
POINTS = (
    "acquiring",
    "acquired",
    "folded",
    "submitted",
    "in_transaction",
    "transaction_ending",
    "transaction_committed",
    "acknowledged",
    "state_unwritten",
    "state_written",
    "committing",
    "committed",
    "revoking",
)
"""In the order of a partition's life: taken over between two partitions; taken over; folded in
memory; results handed to the producer; exactly once only: results sent in a transaction; before it
is committed; after it; results acknowledged by Kafka; before rows are written; after it; at least
once only: before and after a commit of offsets; between two partitions that are given back."""
ONLY_AT_LEAST_ONCE = ("committing", "committed")
ONLY_EXACTLY_ONCE = ("in_transaction", "transaction_ending", "transaction_committed")
ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def parse(text: str) -> dict[str, tuple[signal.Signals, int]]:
    """Return, by point, the signal and at which visit.

    Raises SettingsError for an unknown point or action.

    >>> parse("folded=kill@3")
    {'folded': (<Signals.SIGKILL: 9>, 3)}
    """
    found: dict[str, tuple[signal.Signals, int]] = {}
    for part in filter(None, text.split(",")):
        point, _, rest = part.partition("=")
        action, _, visit = rest.partition("@")
        if point not in POINTS:
            raise SettingsError(f"{VARIABLE}: failpoint {point!r}{did_you_mean(point, POINTS)}")
        if action not in ACTIONS or not (visit or "1").isdigit():
            raise SettingsError(f"{VARIABLE}: {part!r} is not POINT=kill|stop[@VISIT]")
        found[point] = ACTIONS[action], int(visit or "1")
    return found


_armed = parse(os.environ.get(VARIABLE, ""))
_visits = dict.fromkeys(_armed, 0)


def failpoint(name: str) -> None:
    """Note that the process is here."""
    if _armed and name in _armed:
        _visits[name] += 1
        action, visit = _armed[name]
        if _visits[name] == visit:
            os.kill(os.getpid(), action)
