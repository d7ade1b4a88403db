"""Synthetic payments, a pure function of a seed: which account pays how much, as JSON records."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

Draw = Literal["uniform", "zipf", "each"]
"""At random, or each as often as any other."""
ZIPF_EXPONENT = 0.99
"""That of the Yahoo Cloud Serving Benchmark: of 5,000 accounts, the first has a tenth of all."""
MERCHANTS = 1_000
COUNTRIES = ("AT", "BR", "CH", "DE", "ES", "FR", "GB", "IT", "JP", "US")
CHUNK = 10_000
SECOND_US = 1_000_000


def account_name(number: int) -> str:
    """The key of account `number`."""
    return f"account-{number:08d}"


@dataclass(frozen=True)
class Keys:
    """How events choose their key among `count`."""

    count: int
    draw: Draw = "uniform"

    def sample(self, random: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
        """Draw int64[n] numbers of accounts."""
        if self.draw == "uniform":
            return random.integers(0, self.count, n)
        if self.draw == "each":
            return np.resize(random.permutation(self.count), n)
        weights = np.arange(1, self.count + 1, dtype=np.float64) ** -ZIPF_EXPONENT
        bounds = np.cumsum(weights) / weights.sum()
        return np.minimum(np.searchsorted(bounds, random.random(n)), self.count - 1)


def payments(
    numbers: npt.NDArray[np.int64], times_us: npt.NDArray[np.int64], seed: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value, about 160 bytes of JSON, of payments by these accounts at these times.

    `times_us` are microseconds since the epoch; they need not be in order.
    """
    random = np.random.default_rng(seed)
    for start in range(0, len(numbers), CHUNK):
        chunk = numbers[start : start + CHUNK].tolist()
        n = len(chunk)
        amounts = np.round(random.lognormal(3.5, 1.0, n), 2).tolist()
        items = random.integers(1, 10, n).tolist()
        merchants = random.integers(0, MERCHANTS, n).tolist()
        countries = random.integers(0, len(COUNTRIES), n).tolist()
        seconds, fractions = np.divmod(times_us[start : start + n], SECOND_US)
        clocks = {s: clock_of(s) for s in np.unique(seconds).tolist()}
        for number, second, fraction, amount, count, merchant, country in zip(
            chunk,
            seconds.tolist(),
            fractions.tolist(),
            amounts,
            items,
            merchants,
            countries,
            strict=True,
        ):
            account = account_name(number)
            yield (
                account.encode(),
                (
                    f'{{"type":"payment","account":"{account}",'
                    f'"at":"{clocks[second]}.{fraction:06d}Z","amount":{amount},"items":{count},'
                    f'"merchant":"merchant-{merchant:04d}","country":"{COUNTRIES[country]}","via":"card"}}'
                ).encode(),
            )


def clock_of(second: int) -> str:
    """`2026-01-31T23:59:59` of a second since the epoch."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
