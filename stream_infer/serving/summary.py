"""One second of results in a few numbers, exact however many of the results a follower sees."""

import msgspec
import numpy as np


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Results since the last summary; `at_s` is the time it was made, seconds since the epoch.

    Latency runs from a record's broker timestamp to its prediction. `error_squares` is the sum
    of squared errors, so that a reader can put several summaries together.
    """

    at_s: float
    predictions: int
    outcomes: int
    degraded: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    error_absolutes: float
    error_squares: float


class _Latency(msgspec.Struct, frozen=True, gc=False):
    prediction_id: str
    latency_ms: float | None = None
    degraded: tuple[str, ...] = ()


class _Error(msgspec.Struct, frozen=True, gc=False):
    outcome_id: str
    error: float


_latency = msgspec.json.Decoder(_Latency)
_error = msgspec.json.Decoder(_Error)


class Tally:
    """Counts results until they are summed up."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._predictions = self._outcomes = self._degraded = 0
        self._latencies_ms: list[float] = []
        self._absolutes = self._squares = 0.0

    def prediction(self, value: bytes) -> bool:
        """Count an encoded prediction; False where it is none."""
        try:
            found = _latency.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        self._predictions += 1
        self._degraded += bool(found.degraded)
        if found.latency_ms is not None:
            self._latencies_ms.append(found.latency_ms)
        return True

    def outcome(self, value: bytes) -> bool:
        """Count an encoded outcome; False where it is none."""
        try:
            error = _error.decode(value).error
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        self._outcomes += 1
        self._absolutes += abs(error)
        self._squares += error * error
        return True

    def take(self, at_s: float) -> Summary:
        """Return the summary, and begin a new one."""
        p50, p99 = (
            np.percentile(self._latencies_ms, (50, 99)).round(3).tolist()
            if self._latencies_ms
            else (None, None)
        )
        summary = Summary(
            at_s=at_s,
            predictions=self._predictions,
            outcomes=self._outcomes,
            degraded=self._degraded,
            latency_p50_ms=p50,
            latency_p99_ms=p99,
            error_absolutes=self._absolutes,
            error_squares=self._squares,
        )
        self._clear()
        return summary
