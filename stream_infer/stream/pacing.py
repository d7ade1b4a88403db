"""How long the broker may gather records before it answers a fetch, by the load."""

from stream_infer.stream.settings import StreamSettings

WINDOW_S = 0.25
"""Rates are judged over windows of this length."""
RELAX_BELOW = 0.7
"""Pacing ends below this part of the rate at which it begins, so that it does not flutter."""


class Pacer:
    """Below the rate every record is fetched at once; above it the broker paces the fetches.

    A fetch costs about a millisecond whatever it brings; answered for every few records, fetches
    would cost more than the work. Takes the time as an argument, in monotonic seconds.
    """

    def __init__(self, settings: StreamSettings, now_s: float) -> None:
        self._settings = settings
        self._since_s = now_s
        self._count = 0
        self.paced = False

    def fetched(self, records: int, now_s: float) -> bool:
        """Count what a fetch brought; return whether `min_bytes` and `max_wait_ms` changed."""
        self._count += records
        elapsed_s = now_s - self._since_s
        if elapsed_s < WINDOW_S:
            return False
        rate = self._count / elapsed_s
        self._since_s, self._count = now_s, 0
        threshold = self._settings.paced_above_records_per_s
        paced = rate > (threshold * RELAX_BELOW if self.paced else threshold)
        changed = paced is not self.paced
        self.paced = paced
        return changed

    @property
    def min_bytes(self) -> int:
        settings = self._settings
        return settings.paced_fetch_min_bytes if self.paced else settings.fetch_min_bytes

    @property
    def max_wait_ms(self) -> int:
        settings = self._settings
        return settings.paced_fetch_max_wait_ms if self.paced else settings.fetch_max_wait_ms
