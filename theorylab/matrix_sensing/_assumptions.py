"""Assumptions of the theme's theorems that can be tested on data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real, as_symmetric
from theorylab.matrix_sensing.lifting import isometry_bounds
from theorylab.numerics.assumptions import (
    EPS,
    Finding,
    Relation,
    Theorem,
    compared,
    distinct_eigenvalues,
    independent_rows,
    matches,
    positive_definite,
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
        for _ in range(STEPS):
            image = np.tensordot(np.tensordot(A, M, 2), A, 1)
            ratio, last = sign * float(np.sum(image * M)), M
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


def _isometry(A: FloatArray, first: FloatArray, constant: float, sign: int) -> Finding:
    relation: Relation = ">=" if sign < 0 else "<="
    words = "at least" if sign < 0 else "at most"
    bound = isometry_bounds(A)[0 if sign < 0 else 1]
    error = 8 * len(A) * A.shape[1] ** 2 * EPS * isometry_bounds(A)[1]
    proved = compared(
        bound, relation, constant, f"the ratio is {words} {bound:.4g} at any rank", error=error
    )
    if proved.holds:
        return proved
    ratio, M = _extreme_ratio(A, first, sign)
    seen = compared(ratio, relation, constant, f"ratio {ratio:.4g} at M of rank 2", error=error)
    if seen.holds is False:
        return Finding(False, seen.evidence, M)
    return Finding(None, f"{proved.evidence}; {ratio:.4g} is the extreme one found at rank 2")


def _strong_convexity(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, lower: float
) -> Finding:
    A = _measurements(matrices)
    z, x = _vectors(A, truth=truth, point=point)
    first = np.outer(x, x) - np.outer(z, z)
    return _isometry(A, first, as_real(lower, "lower", above=0.0), -1)


def _smoothness(matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, upper: float) -> Finding:
    A = _measurements(matrices)
    z, x = _vectors(A, truth=truth, point=point)
    first = np.outer(x, x) - np.outer(z, z)
    return _isometry(A, first, as_real(upper, "upper", above=0.0), 1)


def _stationary(matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, tol: float) -> Finding:
    A = _measurements(matrices)
    z, x = _vectors(A, truth=truth, point=point)
    at_point, at_truth = (np.tensordot(A @ u @ u, A, 1) @ x for u in (x, z))
    size = float(np.linalg.norm(at_point) + np.linalg.norm(at_truth))
    left = np.linalg.norm(at_point - at_truth) / size if size else 0.0
    return matches(left, tol, "gradient over the sum of its two terms")


def _another_point(truth: ArrayLike, point: ArrayLike) -> Finding:
    z = as_array(truth, "truth", ndim=1)
    x = as_array(point, "point", shape=z.shape)
    distance = min(np.abs(x - z).max(), np.abs(x + z).max())
    size = float(max(np.abs(x).max(), np.abs(z).max()))
    return compared(distance, ">", 0.0, f"distance {distance:.3g}", error=_rounded(distance, size))


def _rounded(value: float, size: float) -> float:
    """Return the rounding of numbers of a size; none where two of them are equal."""
    return 4 * EPS * size if value else 0.0


def _small_beta(truth: ArrayLike, point: ArrayLike, lower: float, upper: float) -> Finding:
    z = as_array(truth, "truth", ndim=1)
    x = as_array(point, "point", shape=z.shape)
    low, high = as_real(lower, "lower", above=0.0), as_real(upper, "upper", above=0.0)
    sizes = float(x @ x), float(z @ z)
    distance = float(np.linalg.norm(np.outer(x, x) - np.outer(z, z)))
    rounding = 4 * len(z) * EPS * sum(sizes)
    if distance <= rounding:
        return Finding(None, "beta is not defined at z and -z")
    beta = high / low * sizes[0] * sizes[1] / distance**2
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
    """Return $u^\\top K_zu$, its rounding, and the larger of $|u^\\top K_xu|$, $u^\\top S_xu$."""
    A = _measurements(matrices)
    z, x, u = _vectors(A, truth=truth, point=point, direction=direction)
    q = float(np.sum((A @ z @ z) * (A @ u @ u)))
    parts = abs(float(np.sum((A @ x @ x) * (A @ u @ u)))), float(np.sum((A @ x @ u) ** 2))
    absolute = np.abs(A)
    sizes = [np.abs(v) for v in (z, u)]
    error = 8 * A[0].size * EPS * float(np.sum((absolute @ sizes[0] @ sizes[0]) ** 2) ** 0.5)
    return q, error * float(np.sum((absolute @ sizes[1] @ sizes[1]) ** 2) ** 0.5), max(parts)


def _curved(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, direction: ArrayLike
) -> Finding:
    q, error, _ = _forms(matrices, truth, point, direction)
    return compared(q, ">", 0.0, f"u'K_z u = {q:.4g}", error=error if q else 0.0)


def _small_rho(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, direction: ArrayLike
) -> Finding:
    q, error, part = _forms(matrices, truth, point, direction)
    if q <= error:
        return Finding(None, "rho is not defined")
    return compared(part / q, "<", 1.0, f"rho = {part / q:.4g}", error=2 * error / q)


def _high_order(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, direction: ArrayLike, order: int
) -> Finding:
    q, error, part = _forms(matrices, truth, point, direction)
    level = as_count(order, "order")
    if q <= error or part >= q:
        return Finding(None, "log(1 / rho) is not defined, or not positive")
    least = np.log(3) / np.log(q / part) if part else 0.0
    slack = 4 * error / q / np.log(q / part) ** 2 if part else 0.0
    return compared(level, ">", least, f"log 3 / log(1 / rho) = {least:.4g}", error=slack)


def _covariance(covariance: ArrayLike) -> Finding:
    return positive_definite(as_symmetric(covariance, "covariance"))


def _simple_spectrum(covariance: ArrayLike) -> Finding:
    return distinct_eigenvalues(as_symmetric(covariance, "covariance"))


def _full_rank(covariance: ArrayLike, factor: ArrayLike) -> Finding:
    # The root of a definite matrix keeps the rank; without one, the product is what counts.
    S = as_symmetric(covariance, "covariance")
    W = as_array(factor, "factor", shape=(len(S), None))
    W = W if _covariance(S).holds else S @ W
    return independent_rows(W if W.shape[0] <= W.shape[1] else W.T)


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
