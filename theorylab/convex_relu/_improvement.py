r"""When one more random direction or pattern lowers the value of a program over sampled ones.

Such a program is a scenario program in the dual variable $z\in\mathbb R^n$: one more sample
strictly lowers its value with probability V, $\mathbb EV_N=\mathbb E[s_{N+1}]/(N+1)\le n/(N+1)$,
where $s_{N+1}$ counts the active samples among N + 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

from theorylab._validation import FloatArray, as_array, as_count, as_real, one_of
from theorylab.convex_relu._cones import ConeSearch

BoolArray = NDArray[np.bool_]


def improvement_probability(
    X: ArrayLike, v: ArrayLike, beta: float, *, law: str = "directions"
) -> float:
    r"""Return the probability that one more random direction, or pattern, strictly lowers the
    sampled program, in the plane.

    Parameters
    ----------
    X
        Data, shape (n, 2).
    v
        Optimal dual point of the sampled program, shape (n,), feasible for its samples.
    beta
        Penalty, positive.
    law
        "directions": the new sample is a uniform unit vector u, which helps iff
        $|v^\top(Xu)_+|>\beta$. "patterns": it is the pattern of u, which helps iff that
        happens somewhere in u's cell.

    Returns
    -------
    float
        The probability, from the closed form of the arcs on which the inequality holds. An excess
        below 1e-9, the rounding of a dual point scaled into its constraints, does not count.

    Raises
    ------
    ValueError
        If the data are not two-dimensional, or malformed.

    Notes
    -----
    bai2022-efficient, Section 2, defines the event; the closed form is derived.

    Examples
    --------
    >>> from theorylab.convex_relu import improvement_probability
    >>> improvement_probability([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 0.1)
    0.0
    """
    X = as_array(X, "X", shape=(None, 2))
    v = as_array(v, "v", shape=(X.shape[0],))
    beta = as_real(beta, "beta", above=0.0)
    law = one_of(law, "law", ("directions", "patterns"))
    total = 0.0
    for start, stop, g in _arcs(X, v):
        radius, centre = math.hypot(*g), math.atan2(g[1], g[0])
        if radius <= beta * (1.0 + 1e-9):
            continue
        half = math.acos(beta / radius)
        inside = sum(
            max(0.0, min(stop, centre + shift + half) - max(start, centre + shift - half))
            for shift in math.pi * np.arange(-3, 4)
        )
        # A sliver of the width that the excess above allows is a cell that is active, not violated.
        if law == "directions":
            total += inside
        elif _largest(start, stop, centre, radius) > beta * (1.0 + 1e-9):
            total += stop - start
    return min(total / (2.0 * math.pi), 1.0)


def improving_patterns(X: ArrayLike, v: ArrayLike, beta: float, patterns: ArrayLike) -> BoolArray:
    r"""Return which patterns would strictly lower the value of a program over other patterns, in
    any dimension.

    Parameters
    ----------
    X
        Data, shape (n, d).
    v
        Optimal dual point of the program, shape (n,), feasible for its patterns.
    beta
        Penalty, positive.
    patterns
        Candidates, shape (P, n).

    Returns
    -------
    ndarray of bool, shape (P,)
        Whether $\|\Pi_K(\pm X^\top Dv)\|>\beta$ for a sign, up to 1e-9 relatively.

    Raises
    ------
    ValueError
        For malformed arrays or a non-positive ``beta``.

    Notes
    -----
    bai2022-efficient, Section 2.

    Examples
    --------
    >>> from theorylab.convex_relu import improving_patterns
    >>> improving_patterns([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.0], 0.1, [[1, 0], [0, 1]])
    array([ True, False])
    """
    X = as_array(X, "X", ndim=2)
    v = as_array(v, "v", shape=(X.shape[0],))
    beta = as_real(beta, "beta", above=0.0)
    candidates = as_array(patterns, "patterns", shape=(None, X.shape[0]))
    if not np.all((candidates == 0.0) | (candidates == 1.0)):
        raise ValueError("patterns: expected entries 0 and 1, got others")
    search = ConeSearch(X, np.ascontiguousarray(candidates == 1.0))
    threshold = beta * (1.0 + 1e-9)
    above = [search(v, sign, threshold)[0] > threshold for sign in (1, -1)]
    return np.asarray(above[0] | above[1], dtype=np.bool_)


def improvement_tail_bound(n: int, *, n_samples: int, psi: float) -> float:
    r"""Return $\sum_{i<n}\binom Ni\psi^i(1-\psi)^{N-i}$, a bound of the probability that V
    exceeds ``psi``.

    Parameters
    ----------
    n
        Number of data points, the dimension of the dual variable.
    n_samples
        Number N of independent directions or patterns in the program.
    psi
        Level, in (0, 1).

    Returns
    -------
    float
        The bound.

    Raises
    ------
    ValueError
        For a count below one or a level outside (0, 1).

    Notes
    -----
    Exact scenario theorem; sharper than bai2022-efficient, Section 2. An optimum of a strictly
    concave program in n variables is supported by at most n constraints.

    Examples
    --------
    >>> from theorylab.convex_relu import improvement_tail_bound
    >>> improvement_tail_bound(2, n_samples=3, psi=0.5)
    0.5
    """
    n, n_samples = as_count(n, "n"), as_count(n_samples, "n_samples")
    psi = as_real(psi, "psi", above=0.0, below=1.0)
    return float(bdtr(n - 1, n_samples, psi)) if n_samples >= n else 1.0


def sufficient_samples(n: int, *, psi: float, xi: float) -> int:
    r"""Return the number of samples after which improvement has probability at most ``psi`` with
    confidence ``1 - xi``.

    Parameters
    ----------
    n
        Number of data points.
    psi, xi
        Probability of improvement and risk, in (0, 1).

    Returns
    -------
    int
        $\lceil\min\{\frac{n+1}{\psi\xi}-1,\ \frac2\psi(n+1-\log\xi)\}\rceil$.

    Raises
    ------
    ValueError
        For a count below one or probabilities outside (0, 1).

    Notes
    -----
    bai2021-practical, Theorem 1, as restated in bai2022-efficient; linear in n.

    Examples
    --------
    >>> from theorylab.convex_relu import improvement_tail_bound, sufficient_samples
    >>> n_samples = sufficient_samples(10, psi=0.1, xi=0.05)
    >>> improvement_tail_bound(10, n_samples=n_samples, psi=0.1) <= 0.05
    True
    """
    n = as_count(n, "n")
    psi, xi = as_real(psi, "psi", above=0.0, below=1.0), as_real(xi, "xi", above=0.0, below=1.0)
    return max(1, math.ceil(min((n + 1) / (psi * xi) - 1, 2.0 / psi * (n + 1 - math.log(xi)))))


def _arcs(X: FloatArray, v: FloatArray) -> list[tuple[float, float, FloatArray]]:
    """Return the arcs between the kinks of v' relu(X u), with its gradient on each."""
    used = X[np.any(X != 0.0, axis=1)]
    angles = np.arctan2(used[:, 1], used[:, 0])
    breaks = np.unique(
        np.concatenate([angles + 0.5 * math.pi, angles - 0.5 * math.pi]) % (2.0 * math.pi)
    )
    if breaks.size == 0:
        return []
    result = []
    for start, stop in zip(breaks, np.append(breaks[1:], breaks[0] + 2.0 * math.pi), strict=True):
        middle = 0.5 * (start + stop)
        on = X @ np.array([math.cos(middle), math.sin(middle)]) > 0.0
        result.append((float(start), float(stop), v[on] @ X[on]))
    return result


def _largest(start: float, stop: float, centre: float, radius: float) -> float:
    """Return the largest |radius cos(angle - centre)| on an arc shorter than pi."""
    inside = any(start <= centre + k * math.pi <= stop for k in range(-3, 4))
    return (
        radius
        if inside
        else radius * max(abs(math.cos(start - centre)), abs(math.cos(stop - centre)))
    )
