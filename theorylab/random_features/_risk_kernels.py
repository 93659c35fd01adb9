"""Kernels of the deterministic equivalents: their sums over the modes, and curves of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array
from theorylab.numerics.compiled import compiled
from theorylab.random_features.fixed_points import (
    extrapolate,
    free_counts,
    smallest_and_total,
    solve_gamma,
)

__all__ = ["as_modes", "moments", "risk_at", "risk_floors", "risks", "risks_along"]


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def moments(
    eigenvalues: FloatArray, power: FloatArray, gamma: float
) -> tuple[int, float, float, float, float]:
    """Return, for positive gamma, how many eigenvalues are at least gamma and z less this number,
    which keeps n - z accurate.

    Then the spread, and the target's power on unlearned modes and at the edge.
    """
    above, offset, c, unlearned, at_edge = 0, 0.0, 0.0, 0.0, 0.0
    for i in range(eigenvalues.size):
        inverse = 1.0 / (eigenvalues[i] + gamma)
        p = eigenvalues[i] * inverse
        r = gamma * inverse
        if eigenvalues[i] >= gamma:
            above += 1
            offset -= r
        else:
            offset += p
        c += p * r
        unlearned += r * r * power[i]
        at_edge += p * r * power[i]
    return above, offset, c, unlearned, at_edge


@compiled
def _bias_and_free(
    a: float, b: float, c: float, unlearned: float, at_edge: float, rest: float
) -> tuple[float, float]:
    """Return B + sigma^2 and n - D."""
    if math.isinf(b):
        return unlearned + rest, a + c
    if b + c == 0.0:
        return unlearned + rest, a
    return unlearned + rest + c / (b + c) * at_edge, a + b * c / (b + c)


@compiled
def risks(
    eigenvalues: FloatArray,
    power: FloatArray,
    rest: float,
    n: FloatArray,
    k: FloatArray,
    ridge: FloatArray,
    rows: FloatArray,
    first: int,
    last: int,
) -> None:
    """Fill entries of the rows of zeros, those of ``learning_curve``, which start from the ones
    before."""
    test, train, kappas, gammas = rows[0], rows[1], rows[2], rows[3]
    ends = smallest_and_total(eigenvalues)
    for j in range(first, last):
        gamma = solve_gamma(eigenvalues, ends, n[j], k[j], ridge[j], extrapolate(gammas, j))
        a, b = free_counts(gamma, n[j], k[j], ridge[j], float(eigenvalues.size))
        c, unlearned, at_edge = 0.0, 0.0, 0.0
        if gamma > 0.0:
            _, _, c, unlearned, at_edge = moments(eigenvalues, power, gamma)
        bias, free = _bias_and_free(a, b, c, unlearned, at_edge, rest)
        if free > 0.0:
            test[j] = n[j] * bias / free
        elif bias > 0.0:
            test[j] = math.inf
        elif b == 0.0:
            # As many samples as features and modes, all of the target learnable: the limit of
            # vanishing ridge.
            test[j] = n[j] / 3.0 * (power / eigenvalues).sum() / (1.0 / eigenvalues).sum()
        # At a = 0 the labels are interpolated, also where the test risk is infinite.
        train[j] = (a / n[j]) ** 2 * test[j] if a > 0.0 else 0.0
        kappas[j] = gamma if math.isinf(b) else gamma * b / k[j]
        gammas[j] = gamma


def risk_floors(left: FloatArray, right: FloatArray, n: float) -> FloatArray:
    r"""Return a lower bound of the risk on each interval between the points ``left`` and ``right``,
    the rows of ``curves``.

    With dots for derivatives in $\log\gamma$: $\ddot B\le\frac{15}2B$, $0\le\dot
    F\le2c$, $|\ddot F|\le\frac{15}2c$ for $F=n-D$, and $|\dot c|\le c$. Hence
    $\log(B+\sigma^2)-\log F$ has second derivative at most $\frac{15}2(1+y)+4y^2$, y
    being the largest $c/F$, and stays above its chord less an eighth of this times the
    squared width."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        width = np.log(right[0] / left[0])
        steepness = left[3] * np.exp(width) / left[2]
        curvature = 7.5 * (1 + steepness) + 4 * steepness**2
        below_chord = np.minimum(left[4], right[4]) * np.exp(-curvature * width**2 / 8)
        floors = np.where(right[2] > 0, n * left[1] / right[2], np.inf)
    # The second bound is NaN, which fmax leaves out, from gamma = 0 on and between two infinite
    # risks.
    return np.asarray(np.fmax(floors, below_chord), dtype=np.float64)


@compiled
def risk_at(
    eigenvalues: FloatArray, power: FloatArray, rest: float, n: float, k: float, gamma: float
) -> tuple[float, float, float]:
    above, offset, c, unlearned, at_edge = moments(eigenvalues, power, gamma)
    a, b = max(n - above - offset, 0.0), max(k - above - offset, 0.0)
    return *_bias_and_free(a, b, c, unlearned, at_edge, rest), c


@compiled
def risks_along(
    eigenvalues: FloatArray, power: FloatArray, rest: float, n: float, k: float, gammas: FloatArray
) -> FloatArray:
    """Return gamma, B + sigma^2, n - D, the spread and the risk in the rows, for positive
    gammas."""
    points = np.empty((5, gammas.size))
    for j in range(gammas.size):
        bias, free, c = risk_at(eigenvalues, power, rest, n, k, gammas[j])
        risk = n * bias / free if free > 0.0 else math.inf if bias > 0.0 else 0.0
        points[:, j] = gammas[j], bias, free, c, risk
    return points


def as_modes(eigenvalues: ArrayLike, coefficients: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the eigenvalues and the squared coefficients."""
    spectrum = as_array(eigenvalues, "eigenvalues", ndim=1, nonnegative=True)
    target = as_array(coefficients, "coefficients", shape=spectrum.shape)
    with np.errstate(over="ignore", under="ignore"):
        power = target**2
    if not np.isfinite(power).all() or (target.any() and not power.any()):
        raise ValueError(
            "coefficients: expected numbers whose squares are within float64, got a largest one of "
            f"{np.abs(target).max()}"
        )
    return spectrum, power
