"""Units: problems are divided by powers of two, which rounds nothing, before anything is squared or
compared with a tolerance."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray

__all__ = ["binary_exponent"]


def binary_exponent(*arrays: FloatArray | float) -> int:
    """Return the e for which the largest absolute entry is in [2^(e-1), 2^e); 0 if all vanish.

    ``np.ldexp(array, -e)`` has entries of order one."""
    largest = max(float(np.abs(array).max(initial=0.0)) for array in arrays)
    return int(np.frexp(largest)[1]) if largest else 0
