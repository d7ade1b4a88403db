"""What a server's own metrics say of its requests: how long accepted ones took, once it read them.

A caller's time begins when a request is due. What lies between the two is the caller's own lateness
and the time that a request waits in a connection before the server reads it.
"""

import re
from collections.abc import Mapping
from itertools import pairwise

from benchmarks.wire import ask, connect

_ASK = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
_BUCKET = re.compile(
    r'^stream_infer_http_request_seconds_bucket\{le="([^"]+)",route="[^"]*/predict"\} (\S+)$', re.M
)
_SHED = re.compile(r"^stream_infer_http_shed_requests_total (\S+)$", re.M)
Counts = Mapping[float, float]
"""Requests that took at most so many seconds, of those not refused."""


def answered(port: int) -> Counts:
    """Ask a server for its counts since it began; raises ConnectionError where it does not say."""
    with connect(port) as connection:
        status, body = ask(connection, _ASK)
    if status != 200:
        raise ConnectionError(f"/metrics answered {status}")
    return counts_of(body.decode())


def counts_of(page: str) -> Counts:
    """Read counts from a page of metrics.

    >>> line = 'stream_infer_http_request_seconds_bucket{le="%s",route="/p/predict"} %s\\n'
    >>> page = line % ("0.001", 5) + line % ("+Inf", 7) + "stream_infer_http_shed_requests_total 4"
    >>> counts_of(page)
    {0.001: 1.0, inf: 3.0}
    """
    # Refusals are the shortest: they take no time once they are read.
    shed = sum(map(float, _SHED.findall(page)))
    return {float(le): max(0.0, float(n) - shed) for le, n in _BUCKET.findall(page)}


def quantile_ms(before: Counts, after: Counts, q: float) -> float | None:
    """Estimate a quantile of what was answered between, within the bucket that it is in.

    >>> quantile_ms({}, {0.001: 0.0, 0.002: 50.0, 0.004: 100.0}, 0.75)
    3.0
    """
    bounds = sorted(after)
    counts = [(0.0, 0.0), *((bound, after[bound] - before.get(bound, 0.0)) for bound in bounds)]
    target = q * counts[-1][1]
    if not target:
        return None
    for (low, fewer), (high, more) in pairwise(counts):
        if more >= target and more > fewer:
            high = low if high == float("inf") else high
            return 1e3 * (low + (high - low) * (target - fewer) / (more - fewer))
    return None
