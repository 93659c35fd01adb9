"""Deep linear heads, squared loss: lengths of the classes and their jump, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count

__all__ = [
    "collapse_ratio",
    "jump_threshold",
    "spinodal",
    "stationary_ratio",
]


def jump_threshold(n_layers: int) -> float:
    r"""Return $\tau_*=(M-1)^{M-1}/M^{2M}$: class k survives squared loss iff
    $N^{M+1}\Lambda/n_k^M<\tau_*$.

    Derived in closed form from the per-class problem of dang2023-neural (deep squared loss). For M
    = 1 it is 1, and the transition is continuous; for more layers the length jumps from
    $(1-1/M)\sqrt{n_k}$ to 0.

    Parameters
    ----------
    n_layers
        M >= 1.

    Examples
    --------
    >>> from theorylab.neural_collapse import jump_threshold
    >>> jump_threshold(2)
    0.0625
    """
    M = as_count(n_layers, "n_layers")
    return float((M - 1) ** (M - 1) / M ** (2 * M))


def spinodal(n_layers: int) -> float:
    r"""Return the $\tau$ up to which a non-zero stationary length exists; beyond the jump it
    is only a local minimum.

    The maximum of $(1-q)^{M+1}q^{M-1}$, at $q=(M-1)/(2M)$. For M = 1 it is 1, the
    threshold itself.

    Parameters
    ----------
    n_layers
        M >= 1.

    Examples
    --------
    >>> from theorylab.neural_collapse import spinodal
    >>> round(spinodal(2), 4)
    0.1055
    """
    M = as_count(n_layers, "n_layers")
    return float(((M + 1) / (2 * M)) ** (M + 1) * ((M - 1) / (2 * M)) ** (M - 1))


def stationary_ratio(tau: ArrayLike, n_layers: int) -> FloatArray:
    r"""Return the largest root q of $(1-q)^{M+1}q^{M-1}=\tau$; NaN beyond the
    :func:`spinodal`.

    Parameters
    ----------
    tau
        (r,), $N^{M+1}\Lambda/n_k^M$, non-negative.
    n_layers
        M >= 1.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import stationary_ratio
    >>> np.round(stationary_ratio([0.0, 0.05, 1.0], 2), 4)
    array([1.    , 0.5505,    nan])
    """
    values = as_array(tau, "tau", ndim=1, nonnegative=True)
    M = as_count(n_layers, "n_layers")
    if M == 1:
        return np.where(values <= 1.0, 1 - np.sqrt(values), np.nan)
    low, high = np.full(values.shape, (M - 1) / (2 * M)), np.ones(values.shape)
    # Monotone between the spinodal and 1: bisection to the last bit.
    for _ in range(60):
        middle = (low + high) / 2
        right = (1 - middle) ** (M + 1) * middle ** (M - 1) > values
        low, high = np.where(right, middle, low), np.where(right, high, middle)
    return np.where(values <= spinodal(M), (low + high) / 2, np.nan)


def collapse_ratio(tau: ArrayLike, n_layers: int) -> FloatArray:
    r"""Return $p_k/\sqrt{n_k}$ at the global minimum of squared loss, a function of
    $\tau=N^{M+1}\Lambda/n_k^M$ only.

    Parameters
    ----------
    tau
        (r,), non-negative.
    n_layers
        M >= 1.

    Returns
    -------
    numpy.ndarray
        (r,); at the threshold itself 0.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import collapse_ratio
    >>> np.round(collapse_ratio([0.0, 0.05, 0.07], 2), 4)
    array([1.    , 0.5505, 0.    ])
    """
    values = as_array(tau, "tau", ndim=1, nonnegative=True)
    M = as_count(n_layers, "n_layers")
    return np.where(values < jump_threshold(M), stationary_ratio(values, M), 0.0)
