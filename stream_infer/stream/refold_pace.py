"""How soon a partition may be folded anew when Redis keeps evicting its rows."""

from stream_infer.core.errors import EvictingError
from stream_infer.store.eviction import REMEDY, Memory

HOLD_MIN_S = 10.0
HOLD_MAX_S = 600.0


class RefoldPace:
    """Lets a partition begin anew at once, then after pauses that double, while Redis evicts.

    Times are passed in, in monotonic seconds.
    """

    def __init__(self) -> None:
        self._begun: dict[int, tuple[float, float]] = {}

    def begin(self, partition: int, memory: Memory, now_s: float) -> None:
        """Note that a partition begins anew; raises EvictingError when it is too early for that."""
        hold_s, begun_s = self._begun.get(partition, (0.0, now_s))
        if memory.evicts and now_s - begun_s < hold_s:
            raise EvictingError(
                f"partition {partition} is paused: Redis keeps evicting rows ({memory}); {REMEDY}"
            )
        calm = now_s - begun_s > 2 * hold_s
        hold_s = HOLD_MIN_S if calm else min(2 * hold_s, HOLD_MAX_S)
        self._begun[partition] = max(hold_s, HOLD_MIN_S), now_s
