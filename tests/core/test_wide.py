"""128-bit arithmetic is exact."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_infer.core import wide
from stream_infer.core.wide import Wide

MODULUS = 1 << 128
WIDE = st.integers(0, MODULUS - 1)


def pack(value: int) -> Wide:
    """Return one number as a pair of arrays."""
    return np.array([value >> 64], np.uint64), np.array([value & (2**64 - 1)], np.uint64)


def unpack(value: Wide) -> int:
    """Return the one number of a pair of arrays."""
    return (int(value[0][0]) << 64) + int(value[1][0])


@given(WIDE, WIDE, st.integers(0, 2**32 - 1))
def test_sums_differences_and_products_are_exact(a: int, b: int, count: int) -> None:
    assert unpack(wide.add(pack(a), pack(b))) == (a + b) % MODULUS
    assert unpack(wide.subtract(pack(a), pack(b))) == (a - b) % MODULUS
    product = wide.multiply(np.array([count], np.uint64), pack(a))
    assert unpack(product) == count * a % MODULUS


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(-(2**40), 2**40))
def test_squares_are_exact(large: int, small: int) -> None:
    assert unpack(wide.square(np.array([large]))) == large**2
    high, low = wide.square_limbs(np.array([small]))
    assert (int(high[0]) << 40) + int(low[0]) == small**2
    assert 0 <= low[0] < 2**40
    assert unpack(wide.from_limbs(high, low)) == small**2


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_limbs_of_any_sum_come_together(high: int, low: int) -> None:
    assert unpack(wide.from_limbs(np.array([high]), np.array([low]))) == (high << 40) + low


@given(WIDE)
def test_the_nearest_float_is_off_by_a_unit_in_the_last_place_at_most(a: int) -> None:
    assert abs(float(wide.to_float(pack(a))[0]) - float(a)) <= float(a) * 2**-52
