"""What Redis does when its memory is full, and whether it may have evicted rows of a partition.

A row that was evicted reads like one that never was. So where Redis evicts, a partition's header
remembers how many keys that server had evicted when all rows were known to be there; once the
number has moved, a row that is absent may have been stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from stream_infer.core.errors import RowsEvictedError

LOOK_EVERY_S = 5.0
"""Time between two looks at the policy of a Redis that does not evict: it can be changed."""
UNTOLD = "unknown"
MEMORY_SCRIPT = files("stream_infer.store").joinpath("memory.lua").read_text()
REMEDY = "set maxmemory-policy noeviction, or raise maxmemory"


@dataclass(frozen=True, slots=True)
class Memory:
    """One answer of a server: `evicted` keys since the start of the run called `run_id`."""

    policy: str
    max_bytes: int
    run_id: str
    evicted: int

    @property
    def may_evict(self) -> bool:
        """Whether this server would delete keys if its memory were bounded."""
        return self.policy not in ("noeviction", UNTOLD)

    @property
    def evicts(self) -> bool:
        """Whether this server deletes keys when its memory is full."""
        return self.may_evict and self.max_bytes > 0

    @property
    def mark(self) -> str:
        """Text that changes when keys are evicted, and when they may have been, unseen."""
        return f"{self.run_id}:{self.evicted}"

    def __str__(self) -> str:
        return (
            f"maxmemory-policy {self.policy}, maxmemory {self.max_bytes:,} bytes, "
            f"{self.evicted:,} keys evicted"
        )


UNKNOWN = Memory(UNTOLD, 0, "", 0)
"""What is known of a server that does not tell; it is trusted not to evict."""
NOT_TOLD = ("NOPERM", "can't run this command", "unknown command", "Unknown Redis command")
"""What an error says when a user may not ask, or a server does not know the question."""


def memory_command(key: str) -> tuple[str | int, ...]:
    """Return the command that asks the node of a key; `read_memory` takes its reply."""
    return ("EVAL", MEMORY_SCRIPT, 1, key)


def read_memory(reply: Sequence[bytes]) -> Memory:
    """Return what a server said."""
    policy, max_bytes, run_id, evicted = (part.decode() for part in reply)
    return Memory(policy, int(max_bytes or 0), run_id, int(evicted or 0))


def may_lack_rows(stored: dict[bytes, bytes], memory: Memory) -> bool:
    """Whether rows of a partition may be gone, by its header when it is taken over."""
    if b"discarding" in stored:
        return True
    mark = stored.get(b"evictions")
    if mark is not None:
        return mark.decode() != memory.mark
    if b"next_offset" not in stored:
        # Nothing was stored yet, or the header itself was evicted, by whatever policy was then in
        # force: rows that it left behind hold what is to be folded again.
        return memory.evicted > 0
    return memory.may_evict and memory.evicted > 0  # nobody has watched yet


class EvictionWatch:
    """Watches for evictions during one ownership, which began when Redis said `memory`."""

    def __init__(self, memory: Memory, now_s: float) -> None:
        self._mark = memory.mark
        self._watched = memory.may_evict
        self._absent = False
        self._looked_s = now_s
        self.memory = memory

    def wants(self, now_s: float) -> bool:
        """Whether a read of rows must ask for the memory, after the rows, in one round trip."""
        due = now_s - self._looked_s >= LOOK_EVERY_S
        return self._watched or (due and self.memory is not UNKNOWN)

    def unasked(self, *, absent: bool) -> None:
        """Hear of a read that did not ask."""
        self._absent |= absent

    def judge(self, reply: Sequence[bytes], *, absent: bool, now_s: float) -> None:
        """Take the answer that came with a read; `absent`: some row was not there.

        Raises RowsEvictedError when that row may have been evicted.
        """
        self.memory = read_memory(reply)
        self._looked_s = now_s
        self._watched |= self.memory.may_evict
        absent |= self._absent
        self._absent = False
        if self._watched and absent and self.memory.mark != self._mark:
            raise RowsEvictedError(f"Redis may have evicted rows ({self.memory}); {REMEDY}")
