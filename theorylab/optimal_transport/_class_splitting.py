"""The splitting that solves for a class-structured plan (``sum_of_norms``): all differences of rows
and of columns, the norms' proximal maps, and the projection on the marginals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.distance import cdist

from theorylab._validation import FloatArray

_RELAXED = 1.6
_BLOCK = 1 << 15  # entries
_TINY = np.finfo(np.float64).tiny


class Pairs:
    """The norms of differences of rows, weighted by the masses of the pair."""

    def __init__(self, masses: FloatArray, lam: float, labels: NDArray[Any] | None):
        n = masses.size
        i, k = np.triu_indices(n, 1)
        if labels is not None:
            same = labels[i] == labels[k]
            i, k = i[same], k[same]
        self.level = lam * n
        self.weights = masses[i] * masses[k]
        pairs = np.arange(i.size)
        signs = np.concatenate([1 / masses[i], -1 / masses[k]])
        self.differences = sparse.csr_array(
            (signs, (np.tile(pairs, 2), np.concatenate([i, k]))), shape=(i.size, n)
        )
        self.adjoint = (self.differences.T * self.weights).tocsr()
        same = np.ones((n, n)) if labels is None else (labels[:, None] == labels).astype(float)
        self.together = same
        self.stiffness: FloatArray = same @ masses / masses

    def blocks(self, width: int) -> list[tuple[slice, sparse.csr_array]]:
        """Return pairs, so few at a time that vectors of this width stay in the cache, and what
        takes their differences."""
        count = max(1, _BLOCK // width)
        cuts = [slice(i, i + count) for i in range(0, self.weights.size, count)]
        return [(cut, self.differences[cut]) for cut in cuts]

    def value(self, X: FloatArray) -> float:
        norms = np.zeros(self.weights.size)
        for block, differences in self.blocks(X.shape[1]):
            norms[block] = np.linalg.norm(differences @ X, axis=1)
        return self.level * float(self.weights @ norms)

    def start(self, X: FloatArray) -> None:
        self.parts = self.blocks(X.shape[1])
        self.Z: FloatArray = self.differences @ X
        self.U: FloatArray = np.zeros(self.Z.shape)
        self.wanted: FloatArray = self.Z.copy()  # differences: Z - U

    def scale(self, factor: float) -> None:
        """Divide the dual variables."""
        self.U /= factor
        np.subtract(self.Z, self.U, out=self.wanted)

    def step(self, X: FloatArray, rho: float) -> tuple[float, float]:
        """Move differences and dual variables; return squared residuals."""
        missed, change = np.zeros((2, self.weights.size))
        for block, differences in self.parts:
            exact, last = differences @ X, self.Z[block]
            total = _RELAXED * exact + (1 - _RELAXED) * last + self.U[block]
            Z = total * shrinkage(np.linalg.norm(total, axis=1), self.level / rho)[:, None]
            missed[block] = ((exact - Z) ** 2).sum(axis=1)
            change[block] = ((Z - last) ** 2).sum(axis=1)
            U = total - Z
            self.Z[block], self.U[block], self.wanted[block] = Z, U, Z - U
        return float(self.weights @ missed), float(self.weights @ change)


class Splitting:
    """Over-relaxed ADMM on the plan, its differences and its non-negative copy, with weights
    that make the Hessian of the plan's step diagonal (the rest is a proximal term)."""

    def __init__(self, a: FloatArray, b: FloatArray, C: FloatArray, rows: Pairs, columns: Pairs):
        self.a, self.b, self.C, self.rows, self.columns = a, b, C, rows, columns
        n, m = C.shape
        self.d: FloatArray = rows.stiffness[:, None] + columns.stiffness
        W = 1 / (2 * self.d)
        system = np.block([[np.diag(W.sum(axis=1)), W], [W.T, np.diag(W.sum(axis=0))]])
        self.inverse = np.linalg.pinv(system, hermitian=True)
        self.W, self.rho = W, float(max(n, m))
        self.X: FloatArray = np.outer(a, b)
        self.Y, self.U = self.X.copy(), np.zeros(C.shape)
        rows.start(self.X)
        columns.start(self.X.T)

    def run(self, count: int, *, adapt: bool) -> None:
        n = self.a.size
        rows, columns = self.rows, self.columns
        for _ in range(count):
            right = self.d * (self.Y - self.U) - self.C / self.rho
            right += rows.adjoint @ rows.wanted + rows.together @ self.X
            right += (columns.adjoint @ columns.wanted + columns.together @ self.X.T).T
            inner = self.W * right
            lacking = np.concatenate([self.a - inner.sum(axis=1), self.b - inner.sum(axis=0)])
            u = self.inverse @ lacking
            self.X = inner + self.W * (u[:n, None] + u[n:])
            total = _RELAXED * self.X + (1 - _RELAXED) * self.Y + self.U
            Y = np.maximum(total, 0.0)
            primal, dual = np.sum(self.d * (self.X - Y) ** 2), np.sum(self.d * (Y - self.Y) ** 2)
            self.Y, self.U = Y, total - Y
            for pairs, X in ((rows, self.X), (columns, self.X.T)):
                missed, change = pairs.step(X, self.rho)
                primal, dual = primal + missed, dual + change
        if adapt and not 1e-2 < primal / max(dual, _TINY) < 1e2:
            factor = 2.0 if primal > dual else 0.5
            self.rho *= factor
            self.U /= factor
            rows.scale(factor)
            columns.scale(factor)

    def moved_costs(self) -> FloatArray:
        """Return the costs plus what the dual variables of the norms, of norm at most the weight,
        add to them."""
        moved: FloatArray = self.C + self.rho * (
            self.rows.adjoint @ self.rows.U + (self.columns.adjoint @ self.columns.U).T
        )
        return moved


def rounded(Y: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """Scale rows and columns down to their marginals and fill in a product."""
    plan: FloatArray = Y * np.minimum(1.0, a / np.maximum(Y.sum(axis=1), _TINY))[:, None]
    plan *= np.minimum(1.0, b / np.maximum(plan.sum(axis=0), _TINY))
    missing = np.maximum(a - plan.sum(axis=1), 0.0)
    lacking = np.maximum(b - plan.sum(axis=0), 0.0)
    total = float(missing.sum())
    if total > 0:
        plan += np.outer(missing, lacking) / total
    return plan


def norms_of_differences(X: FloatArray, masses: FloatArray, labels: NDArray[Any] | None) -> float:
    """Return the norms of differences of rows, as :class:`Pairs` weighs them, without a list of
    all pairs."""
    n, total = masses.size, 0.0
    rows = X / masses[:, None]
    for first in range(0, n, step := max(1, _BLOCK // n)):
        block = slice(first, first + step)
        weights = np.outer(masses[block], masses)
        if labels is not None:
            weights[labels[block, None] != labels] = 0.0
        total += float(np.vdot(weights, cdist(rows[block], rows)))
    return n * total / 2


def shrinkage(norms: Any, level: float) -> Any:
    return 1 - level / np.maximum(norms, level) if level > 0 else np.ones_like(norms)
