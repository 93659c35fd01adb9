r"""How far one draw of measurements is from its mean on matrices of rank at most $r$.

$$\delta_r=\sup_{X}\big|\|\mathcal
A(X)\|^2-1\big|,\qquad\delta_r^{\pm}=\sup_{X,Y}\frac1\varphi\Big|\Big\langle\tfrac1{\sqrt m}\mathcal
A^*\mathrm{sign}(\mathcal A(X)-s)-\varphi X,Y\Big\rangle\Big|,\qquad\|X\|_F=\|Y\|_F=1,$$ restricted
isometry and Sign-RIP; both suprema are bounded from below by local search and from above by
spectra, the second in few dimensions by a covering."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.matrix_sensing._sign_cover import families, largest_bound
from theorylab.matrix_sensing.operators import MeasurementOperator
from theorylab.numerics.results import result

_ENTRIES = 5000  # of a matrix whose four-way array is unfolded

__all__ = ["RestrictedDeviation", "restricted_isometry", "sign_deviation"]


@result
class RestrictedDeviation:
    r"""Two-sided bounds of a supremum over matrices of rank at most $r$.

    Attributes
    ----------
    found
        The value at ``matrix``: the supremum is at least this.
    bound
        The supremum is at most this (up to rounding).
    matrix
        The maximiser that the local search found, of unit Frobenius norm.
    """

    found: float
    bound: float
    matrix: FloatArray


def restricted_isometry(
    operator: MeasurementOperator,
    *,
    rank: int,
    rng: np.random.Generator,
    starts: int = 8,
    iterations: int = 500,
) -> RestrictedDeviation:
    r"""Bound the restricted isometry constant $\delta_r=\sup\{|\|\mathcal
    A(X)\|^2-1|:\mathrm{rank}\,X\le r,\|X\|_F=1\}$.

    With $H=\mathcal A^*\mathcal A-\mathrm{Id}$ and $c$ at least its spectral radius both $c+\langle
    X,HX\rangle$ and $c-\langle X,HX\rangle$ are convex, so that maximising their linearisation,
    $X\leftarrow P_r(cX\pm H(X))$ normalised, never decreases them. From above, $\delta_r\le\|H\|$;
    and since $\|X\|_*^2\le r$, $\delta_r\le r\max|H(u,v,u',v')|$ over unit vectors, at most $r$
    times the norm of any unfolding of the four-way array into a matrix.

    Parameters
    ----------
    operator
        The measurements; symmetric ones are judged on symmetric matrices.
    rank
        $r$, at most the smaller dimension.
    rng
        Draws the starts.
    starts, iterations
        Local searches for each sign, and the most steps of each.

    Returns
    -------
    RestrictedDeviation
        ``found`` $\le\delta_r\le$ ``bound``.

    Raises
    ------
    ValueError
        For malformed arguments, or matrices of more than 5000 entries (70 x 70): the norms of the
        unfoldings take the cube of their number.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, restricted_isometry
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> deviation = restricted_isometry(operator, rank=1, rng=np.random.default_rng(1))
    >>> deviation.found <= deviation.bound
    True
    """
    operator = as_instance(operator, "operator", MeasurementOperator)
    r = as_count(rank, "rank", maximum=min(operator.shape))
    rng = as_instance(rng, "rng", np.random.Generator)
    starts, iterations = as_count(starts, "starts"), as_count(iterations, "iterations")
    n, p = operator.shape
    if n * p > _ENTRIES:
        raise ValueError(
            f"operator: expected matrices of at most {_ENTRIES} entries, got {n} x {p}"
        )
    H = operator.stacked.T @ operator.stacked
    H[np.diag_indices_from(H)] -= 1.0
    spectrum = np.linalg.eigvalsh(H)
    radius = float(np.abs(spectrum[[0, -1]]).max())
    found, best = -1.0, np.zeros(operator.shape)
    for sign in (1.0, -1.0):
        # c only has to make the form convex on this side: a smaller one takes longer steps.
        shift = max(0.0, -float((sign * spectrum).min()))
        for _ in range(starts):
            X = _random_low_rank(operator, r, rng)
            value = -np.inf
            for _ in range(iterations):
                image = H @ operator._flatten(X)
                last, value = value, sign * float(operator._flatten(X) @ image)
                if value <= last + 1e-12 * radius:
                    break
                X = _nearest_low_rank(
                    shift * X + sign * operator._unflatten(image), r, operator.symmetric
                )
            if value > found:
                found, best = value, X
    # The four-way array is taken on all matrices, where symmetric measurements see the symmetric
    # part only.
    basis = np.array([operator._flatten(unit) for unit in np.eye(n * p).reshape(-1, n, p)])
    four = (basis @ H @ basis.T).reshape(n, p, n, p)
    wide = four.transpose(0, 2, 1, 3).reshape(n * n, p * p)
    square = wide @ wide.T if n <= p else wide.T @ wide
    turned = np.linalg.eigvalsh(four.transpose(0, 3, 2, 1).reshape(n * p, n * p))  # symmetric as H
    sides = np.sqrt(np.linalg.eigvalsh(square)[-1]), np.abs(turned[[0, -1]]).max()
    return RestrictedDeviation(found, min(radius, *(r * float(side) for side in sides)), best)


@refuses_overflow("scaling")
def sign_deviation(
    operator: MeasurementOperator,
    noise: ArrayLike,
    *,
    rank: int,
    scaling: float,
    rng: np.random.Generator,
    starts: int = 4,
    iterations: int = 100,
    cells: int = 20_000,
) -> RestrictedDeviation:
    r"""Bound the Sign-RIP deviation $\delta_r^\pm$ over $X,Y$ of rank at most $r$ and unit norm.

    The supremum over $Y$ is the norm of the $r$ largest singular values and is taken exactly. The
    objective is piecewise smooth with jumps in $X$, so $X$ is improved by random low-rank moves
    whose size shrinks when they fail. From above, where the unit matrices of rank at most $r$ have
    at most three dimensions ($r=1$ up to size 4, or 3 by 2; all symmetric matrices of size 2), they
    are covered by cells in which most signs are constant, and the bound tightens with their number.
    Elsewhere every sign vector has $\|\frac1{\sqrt m}\mathcal A^*\epsilon\|_F\le\sigma_1$, the
    largest singular value of the stacked matrix, so $\delta_r^\pm\le1+\sigma_1/\varphi$: rank-free,
    valid and loose, as no better bound at a reasonable cost is known to us.

    Parameters
    ----------
    operator
        Measurements with $\mathbb E\,\mathcal A^*\mathcal A=\mathrm{Id}$.
    noise
        $\sqrt m\,s$, the noise in the unit in which a measurement of $X$ has variance $\|X\|_F^2$,
        shape ``(m,)``.
    rank
        $r$, at most the smaller dimension.
    scaling
        $\varphi>0$ at $\|X\|_F=1$.
    rng
        Draws the starts and moves.
    starts, iterations
        Number of local searches, and moves of each.
    cells
        Largest number of cells of a covering.

    Returns
    -------
    RestrictedDeviation
        ``found`` $\le\delta_r^\pm\le$ ``bound``.

    Notes
    -----
    The definition follows ma2022-global (Sign-RIP, there over ranks up to $2k$; the theorem's text
    was not consulted).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, sign_deviation
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> deviation = sign_deviation(
    ...     operator, np.zeros(60), rank=1, scaling=np.sqrt(2 / np.pi), rng=np.random.default_rng(1)
    ... )
    >>> deviation.found <= deviation.bound
    True
    """
    operator = as_instance(operator, "operator", MeasurementOperator)
    m = operator.n_measurements
    s = as_array(noise, "noise", shape=(m,)) / np.sqrt(m)
    r = as_count(rank, "rank", maximum=min(operator.shape))
    phi = as_real(scaling, "scaling", above=0.0)
    rng = as_instance(rng, "rng", np.random.Generator)
    starts, iterations = as_count(starts, "starts"), as_count(iterations, "iterations")
    cells = as_count(cells, "cells")

    def deviation(X: FloatArray) -> float:
        D = operator.adjoint(np.sign(operator.forward(X) - s)) / np.sqrt(m) - phi * X
        sigma = (
            np.abs(np.linalg.eigvalsh(D))
            if operator.symmetric
            else np.linalg.svd(D, compute_uv=False)
        )
        return float(np.linalg.norm(np.sort(sigma)[-r:])) / phi

    candidates = [_random_low_rank(operator, r, rng) for _ in range(starts)]
    searched = [_climb(deviation, X, operator, r, rng, iterations) for X in candidates]
    found, best = max(searched, key=lambda pair: pair[0])
    stacked = operator.stacked
    gram = stacked.T @ stacked if m >= stacked.shape[1] else stacked @ stacked.T
    spectral = float(np.sqrt(np.linalg.eigvalsh(gram)[-1]))
    sizes = np.linalg.norm(stacked, axis=1)

    def in_balls(X: FloatArray, radius: FloatArray) -> FloatArray:
        flat = np.array([operator._flatten(matrix) for matrix in X])
        residuals = flat @ stacked.T - s
        unknown = np.abs(residuals) <= np.outer(radius, sizes)
        image = np.where(unknown, 0.0, np.sign(residuals)) @ stacked / np.sqrt(m) - phi * flat
        sigma = np.linalg.svd(
            np.array([operator._unflatten(row) for row in image]), compute_uv=False
        )[:, :r]
        flips = np.minimum(unknown @ sizes / np.sqrt(m), spectral * np.sqrt(unknown.mean(axis=1)))
        return np.asarray((np.linalg.norm(sigma, axis=1) + flips) / phi + radius)

    covers = families(operator.shape, r, symmetric=operator.symmetric)
    bounds = [
        largest_bound(family, in_balls, found=found, cells=cells // len(covers))
        for family in covers
    ]
    return RestrictedDeviation(found, min(1.0 + spectral / phi, max(bounds, default=np.inf)), best)


def _climb(
    value: Callable[[FloatArray], float],
    X: FloatArray,
    operator: MeasurementOperator,
    rank: int,
    rng: np.random.Generator,
    iterations: int,
) -> tuple[float, FloatArray]:
    """Maximise by random moves: the size grows by a half after a success and shrinks by a tenth
    after a failure."""
    best, size = value(X), 0.5
    for _ in range(iterations):
        move = X + size * _random_low_rank(operator, rank, rng)
        Z = _nearest_low_rank(move, rank, operator.symmetric)
        now = value(Z)
        if now > best:
            best, X, size = now, Z, min(1.5 * size, 1.0)
        else:
            size *= 0.9
    return best, X


def _random_low_rank(
    operator: MeasurementOperator, rank: int, rng: np.random.Generator
) -> FloatArray:
    n, p = operator.shape
    left = rng.standard_normal((n, rank))
    X = (left * rng.choice([-1.0, 1.0], rank)) @ (
        left if operator.symmetric else rng.standard_normal((p, rank))
    ).T
    return np.asarray(X / np.linalg.norm(X))


def _nearest_low_rank(matrix: FloatArray, rank: int, symmetric: bool) -> FloatArray:
    """Return the maximiser of the inner product with ``matrix`` among those of rank at most
    ``rank`` and unit norm."""
    if symmetric:
        values, vectors = np.linalg.eigh(matrix)
        keep = np.argsort(np.abs(values))[-rank:]
        X = (vectors[:, keep] * values[keep]) @ vectors[:, keep].T
    else:
        U, sigma, Vt = np.linalg.svd(matrix, full_matrices=False)
        X = (U[:, :rank] * sigma[:rank]) @ Vt[:rank]
    norm = np.linalg.norm(X)
    return np.asarray(X / norm) if norm > 0 else X
