"""What is said of models that fail: the first time of each kind, and then not too often."""

import logging
import time
from collections.abc import Callable, Mapping

log = logging.getLogger("stream_infer.stream")
REPEAT_S = 60.0


class FailureLog:
    """Logs failures of models, each kind at once and then at most every `repeat_s` seconds."""

    def __init__(
        self, repeat_s: float = REPEAT_S, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._repeat_s = repeat_s
        self._now_s = now_s
        self._logged_s: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def note(self, topology: str, failures: Mapping[str, str], details: Mapping[str, str]) -> None:
        """Log reasons by model, with what is known of them, where it is time to."""
        now_s = self._now_s()
        for model, reason in failures.items():
            logged_s = self._logged_s.get(reason)
            if logged_s is not None and now_s - logged_s < self._repeat_s:
                self._silent[reason] = self._silent.get(reason, 0) + 1
                continue
            self._logged_s[reason] = now_s
            silent = self._silent.pop(reason, 0)
            log.warning(
                "topology %r goes on without %s: %s%s",
                topology,
                reason,
                details.get(model, "not a finite number for some rows"),
                f" ({silent:,} more since the last such line)" if silent else "",
            )
