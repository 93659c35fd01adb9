r"""Convex losses for exact ReLU training, each with its Fenchel dual.

A loss is $L(f)=\sum_i\ell(f_i,y_i)$. The convex dual of training is

$$\max_v\;-\sum_i\ell^*(-v_i,y_i)\quad\text{subject
to}\quad\max_{\|u\|\le1}|v^\top(Xu)_+|\le\beta,$$

and $v=-L'(f)$ at an optimum. A loss object supplies values, derivatives and the dual, the
last two also in ball arithmetic for certificates; the solvers know nothing else about it. A loss
without a second derivative supplies its proximal map instead and is trained through its Moreau
envelope. For small penalties $v$ is of their size, a tiny difference of outputs and targets;
``optimality`` gives the relation between $f$ and $v$ so that both can be refined
together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from flint import arb, fmpq
from numpy.typing import NDArray
from scipy.special import entr, xlog1py, xlogy

from theorylab._validation import FloatArray, one_of

__all__ = ["Hinge", "Interpolation", "Logistic", "Loss", "Squared"]

_TOLERANCE = 1e-10


class Loss(ABC):
    """A convex loss, separable over samples."""

    name: str
    smooth: bool = True
    #: Largest second derivative; of the Moreau envelope that training uses, if not smooth.
    curvature_bound: float = 1.0
    #: Whether the dual is confined to 0 <= y_i v_i <= 1, times the weight if there is one.
    bounded_dual: bool = True
    #: Whether l(t f, t y) = t^degree l(f, y) for t > 0; None where targets are labels.
    degree: int | None = None
    #: Whether the loss of a sample is least at a finite output.
    attained: bool = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def base(self) -> Loss:
        """The loss without weights."""
        return self

    def on_rows(self, kept: NDArray[np.bool_]) -> Loss:
        """Return the loss of some of the samples."""
        return self

    def check_labels(self, y: FloatArray) -> None:
        """Raise ``ValueError`` where the labels do not belong to the loss."""
        if not np.all(np.abs(y) == 1.0):
            raise ValueError(
                f"y: expected labels -1 and 1 for the {self.name} loss, got "
                f"{y[np.abs(y) != 1.0].flat[0]}"
            )

    def value(self, f: FloatArray, y: FloatArray) -> float:
        """Return sum_i l(f_i, y_i)."""
        return float(np.sum(self.terms(f, y)))

    def dual(self, v: FloatArray, y: FloatArray) -> float:
        """Return -sum_i l*(-v_i, y_i), minus infinity outside the domain."""
        return float(np.sum(self.dual_terms(v, y)))

    @abstractmethod
    def terms(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the losses l(f_i, y_i)."""

    @abstractmethod
    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the derivatives l'(f_i, y_i)."""

    @abstractmethod
    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the second derivatives l''(f_i, y_i)."""

    @abstractmethod
    def dual_terms(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return the terms -l*(-v_i, y_i) of the dual value."""

    @abstractmethod
    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the value."""

    @abstractmethod
    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value for ``v`` in the domain."""

    def prox(
        self, f: FloatArray, y: FloatArray, step: float | FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return argmin_s sum_i l(s_i, y_i) + (s_i - f_i)^2 / (2 step_i) and its derivative in f;
        needed of losses that are not smooth."""
        raise NotImplementedError

    def dual_sizes(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return sizes of the terms of the dual value, to which their rounding errors are
        relative."""
        result: FloatArray = np.abs(v * y) + (0.0 if self.bounded_dual else v**2)
        return result

    def in_domain(self, v: Sequence[fmpq], y: FloatArray) -> bool:
        """Whether an exact dual point lies in the domain of the conjugate."""
        return not self.bounded_dual or all(0 <= a * int(t) <= 1 for a, t in zip(v, y, strict=True))

    def interior(self, v: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
        """Entries of a dual point that may move both ways inside the domain."""
        if not self.bounded_dual:
            return np.ones(v.size, dtype=bool)
        a = v * y
        inside: NDArray[np.bool_] = (a > 1e-9 * a.max()) & (a < 1.0 - 1e-9)
        return inside

    def widths(self, y: FloatArray) -> FloatArray:
        """Return lengths by which the entries of a dual point may move at a like cost."""
        return np.ones_like(y)

    def at_ends(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return a dual point whose entries at the ends of the domain are there exactly."""
        if not self.bounded_dual:
            return v
        return np.where(self.interior(v, y), v, y * np.round(v * y))

    def into_domain(self, v: FloatArray, last: FloatArray, y: FloatArray) -> FloatArray:
        """Return a dual point moved into the domain of the conjugate, part of the way from the
        last one where it would leave."""
        if not self.bounded_dual:
            return v
        a, before = v * y, np.clip(last * y, 0.0, 1.0)
        low, high = 0.1 * before, 1.0 - 0.1 * (1.0 - before)
        result: FloatArray = y * np.where(a <= 0.0, low, np.where(a >= 1.0, high, a))
        return result

    def optimality(
        self, f: FloatArray, v: FloatArray, y: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the residuals F_i(f_i, v_i) of ``v = -L'(f)`` and their derivatives in f and v."""
        return self.gradient(f, y) + v, self.curvature(f, y), np.ones_like(v)


class Squared(Loss):
    """Half the squared error, l(f, y) = (f - y)^2 / 2."""

    name = "squared"
    bounded_dual = False
    degree = 2

    def check_labels(self, y: FloatArray) -> None:
        """Accept every real target."""

    def terms(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return half the squared errors."""
        result: FloatArray = 0.5 * (f - y) ** 2
        return result

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the residual."""
        return f - y

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return ones."""
        return np.ones_like(f)

    def dual_terms(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return y_i v_i - v_i^2 / 2."""
        return v * (y - 0.5 * v)

    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the value."""
        return sum(((a - b) ** 2 for a, b in zip(f, y, strict=True)), arb(0)) / 2

    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value."""
        return sum((a * (b - a / 2) for a, b in zip(v, y, strict=True)), arb(0))


class Logistic(Loss):
    """Logistic loss, l(f, y) = log(1 + exp(-y f)) for labels -1 and 1."""

    name = "logistic"
    curvature_bound = 0.25
    attained = False

    def terms(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the losses."""
        result: FloatArray = np.logaddexp(0.0, -y * f)
        return result

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the derivatives."""
        result: FloatArray = -y * np.exp(-np.logaddexp(0.0, y * f))
        return result

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the second derivatives."""
        result: FloatArray = np.exp(-np.logaddexp(0.0, f) - np.logaddexp(0.0, -f))
        return result

    def dual_terms(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return the entropies of y_i v_i."""
        a = y * v
        inside = np.clip(a, 0.0, 1.0)
        return np.where(a == inside, entr(inside) - xlog1py(1.0 - inside, -inside), -np.inf)

    def dual_sizes(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return y_i v_i times one and the logarithms in the entropy's derivative."""
        a = np.clip(y * v, 0.0, np.nextafter(1.0, 0.0))
        result: FloatArray = a * (1.0 - np.log1p(-a)) + np.maximum(-xlogy(a, a), 0.0)
        return result

    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the value."""
        z = [-b * a for a, b in zip(f, y, strict=True)]
        # Not the logarithm of what is beyond all balls.
        return sum((t.max(arb(0)) + (-abs(t)).exp().log1p() for t in z), arb(0))

    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value."""
        total = arb(0)
        for a in (b * c for b, c in zip(v, y, strict=True)):
            if a != 0 and a != 1:  # noqa: PLR1714
                total -= a * a.log() + (1 - a) * (-a).log1p()
        return total


class Hinge(Loss):
    """Hinge loss, l(f, y) = max(1 - y f, 0) for labels -1 and 1."""

    name = "hinge"
    smooth = False
    curvature_bound = 10.0

    def terms(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the losses."""
        return np.maximum(1.0 - y * f, 0.0)

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the left derivative in y f."""
        return np.where(y * f <= 1.0, -y, 0.0)

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return zeros."""
        return np.zeros_like(f)

    def dual_terms(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return y_i v_i."""
        a = y * v
        return np.where((a >= 0.0) & (a <= 1.0), a, -np.inf)

    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the value."""
        return sum(((1 - a * b).max(arb(0)) for a, b in zip(f, y, strict=True)), arb(0))

    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value."""
        return sum((a * b for a, b in zip(v, y, strict=True)), arb(0))

    def prox(
        self, f: FloatArray, y: FloatArray, step: float | FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the proximal point and its derivative."""
        margin = y * f
        point = y * np.where(margin >= 1.0, margin, np.minimum(margin + step, 1.0))
        return point, np.where((margin >= 1.0) | (margin + step <= 1.0), 1.0, 0.0)

    def into_domain(self, v: FloatArray, last: FloatArray, y: FloatArray) -> FloatArray:
        """Return the nearest point of the domain, which is closed."""
        result: FloatArray = y * np.clip(v * y, 0.0, 1.0)
        return result

    def optimality(
        self, f: FloatArray, v: FloatArray, y: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return ``f_i - y_i`` where the margin is one, and the distance of v from its bound
        elsewhere."""
        a = v * y
        # Which of the three holds, in the manner of semismooth Newton methods.
        moved = a - np.abs(a).max() * (y * f - 1.0)
        inside = (moved > 0.0) & (moved < 1.0)
        return np.where(inside, f - y, v - y * (moved >= 1.0)), inside * 1.0, 1.0 - inside


class Interpolation(Loss):
    """The constraint f = y: zero where the outputs are the targets to 1e-10 of the largest, else
    infinite.

    The least penalty of an interpolating network is the limit of the squared loss as the penalty's
    weight vanishes. The dual point bounds the networks that interpolate exactly.
    """

    name = "interpolation"
    smooth = False
    bounded_dual = False
    degree = 1

    def check_labels(self, y: FloatArray) -> None:
        """Accept every real target."""

    def terms(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return zeros and infinities."""
        return np.where(np.abs(f - y) <= _TOLERANCE * np.abs(y).max(), 0.0, np.inf)

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the residual: a direction, as a constraint has no derivative."""
        return f - y

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return zeros."""
        return np.zeros_like(f)

    def dual_terms(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return y_i v_i."""
        return v * y

    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return zero where the outputs are certainly close to the targets, else infinity."""
        bound = arb(_TOLERANCE) * max((abs(b) for b in y), key=lambda b: float(b.mid()))
        close = all(abs(a - b) <= bound for a, b in zip(f, y, strict=True))
        return arb(0) if close else arb("inf")

    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value."""
        return sum((a * b for a, b in zip(v, y, strict=True)), arb(0))

    def prox(
        self, f: FloatArray, y: FloatArray, step: float | FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the targets and zeros."""
        return y, np.zeros_like(f)

    def optimality(
        self, f: FloatArray, v: FloatArray, y: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return ``f - y``."""
        return f - y, np.ones_like(f), np.zeros_like(v)


_LOSSES: dict[str, Loss] = {
    loss.name: loss for loss in (Squared(), Logistic(), Hinge(), Interpolation())
}


def as_loss(loss: str | Loss, *kinds: type[Loss]) -> Loss:
    """Return the loss of that name, or the loss itself, if it is of one of the kinds (of any, by
    default)."""
    names = sorted(name for name, known in _LOSSES.items() if not kinds or isinstance(known, kinds))
    if not isinstance(loss, Loss):
        return _LOSSES[one_of(loss, "loss", names)]
    if kinds and not isinstance(loss, kinds):
        one_of(loss.name, "loss", names)
    return loss
