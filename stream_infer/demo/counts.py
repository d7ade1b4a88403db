"""The worker's own counts, read from its metrics pages."""

import asyncio
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families

PAGE_TIMEOUT_S = 5.0
ENDS = {
    "prediction": "predictions",
    "update": "updates",
    "dead_letter": "dead_letters",
    "late": "late",
    "duplicate": "duplicates",
    "replayed": "replayed",
}


async def read_counts(ports: Sequence[int]) -> Counter[str] | None:
    """Return `consumed`, each end that events can have, and `lag`, summed over worker processes.

    None while one of the pages does not answer.
    """
    try:
        pages = await asyncio.gather(*(asyncio.to_thread(_page, port) for port in ports))
    except (urllib.error.URLError, OSError):
        return None
    counts: Counter[str] = Counter(dict.fromkeys(("consumed", *ENDS.values(), "lag"), 0))
    for page in pages:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "stream_infer_consumed_events_total":
                    counts["consumed"] += int(sample.value)
                elif sample.name == "stream_infer_events_total":
                    counts[ENDS[sample.labels["end"]]] += int(sample.value)
                elif sample.name == "stream_infer_stream_lag_records":
                    counts["lag"] += int(sample.value)
    return counts


def conserved(counts: Counter[str]) -> bool:
    """Whether each consumed event has exactly one end."""
    return counts["consumed"] == sum(counts[end] for end in ENDS.values())


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PAGE_TIMEOUT_S) as page:
        body: bytes = page.read()
    return body.decode()
