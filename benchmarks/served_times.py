"""What a server's own metrics say of its requests: how long accepted ones took, once it read them.

A caller's time begins when a request is due. What lies between the two is the caller's own lateness
and the time that a request waits in a connection before the server reads it.
"""

from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.wire import ask, connect
from stream_infer.monitoring.metrics import Histogram

_ASK = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
_BUCKET = "stream_infer_http_request_seconds_bucket"
_SHED = "stream_infer_http_shed_requests_total"
Counts = dict[float, float]
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
    samples = [one for family in text_string_to_metric_families(page) for one in family.samples]
    # Refusals are the shortest: they take no time once they are read.
    shed = sum(one.value for one in samples if one.name == _SHED)
    return {
        float(one.labels["le"]): max(0.0, float(one.value) - shed)
        for one in samples
        if one.name == _BUCKET and one.labels["route"].endswith("/predict")
    }


def times_between(before: Counts, after: Counts) -> Histogram:
    """Return how long the requests took that were answered between, in seconds.

    >>> times_between({}, {0.001: 0.0, 0.002: 50.0, 0.004: 100.0}).quantile(0.75)
    0.003
    """
    bounds = sorted(after)
    below = [0, *(round(after[bound] - before.get(bound, 0.0)) for bound in bounds)]
    times = Histogram(tuple(bound for bound in bounds if bound != float("inf")))
    for place, (fewer, more) in enumerate(pairwise(below)):
        times.counts[place] = more - fewer
    return times
