r"""The core of cross-entropy with free features: groups of classes of equal size, one matrix E of
logits between them, and its points by the singular values of the part that is penalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theorylab._validation import FloatArray
from theorylab.neural_collapse._spectra import Groups

__all__ = ["COARSE", "GroupProblem", "Point", "shrink"]

# Up to twice this number of groups the start is diagonal.
COARSE = 32


class GroupProblem:
    """The group-invariant problem in E, which is B plus the bias, and ``within``, the ``s_h`` times
    the root of ``m_h - 1``."""

    def __init__(self, groups: Groups, mu: float, bias: bool, total: float) -> None:
        m, sizes = groups.multiplicities.astype(np.float64), groups.sizes
        self.few = sizes.size <= 2 * COARSE
        self.limit = max((mu * total) ** 2, 1e-200)
        self.G, self.mu, self.bias, self.total, self.m = sizes.size, mu, bias, total, m
        self.weight = m * sizes / total
        self.v, self.one = np.sqrt(self.weight), np.sqrt(m / m.sum())
        self.to_logits = 1 / np.sqrt(np.outer(m, m * sizes))
        self.copies = np.sqrt(np.maximum(m - 1, 1.0))
        self.active = (m > 1).astype(np.float64)
        self.to_own = self.active / (self.copies * np.sqrt(sizes))
        self.diagonal = np.diag_indices(self.G)

    def logits(self, E: FloatArray, within: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return c and a."""
        c, a = within * self.to_own, E * self.to_logits
        a[self.diagonal] -= c / self.m
        return c, a

    def loss(
        self, E: FloatArray, within: FloatArray
    ) -> tuple[float, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return the loss, its gradients over mu, and the probabilities of the other classes of
        each group (G, G) and of the own class (G,)."""
        c, a = self.logits(E, within)
        own = a[self.diagonal] + c
        top = np.maximum(a.max(axis=0), own)
        p = np.exp(a - top) * self.m[:, None]
        p[self.diagonal] *= (self.m - 1) / self.m
        own_p = np.exp(own - top)
        others = p.sum(axis=0)
        norm = others + own_p
        # As they stand, small losses keep their digits.
        losses = np.where(own < top, np.log(norm) + top - own, np.log1p(others))
        p, own_p = p / norm, own_p / norm
        share = self.weight / self.mu
        slope, slope_within = self.pull(share * p, -share * (others / norm))
        value = float(self.weight @ losses)
        return value, slope, slope_within, p, own_p

    def pull(self, others: FloatArray, own: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return derivatives in E and within, given those in the logits."""
        others[self.diagonal] += own
        own = (own - others[self.diagonal] / self.m) * self.to_own
        return others * self.to_logits, own

    def penalised(self, E: FloatArray) -> FloatArray:
        """Return B."""
        return E - np.outer(E @ self.v, self.v) if self.bias else E


@dataclass(frozen=True)
class Point:
    """A point by the singular values of its B, with its gradients over mu and the values g of Y."""

    E: FloatArray
    within: FloatArray
    U: FloatArray
    sigma: FloatArray
    g: FloatArray
    Vt: FloatArray
    g_within: FloatArray
    objective: float
    slope: FloatArray
    slope_within: FloatArray
    p: FloatArray
    own_p: FloatArray


def shrink(
    problem: GroupProblem, Z: FloatArray, offset: FloatArray, z: FloatArray, t: float
) -> Point:
    """Return the point with ``B + t Y = Z``, ``within + t y = z``, and this coefficient of v."""
    if problem.bias:
        # Columns of Z sum to zero and nothing is along v: so v is made the first right vector, far
        # enough from all others that rounding does not mix them.
        Z = Z + (2.0 * float(np.linalg.norm(Z)) or 1.0) * np.outer(problem.one, problem.v)
    U, values, Vt = np.linalg.svd(Z)
    values[: int(problem.bias)] = 0.0
    sigma, g = np.maximum(values - t, 0.0), np.minimum(values / t, 1.0)
    E = (U * sigma) @ Vt
    if problem.bias:
        E += np.outer(offset, problem.v)
    limit = t * problem.copies
    within = np.maximum(z - limit, 0.0) * problem.active
    value, slope, slope_within, p, own_p = problem.loss(E, within)
    value += problem.mu * float(sigma.sum() + within @ problem.copies)
    g_within = np.minimum(z, limit) / t * problem.active
    return Point(E, within, U, sigma, g, Vt, g_within, value, slope, slope_within, p, own_p)
