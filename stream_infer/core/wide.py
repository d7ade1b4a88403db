"""Exact arithmetic on arrays of unsigned 128-bit integers, as pairs (high, low) of uint64."""

from typing import TypeAlias

import numpy as np

from stream_infer.core.arrays import Floats, Ints, Words

Wide: TypeAlias = tuple[Words, Words]
HALF = np.uint64(32)
HALF_MASK = np.uint64(0xFFFFFFFF)
LIMB_BITS = 40
LIMB_MASK = (1 << LIMB_BITS) - 1


def add(a: Wide, b: Wide) -> Wide:
    """Return a + b, modulo 2**128."""
    low = a[1] + b[1]
    return a[0] + b[0] + (low < b[1]), low


def subtract(a: Wide, b: Wide) -> Wide:
    """Return a - b, modulo 2**128."""
    return a[0] - b[0] - (a[1] < b[1]), a[1] - b[1]


def square_limbs(x: Ints) -> tuple[Ints, Ints]:
    """Return x * x as (high, low) limbs of 40 bits, each int64 and below 2**40; |x| <= 2**40."""
    size = np.abs(x)
    top, bottom = size >> 20, size & 0xFFFFF
    rest = ((top * bottom) << 21) + bottom * bottom
    return top * top + (rest >> LIMB_BITS), rest & LIMB_MASK


def from_limbs(high: Ints, low: Ints) -> Wide:
    """Return high * 2**40 + low; both are int64 and not negative."""
    upper, lower = high.view(np.uint64), low.view(np.uint64)
    shifted = upper << np.uint64(LIMB_BITS)
    total = shifted + lower
    return (upper >> np.uint64(64 - LIMB_BITS)) + (total < lower), total


def multiply(count: Words, wide: Wide) -> Wide:
    """Return count * wide, modulo 2**128; count < 2**32."""
    lower = count * (wide[1] & HALF_MASK)
    upper = count * (wide[1] >> HALF)
    low = lower + (upper << HALF)
    return count * wide[0] + (upper >> HALF) + (low < lower), low


def square(x: Ints) -> Wide:
    """Return x * x; |x| < 2**63."""
    size = np.abs(x).view(np.uint64)
    top, bottom = size >> HALF, size & HALF_MASK
    cross = (top * bottom) << np.uint64(1)
    lower = bottom * bottom
    low = lower + (cross << HALF)
    return top * top + (cross >> HALF) + (low < lower), low


def to_float(wide: Wide) -> Floats:
    """Return the nearest float64, give or take one unit in the last place."""
    return wide[0].astype(np.float64) * 2.0**64 + wide[1].astype(np.float64)
