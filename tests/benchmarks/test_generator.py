"""The synthetic payments: what is drawn, and how large it is."""

import msgspec
import numpy as np

from benchmarks.generator import Keys, payments
from benchmarks.standard import Payment


def test_the_same_seed_gives_the_same_records() -> None:
    numbers, times_us = np.arange(50), np.arange(50) * 1_000_003
    first = list(payments(numbers, times_us, seed=4))
    assert first == list(payments(numbers, times_us, seed=4))
    assert first != list(payments(numbers, times_us, seed=5))


def test_records_are_payments_of_about_160_bytes() -> None:
    numbers = Keys(1_000_000).sample(np.random.default_rng(1), 2_000)
    times_us = 1_700_000_000_123_456 + np.arange(2_000) * 999
    made = list(payments(numbers, times_us, seed=1))
    decoded = [msgspec.json.decode(value, type=Payment) for _, value in made]
    assert [event.account.encode() for event in decoded] == [key for key, _ in made]
    assert [round(event.at.timestamp() * 1e6) for event in decoded] == times_us.tolist()
    assert 150 <= np.mean([len(value) for _, value in made]) <= 170


def test_zipf_prefers_few_keys_and_uniform_none() -> None:
    random = np.random.default_rng(2)
    zipf = np.bincount(Keys(5_000, "zipf").sample(random, 100_000), minlength=5_000)
    uniform = np.bincount(Keys(5_000, "uniform").sample(random, 100_000), minlength=5_000)
    assert 0.09 < zipf[0] / 100_000 < 0.13
    assert zipf[0] > 50 * zipf[1_000:].mean()
    assert uniform.max() < 3 * uniform.mean()
    assert len(zipf) == len(uniform) == 5_000
