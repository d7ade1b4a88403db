"""Names of the array types that travel through the core, and how some of n things are chosen."""

from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Words: TypeAlias = npt.NDArray[np.uint64]
Octets: TypeAlias = npt.NDArray[np.uint8]
Choice: TypeAlias = Bools | None
"""Which of n things are chosen; None: all of them, which is how nearly every micro-batch goes."""

FEW = 24
"""Up to so many numbers are gone through one by one: numpy's calls would cost more than that."""

D = TypeVar("D", bound=np.generic)


def choice(mask: Bools) -> Choice:
    """Return what `mask` bool[n] chooses."""
    return None if np.count_nonzero(mask) == mask.size else mask


def chosen(values: npt.NDArray[D], which: Choice) -> npt.NDArray[D]:
    """Return the chosen ones of n values or rows; all of them are `values` itself."""
    return values if which is None else values[which]


def both(one: Choice, other: Choice) -> Choice:
    """Return what is in both choices."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def left_out(values: npt.NDArray[D], which: Choice) -> npt.NDArray[D]:
    """Return the values or rows that are not chosen."""
    return values[:0] if which is None else values[~which]
