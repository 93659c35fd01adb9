"""Certificates of unconstrained features: points of the problem and its dual, checked exactly."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

import numpy as np
from flint import arb, fmpq, fmpq_mat
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, refuses_overflow
from theorylab.neural_collapse._intervals import feasible_scale, is_positive_definite, precision
from theorylab.neural_collapse._ufm_model import UnconstrainedFeatures, as_point
from theorylab.numerics.balls import (
    above,
    ball_matrix,
    below,
    rational,
    rational_matrix,
    square_sum,
)
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.results import result

__all__ = [
    "Certificate",
    "UfmProof",
    "UfmVerdict",
    "certify_ufm",
]


class UfmVerdict(StrEnum):
    """What :meth:`Certificate.verify` found."""

    ACCEPTED = "both bounds were proved anew"
    NO_PROOF = "the bounds come without the points that prove them"
    UPPER = "the objective of the point is not proved to be at most the upper bound"
    INFEASIBLE = "the dual point is not proved feasible"
    LOWER = "the dual value is not proved to be at least the lower bound"

    @property
    def accepted(self) -> bool:
        """Whether both bounds were proved."""
        return self is UfmVerdict.ACCEPTED


@result
class UfmProof:
    """A point of the model and a rational point of its dual, which together prove two bounds.

    Attributes
    ----------
    features, classifier, bias
        The point, shapes (d, N), (K, d) and (K,); no bias in the model without.
    model
        The problem.
    dual
        (K, K), N times the dual variable, a column a class.
    """

    features: FloatArray
    classifier: FloatArray
    bias: FloatArray | None
    model: UnconstrainedFeatures
    dual: fmpq_mat

    def upper(self) -> float:
        """Return a bound of the point's objective from above."""
        model, labels = self.model, self.model.labels
        with precision():
            H, W, b = self.features, self.classifier, self.bias
            b = np.zeros(model.counts.size) if b is None else b
            Z, value = ball_matrix(W) * ball_matrix(H), arb(0)
            for i, label in enumerate(labels.tolist()):
                column = [Z[k, i] + arb(v) for k, v in enumerate(b.tolist())]
                value += model.loss.ball(column, label)
            penalty = rational(model.lam_w) * square_sum(W) + rational(model.lam_h) * square_sum(H)
            return above(value / labels.size + penalty / 2)

    def feasible(self) -> bool:
        """Whether the dual point satisfies every constraint: the linear ones exactly, the spectral
        norm by elimination in ball arithmetic."""
        model, R = self.model, self.dual
        K, n = model.counts.size, model.counts.tolist()
        rows = [sum((R[i, k] * n[k] for k in range(K)), fmpq(0)) for i in range(K)]
        if model.bias and any(rows):
            return False
        if not self._in_domain():
            return False
        limit = rational(model.lam_w) * rational(model.lam_h) * sum(n) ** 2
        room = [
            int(i == j) * limit - sum((R[i, k] * R[j, k] * n[k] for k in range(K)), fmpq(0))
            for i in range(K)
            for j in range(K)
        ]
        with precision():
            return is_positive_definite(fmpq_mat(K, K, room))

    def lower(self) -> float:
        """Return a bound of the dual value from below; zero, which bounds every loss, where the
        dual value is not finite."""
        if not self._in_domain():
            return 0.0
        n, loss = self.model.counts.tolist(), self.model.loss.minorant
        with precision():
            values = (m * loss.dual_ball(self._column(k), k) for k, m in enumerate(n))
            return below(sum(values, arb(0)) / sum(n))

    def _column(self, k: int) -> list[fmpq]:
        return [self.dual[i, k] for i in range(self.dual.nrows())]

    def _in_domain(self) -> bool:
        loss = self.model.loss.minorant
        return all(loss.in_domain(self._column(k), k) for k in range(self.dual.ncols()))


@result
class Certificate:
    """Two-sided bound on a minimum.

    Attributes
    ----------
    upper
        Objective of a feasible point.
    lower
        Value that no point undercuts.
    proof
        The points that prove both, where they are kept (:func:`certify_ufm`).
    """

    upper: float
    lower: float
    proof: UfmProof | None = field(default=None, repr=False, compare=False)

    def verify(self) -> UfmVerdict:
        """Prove both bounds anew from the points kept, whatever found them; bounds without such
        points are not accepted, rigorous or not."""
        if self.proof is None:
            return UfmVerdict.NO_PROOF
        if not self.proof.upper() <= self.upper:
            return UfmVerdict.UPPER
        # The losses are never negative.
        if not self.lower <= 0:
            if not self.proof.feasible():
                return UfmVerdict.INFEASIBLE
            if not self.proof.lower() >= self.lower:
                return UfmVerdict.LOWER
        return UfmVerdict.ACCEPTED

    @property
    def gap(self) -> float:
        """Difference of the bounds over the larger magnitude, infinite if a bound is none."""
        return relative_gap(self.upper, self.lower)


@refuses_overflow("features", "classifier", "bias", infinite=True)
def certify_ufm(
    model: UnconstrainedFeatures,
    features: ArrayLike,
    classifier: ArrayLike,
    *,
    bias: ArrayLike | None = None,
) -> Certificate:
    r"""Bound the global minimum rigorously from both sides, given any point of the model.

    The upper bound is the objective of the point in interval arithmetic. The lower bound comes from
    the class averages of its loss gradient, rounded to exact rationals that satisfy every linear
    constraint of the dual, and scaled until elimination in interval arithmetic proves the spectral
    norm feasible. Nothing about how the point was found is used.

    Parameters
    ----------
    model
        The problem.
    features
        (d, N), samples ordered by class.
    classifier
        (K, d).
    bias
        (K,) last-layer bias, zero by default; only where the model has one.

    Returns
    -------
    Certificate
        The lower bound holds for every dimension d; the gap closes at global minimizers with d at
        least the rank of the unrestricted one. ``verify()`` proves both bounds anew.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, certify_ufm, ufm_minimizer
    >>> model = UnconstrainedFeatures([3, 2, 2], lam_w=0.01, lam_h=0.02)
    >>> best = ufm_minimizer(model, dimension=3)
    >>> certify_ufm(model, best.features, best.classifier).gap < 1e-9
    True
    """
    H, W, b = as_point(model, features, classifier, bias)
    n, labels = model.counts, model.labels
    averages = np.stack([np.bincount(labels, weights=row) for row in W @ H + b[:, None]]) / n
    with precision():
        square = rational(model.lam_w) * rational(model.lam_h)
        gradient = rational_matrix(model.loss.minorant.terms(averages, np.arange(n.size))[1])
        dual = _dual_point(model, gradient, square)
    proof = UfmProof(H, W, b if model.bias else None, model, dual)
    return Certificate(proof.upper(), proof.lower(), proof)


def _dual_point(model: UnconstrainedFeatures, gradient: fmpq_mat, squared_mu: fmpq) -> fmpq_mat:
    """Return a rational point near the gradient that satisfies the dual constraints exactly (but
    for the sign of a probability, which the correction for the bias may cost)."""
    n = model.counts.tolist()
    K, residual = len(n), model.loss.minorant.into_domain(gradient, n)
    if model.bias:
        widest = max(range(K), key=lambda k: n[k])
        for i in range(K):
            excess = sum((residual[i, k] * n[k] for k in range(K)), fmpq(0))
            residual[i, widest] -= excess / n[widest]
    return residual * feasible_scale(residual, n, squared_mu * sum(n) ** 2)
