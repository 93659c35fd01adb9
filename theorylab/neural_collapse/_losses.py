r"""Losses of logits: squared error, cross-entropy with or without label smoothing, max suppression.

With label k the loss of a sample with logits $z\in\mathbb R^K$ is

$$\tfrac12\|z-e_k\|^2,\qquad\log\sum_me^{z_m}-s_k^\top z,\quad
s_k=(1-\alpha)e_k+\tfrac\alpha K\mathbf1,\qquad
\log\sum_me^{z_m}-z_k+\alpha(\max_mz_m-\bar z).$$

The duals of the first two are $-\frac12\|r\|^2-r_k$, and the entropy of $q=r+s_k$ where that is a
distribution; r is the gradient at the minimum. The third lies above the second, so that the dual
bounds of label smoothing hold for it too: that is its *minorant*. Certificates use values and duals
in ball arithmetic; nothing else knows which loss it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb, fmpq, fmpq_mat
from numpy.typing import NDArray
from scipy.special import entr

from theorylab._validation import FloatArray, as_real, one_of
from theorylab.neural_collapse._intervals import log_sum_exp
from theorylab.numerics.balls import rational

__all__ = ["CrossEntropy", "Loss", "MaxSuppression", "Squared", "as_loss"]


class Loss(ABC):
    """A convex loss of logits, never negative."""

    @abstractmethod
    def terms(self, logits: FloatArray, labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Return the losses (N,) of the columns of (K, N) logits, and their gradients (K, N)."""

    @abstractmethod
    def ball(self, column: Sequence[arb], label: int) -> arb:
        """Enclose the loss of a sample."""

    @property
    @abstractmethod
    def minorant(self) -> Squared | CrossEntropy:
        """The loss with a dual that lies nowhere above this one, and touches it where each label
        has the largest logit."""

    def mean(
        self, logits: FloatArray, labels: NDArray[np.int64], weights: FloatArray
    ) -> tuple[float, FloatArray]:
        """Return the loss of samples with weights (out of their sum), and its gradient."""
        values, gradient = self.terms(logits, labels)
        share = weights / weights.sum()
        return float(values @ share), gradient * share


@dataclass(frozen=True)
class Squared(Loss):
    """Half the squared distance to the one-hot label."""

    @property
    def minorant(self) -> Squared:
        """The loss itself."""
        return self

    def terms(self, logits: FloatArray, labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Return the losses and the residuals."""
        residual = logits.copy()
        residual[labels, np.arange(labels.size)] -= 1
        return 0.5 * (residual**2).sum(axis=0), residual

    def ball(self, column: Sequence[arb], label: int) -> arb:
        """Enclose the loss of a sample."""
        return sum(((z - (k == label)) ** 2 for k, z in enumerate(column)), arb(0)) / 2

    def dual(self, residual: FloatArray) -> FloatArray:
        """Return the dual values (K,) of the columns of (K, K), one a class."""
        result: FloatArray = -0.5 * (residual**2).sum(axis=0) - np.diag(residual)
        return result

    def dual_ball(self, column: Sequence[fmpq], label: int) -> arb:
        """Enclose the dual value of a column."""
        return sum((-(arb(r) ** 2) / 2 for r in column), arb(0)) - column[label]

    def in_domain(self, column: Sequence[fmpq], label: int) -> bool:
        """Whether the dual value is finite: everywhere."""
        return True

    def into_domain(self, residual: fmpq_mat, counts: Sequence[int]) -> fmpq_mat:
        """Return the point itself."""
        return residual


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy against the label, of which the share ``smoothing``, 0 <= smoothing < 1, is
    spread over all classes."""

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check the share."""
        _check_smoothing(self)

    @property
    def minorant(self) -> CrossEntropy:
        """The loss itself."""
        return self

    def terms(self, logits: FloatArray, labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Return the losses and their gradients."""
        return _smoothed(logits, labels, labels, self.smoothing)

    def ball(self, column: Sequence[arb], label: int) -> arb:
        """Enclose the loss of a sample."""
        return _smoothed_ball(column, label, column[label], self.smoothing)

    def dual(self, residual: FloatArray) -> FloatArray:
        """Return the dual values (K,) of the columns of (K, K), one a class, that sum to zero."""
        K, share = len(residual), self.smoothing
        q = residual + (1 - share) * np.eye(K) + share / K
        terms = entr(q)
        # By the distance to one, which the probability of the label itself has lost where small.
        own, short = np.diag(q), np.diag(residual) - share * (1 - 1 / K)
        inside = (own > 0) & (short > -1)
        terms[inside, inside] = -own[inside] * np.log1p(short[inside])
        value: FloatArray = terms.sum(axis=0)
        return value

    def dual_ball(self, column: Sequence[fmpq], label: int) -> arb:
        """Enclose the dual value of a column in the domain."""
        value = arb(0)
        for q in self._distribution(column, label):
            value -= arb(q) * arb(q).log() if q > 0 else 0
        return value

    def in_domain(self, column: Sequence[fmpq], label: int) -> bool:
        """Whether the column is the difference of a distribution and the smoothed label."""
        return not sum(column, fmpq(0)) and min(self._distribution(column, label)) >= 0

    def into_domain(self, residual: fmpq_mat, counts: Sequence[int]) -> fmpq_mat:
        """Return a point near a gradient, a column a class, whose columns sum to zero.

        A pinch of the class frequencies keeps every probability away from zero, whatever a bias
        asks to correct later."""
        K, total, pinch = len(counts), sum(counts), fmpq(1, 2**50)
        inside = fmpq_mat(K, K)
        for k in range(K):
            column = [residual[i, k] for i in range(K)]
            q = self._distribution(column, k)
            for i in range(K):
                inside[i, k] = column[i] + pinch * (fmpq(counts[i], total) - q[i])
            inside[k, k] = -sum((inside[i, k] for i in range(K) if i != k), fmpq(0))
        return inside

    def _distribution(self, column: Sequence[fmpq], label: int) -> list[fmpq]:
        share = rational(self.smoothing)
        return [r + share / len(column) + (1 - share) * (i == label) for i, r in enumerate(column)]


@dataclass(frozen=True)
class MaxSuppression(Loss):
    """Cross-entropy plus ``smoothing``, 0 <= smoothing < 1, times the excess of the largest logit
    over their mean.

    At ties of the largest logit the gradient is the subgradient closest to that of label smoothing:
    a label among the largest counts as the largest; otherwise the first."""

    smoothing: float

    def __post_init__(self) -> None:
        """Check the share."""
        _check_smoothing(self)

    @property
    def minorant(self) -> CrossEntropy:
        """Label smoothing with the same share."""
        return CrossEntropy(self.smoothing)

    def terms(self, logits: FloatArray, labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Return the losses and their gradients."""
        own = logits[labels, np.arange(labels.size)]
        largest = np.where(own >= logits.max(axis=0), labels, logits.argmax(axis=0))
        return _smoothed(logits, labels, largest, self.smoothing)

    def ball(self, column: Sequence[arb], label: int) -> arb:
        """Enclose the loss of a sample."""
        largest = column[label]
        for z in column:
            largest = largest.max(z)
        return _smoothed_ball(column, label, largest, self.smoothing)


def _check_smoothing(loss: CrossEntropy | MaxSuppression) -> None:
    share = as_real(loss.smoothing, "smoothing", minimum=0.0, below=1.0)
    object.__setattr__(loss, "smoothing", share)


def _smoothed(
    logits: FloatArray, labels: NDArray[np.int64], held: NDArray[np.int64], share: float
) -> tuple[FloatArray, FloatArray]:
    """Return cross-entropy plus ``share`` times the excess of the logit ``held`` over the mean, and
    the gradient."""
    columns = np.arange(labels.size)
    shifted = logits - logits.max(axis=0)
    gradient = np.exp(shifted)
    norm = gradient.sum(axis=0)
    # Neither slope nor loss as differences to one, which lose small ones.
    gradient[labels, columns] = 0.0
    others = gradient.sum(axis=0)
    gradient /= norm
    gradient[labels, columns] = -others / norm
    own = shifted[labels, columns]
    values = np.where(own < 0, np.log(norm) - own, np.log1p(others))
    if share:
        values += share * (shifted[held, columns] - shifted.mean(axis=0))
        gradient -= share / len(logits)
        gradient[held, columns] += share
    return values, gradient


def _smoothed_ball(column: Sequence[arb], label: int, held: arb, share: float) -> arb:
    excess = held - sum(column, arb(0)) / len(column)
    return log_sum_exp(column) - column[label] + arb(rational(share)) * excess


_NAMED: dict[str, Loss] = {
    "mse": Squared(),
    "ce": CrossEntropy(),
    "ls": CrossEntropy(0.1),
    "maxsup": MaxSuppression(0.1),
}


def as_loss(loss: Loss | str, *allowed: type[Loss]) -> Loss:
    """Return the loss, or that of the name, if it is of one of the kinds allowed (of any, by
    default); ``"ls"`` and ``"maxsup"`` smooth by the usual 0.1."""
    kinds = allowed or (Loss,)
    names = [name for name, named in _NAMED.items() if isinstance(named, kinds)]
    if not isinstance(loss, Loss):
        return _NAMED[one_of(loss, "loss", names)]
    if not isinstance(loss, kinds):
        raise ValueError(f"loss: expected one of {', '.join(names)}, got {loss!r}")
    return loss
