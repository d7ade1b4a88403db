"""Python's garbage collector, kept out of the tail of the latency."""

import gc

YOUNG_MAX = 20_000
"""New objects before the youngest are looked at; the default of 700 does so in every batch."""


def settle() -> None:
    """Collect once, look at what is alive now no more, and at the rest less often.

    To be called when a program has loaded what it keeps.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 50)
