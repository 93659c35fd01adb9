"""Assumptions of the theme's theorems that can be tested on data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real, as_symmetric
from theorylab.matrix_sensing.lifting import isometry_bounds
from theorylab.numerics.assumptions import (
    EPS,
    Finding,
    Theorem,
    compared,
    distinct_eigenvalues,
    independent_rows,
    matches,
    positive_definite,
    unit,
)

__all__ = ["THEOREMS"]

STARTS, STEPS = 20, 200  # of the search for a matrix of rank 2 that breaks an isometry


def _measurements(matrices: ArrayLike) -> FloatArray:
    """Return the symmetric parts, which are all that a symmetric matrix sees."""
    A = as_array(matrices, "matrices", ndim=3)
    if A.shape[1] != A.shape[2]:
        raise ValueError(f"matrices: expected square ones, got shape {A.shape}")
    return np.asarray((A + A.transpose(0, 2, 1)) / 2)


def _vectors(A: FloatArray, **given: ArrayLike) -> list[FloatArray]:
    return [as_array(value, name, shape=(A.shape[1],)) for name, value in given.items()]


def _extreme_ratio(A: FloatArray, first: FloatArray, sign: int) -> tuple[float, FloatArray]:
    r"""Search the symmetric matrices of rank 2 for the least (``sign`` -1) or largest
    $\sum_i\langle A_i,M\rangle^2/\|M\|_F^2$, from ``first`` and from random starts."""
    n, rng = A.shape[1], np.random.default_rng(0)
    top = isometry_bounds(A)[1]
    starts = [first, *rng.standard_normal((STARTS, n, n))]
    best, found = -np.inf, np.zeros((n, n))
    for start in starts:
        M = _rank_two(start + start.T)
        ratio, last = -np.inf, M
        for _ in range(STEPS):
            if not M.any():
                break
            products = np.tensordot(A, M, 2)
            image = np.tensordot(products, A, 1)
            ratio, last = sign * float(products @ products), M
            # The form, or top times the identity less it, is convex: its linearisation ascends.
            M = _rank_two(image if sign > 0 else top * M - image)
            if np.abs(M - last).max() <= 1e-9:
                break
        if ratio > best:
            best, found = ratio, last
    return sign * best, found


def _rank_two(S: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(S)
    keep = np.argsort(np.abs(values))[-2:]
    M = (vectors[:, keep] * values[keep]) @ vectors[:, keep].T
    return np.asarray(M / (np.linalg.norm(M) or 1.0))


def _isometry(
    A: FloatArray, z: FloatArray, x: FloatArray, constant: float, sign: int, tol: float
) -> Finding:
    low, high = isometry_bounds(A)
    bound, words = (low, "at least") if sign < 0 else (high, "at most")
    text = f"the ratio is {words} {bound:.4g} at any rank"
    # A constant below the rounding would say nothing: a form may vanish at rank 2.
    error = 8 * len(A) * A.shape[1] ** 2 * EPS * high
    if sign * (bound - constant) + error <= tol * constant:
        return Finding(True, text)
    ratio, M = _extreme_ratio(A, np.outer(x, x) - np.outer(z, z), sign)
    # That of the products <A_i, M>, of which the ratio is a sum of squares.
    linear = 4 * A.shape[1] ** 2 * EPS * float(np.linalg.norm(A))
    if sign * (ratio - constant) > linear * (2 * ratio**0.5 + linear):
        return Finding(False, f"ratio {ratio:.4g} at M of rank 2", M)
    return Finding(None, f"{text}; {ratio:.4g} is the extreme one found at rank 2")


def _strong_convexity(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, lower: float, tol: float
) -> Finding:
    A = _measurements(matrices)
    z, x = _vectors(A, truth=truth, point=point)
    return _isometry(A, z, x, as_real(lower, "lower", above=0.0), -1, tol)


def _smoothness(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, upper: float, tol: float
) -> Finding:
    A = _measurements(matrices)
    z, x = _vectors(A, truth=truth, point=point)
    return _isometry(A, z, x, as_real(upper, "upper", above=0.0), 1, tol)


def _stationary(matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, tol: float) -> Finding:
    A = _measurements(matrices)
    z, x = _vectors(A, truth=truth, point=point)
    A, pair, along = unit(A), unit(np.stack([x, z])), unit(x)
    at_point, at_truth = (np.tensordot(A @ u @ u, A, 1) @ along for u in pair)
    most = (np.tensordot(np.abs(A) @ u @ u, np.abs(A), 1) @ np.abs(along) for u in np.abs(pair))
    rounding = 4 * A[0].size * EPS * float(np.linalg.norm(sum(most)))
    size = float(np.linalg.norm(at_point) + np.linalg.norm(at_truth))
    left = max(float(np.linalg.norm(at_point - at_truth)) - rounding, 0.0) / (size or 1.0)
    return matches(left, tol, "gradient over the sum of its two terms")


def _another_point(truth: ArrayLike, point: ArrayLike) -> Finding:
    z = as_array(truth, "truth", ndim=1)
    x = as_array(point, "point", shape=z.shape)
    distance = min(np.abs(x - z).max(), np.abs(x + z).max())
    size = float(max(np.abs(x).max(), np.abs(z).max()))
    error = 4 * EPS * size if distance else 0.0
    return compared(distance, ">", 0.0, f"distance {distance:.3g}", error=error)


def _small_beta(truth: ArrayLike, point: ArrayLike, lower: float, upper: float) -> Finding:
    z = as_array(truth, "truth", ndim=1)
    x = as_array(point, "point", shape=z.shape)
    low, high = as_real(lower, "lower", above=0.0), as_real(upper, "upper", above=0.0)
    x, z = unit(np.stack([x, z]))
    sizes = float(x @ x), float(z @ z)
    distance = float(np.linalg.norm(np.outer(x, x) - np.outer(z, z)))
    rounding = 4 * len(z) * EPS * sum(sizes)
    if distance <= rounding:
        return Finding(None, "beta is not defined at z and -z")
    beta = high / low * (sizes[0] * sizes[1] / distance**2)
    text = f"beta = {beta:.4g}"
    return compared(beta, "<", 1.0, text, error=4 * beta * (rounding / distance))


def _symmetric(matrices: ArrayLike, tol: float) -> Finding:
    A = as_array(matrices, "matrices", ndim=3)
    _measurements(A)
    size = np.abs(A).max()
    skew = np.abs(A - A.transpose(0, 2, 1)).max() / size if size else 0.0
    return matches(skew, tol, "relative skew part")


def _forms(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, direction: ArrayLike
) -> tuple[float, float, float]:
    r"""Return, in a unit of their own, $u^\top K_zu$, the larger of $|u^\top K_xu|$ and
    $u^\top S_xu$, and what rounding moves them by."""
    A = _measurements(matrices)
    z, x, u = _vectors(A, truth=truth, point=point, direction=direction)
    A, u, (z, x) = unit(A), unit(u), unit(np.stack([z, x]))

    def forms(A: FloatArray, z: FloatArray, x: FloatArray, u: FloatArray) -> list[float]:
        of_direction = A @ u @ u
        own = (A @ z @ z) @ of_direction, abs((A @ x @ x) @ of_direction)
        return [float(form) for form in (*own, np.sum((A @ x @ u) ** 2))]

    q, *parts = forms(A, z, x, u)
    sizes = forms(*(np.abs(v) for v in (A, z, x, u)))
    return q, max(parts), 4 * A[0].size * EPS * max(sizes)


def _curved(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, direction: ArrayLike
) -> Finding:
    q, _, error = _forms(matrices, truth, point, direction)
    return compared(q, ">", 0.0, f"u'K_z u = {q:.4g}, in a unit of its own", error=error)


def _small_rho(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, direction: ArrayLike
) -> Finding:
    q, part, error = _forms(matrices, truth, point, direction)
    if q <= error:
        return Finding(None, "rho is not defined")
    text = f"rho = {part / q:.4g}"
    return compared(part / q, "<", 1.0, text, error=2 * error / q * (1 + part / q))


def _high_order(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, direction: ArrayLike, order: int
) -> Finding:
    q, part, error = _forms(matrices, truth, point, direction)
    level = as_count(order, "order")
    if q <= error or part >= q:
        return Finding(None, "log(1 / rho) is not defined, or not positive")
    off = 2 * error
    holds = True if level > _least_order((part + off) / q) else None
    if level <= _least_order((part - off) / q):
        holds = False
    return Finding(holds, f"log 3 / log(1 / rho) = {_least_order(part / q):.4g}")


def _least_order(rho: float) -> float:
    return float(np.log(3) / -np.log(rho)) if 0 < rho < 1 else np.inf if rho > 0 else 0.0


def _covariance(covariance: ArrayLike) -> Finding:
    return positive_definite(as_symmetric(covariance, "covariance"))


def _simple_spectrum(covariance: ArrayLike) -> Finding:
    return distinct_eigenvalues(as_symmetric(covariance, "covariance"))


def _full_rank(covariance: ArrayLike, factor: ArrayLike) -> Finding:
    S = as_symmetric(covariance, "covariance")
    W = as_array(factor, "factor", shape=(len(S), None))
    found = independent_rows(W if W.shape[0] <= W.shape[1] else W.T)
    if found.holds and not positive_definite(S).holds:
        return Finding(None, "the root of the covariance may lower the rank of W")
    return found


MATRICES = {"matrices": "A_i, (m, n, n)", "truth": "z, (n,)", "point": "x, (n,)"}
STATIONARY = {"x is stationary": _stationary}
DEFINITE = {"the covariance is positive definite": _covariance}
COVARIANCE = {"covariance": "Sigma_0, (n, n) symmetric"}

THEOREMS = {
    "lifting:saddle-bound": Theorem(
        {
            "restricted isometry from below: sum <A_i, M>^2 >= lower |M|^2 at rank 2": (
                _strong_convexity
            ),
            "restricted isometry from above: sum <A_i, M>^2 <= upper |M|^2 at rank 2": _smoothness,
            **STATIONARY,
            "x is neither z nor -z": _another_point,
            "beta < 1": _small_beta,
        },
        MATRICES | {"lower": "alpha of the isometry", "upper": "L of the isometry"},
    ),
    "lifting:sufficient-lifting-order": Theorem(
        {
            "A_i symmetric": _symmetric,
            **STATIONARY,
            "u'K_z u positive": _curved,
            "rho < 1": _small_rho,
            "order above log 3 / log(1 / rho)": _high_order,
        },
        MATRICES | {"direction": "u, (n,)", "order": "l"},
    ),
    "bures_wasserstein:critical-points-are-spectral-selections": Theorem(
        {**DEFINITE, "its eigenvalues are distinct": _simple_spectrum}, COVARIANCE
    ),
    "bures_wasserstein:bures-nuclear-norm-form": Theorem(
        {**DEFINITE, "Sigma_0^1/2 W of full rank": _full_rank},
        COVARIANCE | {"factor": "W, (n, k)"},
    ),
}
