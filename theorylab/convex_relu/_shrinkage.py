"""What weight decay on the layers of a deep linear network does to a singular value."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.numerics.results import result

__all__ = ["ShrinkageJump", "shrink_singular_values", "shrinkage_jump"]


@result
class ShrinkageJump:
    """Where weight decay sends a singular value to zero, and how far it jumps.

    Attributes
    ----------
    threshold
        Singular values of the data up to here are fitted by zero.
    height
        Fitted value just above the threshold; 0 if shrinkage is continuous.
    """

    threshold: float
    height: float


def shrink_singular_values(sigma: ArrayLike, beta: float, *, depth: int) -> FloatArray:
    r"""Return the minimizer of ``1/2 (s - sigma)^2 + beta L/2 s^(2/L)`` over ``s >= 0``, entrywise.

    This is what weight decay ``beta/2 sum ||W_l||_F^2`` does to each singular value of ``X^T Y``
    when a linear network of depth L is fitted with squared loss and ``X^T X = I``.

    Parameters
    ----------
    sigma
        (r,) singular values, in any order.
    beta
        Weight decay, ``>= 0``.
    depth
        Number of layers ``L >= 2``; soft thresholding at ``beta`` for 2, a jump
        (:func:`shrinkage_jump`) from 3 on.

    Returns
    -------
    numpy.ndarray
        (r,) fitted singular values; exactly at the threshold the smaller minimizer, 0.

    Notes
    -----
    Derived. Above the threshold the minimizer is the largest root of ``s - sigma + beta s^(2/L -
    1)``, a convex function, to which Newton's method from ``s = sigma`` descends monotonically.

    Examples
    --------
    >>> from theorylab.convex_relu import shrink_singular_values
    >>> shrink_singular_values([0.5, 3.0], 1.0, depth=2)
    array([0., 2.])
    """
    sigma = as_array(sigma, "sigma", ndim=1, nonnegative=True)
    beta = as_real(beta, "beta", minimum=0)
    depth = as_count(depth, "depth", minimum=2)
    if depth == 2:
        return np.maximum(sigma - beta, 0.0)
    kept = sigma > shrinkage_jump(beta, depth=depth).threshold
    target = sigma[kept]
    s = target.copy()
    power = 2 / depth - 1
    while s.size:
        decay = beta * s**power
        step = (s - target + decay) / (1 + power * decay / s)
        s -= step
        if np.all(step <= 16 * np.finfo(float).eps * s):  # what rounding leaves of the residual
            break
    shrunk = np.zeros_like(sigma)
    shrunk[kept] = s
    return shrunk


def shrinkage_jump(beta: float, *, depth: int) -> ShrinkageJump:
    r"""Return the threshold of :func:`shrink_singular_values` and the height of its jump.

    ``height = (beta (L - 2))^(L / (2 L - 2))`` and ``threshold = height (L - 1) / (L - 2)`` for ``L
    >= 3``: there zero and the largest stationary point have equal value. Soft thresholding
    (threshold ``beta``, height 0) for ``L = 2``.

    Parameters
    ----------
    beta
        Weight decay, ``>= 0``.
    depth
        Number of layers ``L >= 2``.

    Examples
    --------
    >>> from theorylab.convex_relu import shrinkage_jump
    >>> shrinkage_jump(1.0, depth=2)
    <ShrinkageJump: threshold 1, height 0>
    """
    beta = as_real(beta, "beta", minimum=0)
    depth = as_count(depth, "depth", minimum=2)
    if depth == 2:
        return ShrinkageJump(threshold=beta, height=0.0)
    height = (beta * (depth - 2)) ** (depth / (2 * depth - 2))
    return ShrinkageJump(threshold=height * (depth - 1) / (depth - 2), height=height)
