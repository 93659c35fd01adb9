"""The convex program of parallel three-layer ReLU networks, and its dual norm."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from theorylab._validation import FloatArray, as_array
from theorylab.convex_relu._conic import cvxpy
from theorylab.convex_relu.arrangements import enumerate_arrangements
from theorylab.convex_relu.parallel_networks import MinimumNorm

__all__ = ["branch_dual_norm", "parallel_relu_minimum_norm"]


def parallel_relu_minimum_norm(X: ArrayLike, y: ArrayLike) -> MinimumNorm:
    r"""Return the parallel three-layer ReLU network of least power penalty that fits y exactly.

    ``f(X) = sum_j relu(relu(X W_1j) W_2j) w_3j`` at the least ``1/2 sum ||W_lj||_F^3`` is a convex
    program: ``3/2 min sum ||v_{S,o,i,s}||`` over patterns S of the second layer, signs o and s and
    patterns ``D_i`` of the first, subject to ``(2 D_i - I) X v >= 0``, ``(2 S - I) sum_is s D_i X v
    >= 0`` for every (S, o), and ``sum o S s D_i X v = y``. A branch needs one unit in its second
    layer, which is (S, o), and one in its first for each (i, s).

    Parameters
    ----------
    X
        (n, d) inputs; the program has ``2^n`` blocks, so that n is at most 6.
    y
        (n,) outputs.

    Returns
    -------
    MinimumNorm
        The program's value, the branches (blocks below 1e-7 of the whole are dropped), the (n, 1)
        multiplier, of :func:`branch_dual_norm` 1, and its value.

    Examples
    --------
    >>> from theorylab.convex_relu import parallel_relu_minimum_norm
    >>> fit = parallel_relu_minimum_norm([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0])
    >>> round(fit.primal, 4)
    2.1213

    Notes
    -----
    wang2021-parallel; the program is re-derived. Its accuracy is that of the cone solver, about
    1e-7.
    """
    X = as_array(X, "X", ndim=2)
    y = as_array(y, "y", shape=(X.shape[0],))
    size, length = float(np.abs(y).max()), float(np.linalg.norm(X, 2))
    if size == 0:
        raise ValueError("y: expected a non-zero output, got zeros")
    program = _ConeProgram(X)
    value, weights, multiplier = program.fit(y / size)
    sizes = np.linalg.norm(weights, axis=2)
    weights, sizes = weights * (size / length), sizes * (size / length)
    branches = []
    for (_, sign), w, a in zip(program.outer, weights, sizes, strict=True):
        kept = a > 1e-7 * sizes.sum()
        if kept.any():
            # Layers of equal norm: a unit of the first layer takes the share of its weight.
            output = float(np.cbrt(a[kept].sum()))
            share = np.sqrt(a[kept] / output)
            first = (w[kept] / a[kept, None] * share[:, None]).T
            second = (program.signs[kept] * share)[:, None]
            branches.append((first, second, np.array([[sign * output]])))
    return MinimumNorm(
        primal=1.5 * value * size / length,
        dual=1.5 * float(multiplier @ y) / length,
        branches=tuple(branches),
        dual_point=multiplier[:, None] / length,
    )


def branch_dual_norm(X: ArrayLike, dual_point: ArrayLike) -> float:
    r"""Return ``max |lambda^T f(X)|`` over three-layer ReLU branches with layers of norm at most 1.

    The branch has one output, and its maximum is the largest value of ``2^(n+1) - 2`` cone
    programs, one for each pattern and sign of a single unit in its second layer.

    Parameters
    ----------
    X
        (n, d) inputs, n at most 6.
    dual_point
        (n,) multiplier lambda.

    Returns
    -------
    float
        The norm; the accuracy is that of the cone solver, about 1e-7.

    Examples
    --------
    >>> from theorylab.convex_relu import branch_dual_norm
    >>> round(branch_dual_norm([[1.0, 0.0], [0.0, 2.0]], [1.0, 0.0]), 5)
    1.0
    """
    X = as_array(X, "X", ndim=2)
    dual_point = as_array(dual_point, "dual_point", shape=(X.shape[0],))
    size = float(np.abs(dual_point).max()) * float(np.linalg.norm(X, 2))
    if size == 0:
        return 0.0
    return size * _ConeProgram(X).norm(dual_point / np.abs(dual_point).max())


class _ConeProgram:
    """Cone programs over the patterns of both hidden layers, for inputs of spectral norm 1.

    ``outer`` lists (S, o), ``signs`` the s of every pair (i, s) of a pattern of the first layer.
    """

    def __init__(self, X: FloatArray) -> None:
        n, d = X.shape
        if n > 6:
            raise ValueError(f"X: expected at most 6 rows (the program has 2^n blocks), got {n}")
        if not X.any():
            raise ValueError("X: expected a non-zero entry, got zeros")
        X = X / np.linalg.norm(X, 2)
        patterns = enumerate_arrangements(X).astype(float)
        self.outer = [
            (np.array(S), o) for S in product((0.0, 1.0), repeat=n) if any(S) for o in (1.0, -1.0)
        ]
        self.signs = np.repeat([1.0, -1.0], len(patterns))
        doubled = np.vstack([patterns, patterns])
        self._hidden = np.hstack(
            [s * D[:, None] * X for s, D in zip(self.signs, doubled, strict=True)]
        )
        self._cones = block_diag(*((2 * D - 1)[:, None] * X for D in doubled))
        self._shape = (len(self.outer), self.signs.size, d)

    def _variables(self) -> tuple[Any, Any, Any, list[Any]]:
        """Return the weights, the norms of the blocks, their signed outputs, and the cones."""
        cp = cvxpy()
        blocks, units, d = self._shape
        weights = cp.Variable((blocks, units * d))
        rows = cp.reshape(weights, (blocks * units, d), order="C")
        norms = cp.sum(cp.reshape(cp.norm(rows, 2, axis=1), (blocks, units), order="C"), axis=1)
        hidden = weights @ self._hidden.T
        S = np.array([S for S, _ in self.outer])
        signed = np.array([S * o for S, o in self.outer])
        cones = [weights @ self._cones.T >= 0, cp.multiply(2 * S - 1, hidden) >= 0]
        return weights, norms, cp.multiply(signed, hidden), cones

    def fit(self, y: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return the least norm, weights (blocks, units, d) that fit y, and the multiplier."""
        cp = cvxpy()
        weights, norms, outputs, cones = self._variables()
        fits = cp.sum(outputs, axis=0) == y
        cp.Problem(cp.Minimize(cp.sum(norms)), [*cones, fits]).solve(solver="CLARABEL")
        if weights.value is None:
            raise ValueError("y: expected outputs of some network on X, got none that fits them")
        multiplier = np.asarray(fits.dual_value)
        multiplier = multiplier if multiplier @ y > 0 else -multiplier
        blocks = np.asarray(weights.value).reshape(self._shape)
        return float(norms.value.sum()), blocks, multiplier

    def norm(self, multiplier: FloatArray) -> float:
        """Return the largest value of the multiplier on a block of norm 1."""
        cp = cvxpy()
        _, norms, outputs, cones = self._variables()
        values = outputs @ multiplier
        cp.Problem(cp.Maximize(cp.sum(values)), [*cones, norms <= 1]).solve(solver="CLARABEL")
        return float(values.value.max())
