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
from typing import ClassVar

import numpy as np
from flint import arb

from theorylab._validation import FloatArray, one_of

__all__ = ["Hinge", "Interpolation", "Logistic", "Loss", "Squared"]

_TOLERANCE = 1e-10


class Loss(ABC):
    """A convex loss, separable over samples."""

    name: ClassVar[str]
    smooth: ClassVar[bool] = True
    #: Largest second derivative; of the Moreau envelope that training uses, if not smooth.
    curvature_bound: ClassVar[float] = 1.0
    #: Whether the dual is confined to 0 <= y_i v_i <= 1.
    bounded_dual: ClassVar[bool] = True
    #: Whether l(t f, t y) = t^degree l(f, y) for t > 0; None where targets are labels.
    degree: ClassVar[int | None] = None
    #: Whether the loss of a sample is least at a finite output.
    attained: ClassVar[bool] = True

    def check_labels(self, y: FloatArray) -> None:
        """Raise ``ValueError`` where the labels do not belong to the loss."""
        if not np.all(np.abs(y) == 1.0):
            raise ValueError(
                f"y: expected labels -1 and 1 for the {self.name} loss, got "
                f"{y[np.abs(y) != 1.0].flat[0]}"
            )

    @abstractmethod
    def value(self, f: FloatArray, y: FloatArray) -> float:
        """Return sum_i l(f_i, y_i)."""

    @abstractmethod
    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the derivatives l'(f_i, y_i)."""

    @abstractmethod
    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the second derivatives l''(f_i, y_i)."""

    @abstractmethod
    def dual(self, v: FloatArray, y: FloatArray) -> float:
        """Return -sum_i l*(-v_i, y_i), minus infinity outside the domain."""

    @abstractmethod
    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the value."""

    @abstractmethod
    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value for ``v`` in the domain."""

    def prox(self, f: FloatArray, y: FloatArray, step: float) -> tuple[FloatArray, FloatArray]:
        """Return argmin_s sum_i l(s_i, y_i) + |s - f|^2 / (2 step) and its derivative in f; needed
        of losses that are not smooth."""
        raise NotImplementedError

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

    def value(self, f: FloatArray, y: FloatArray) -> float:
        """Return the value."""
        return 0.5 * float(np.sum((f - y) ** 2))

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the residual."""
        return f - y

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return ones."""
        return np.ones_like(f)

    def dual(self, v: FloatArray, y: FloatArray) -> float:
        """Return y @ v - |v|^2 / 2."""
        return float(np.sum(v * (y - 0.5 * v)))

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

    def value(self, f: FloatArray, y: FloatArray) -> float:
        """Return the value."""
        return float(np.sum(np.logaddexp(0.0, -y * f)))

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the derivatives."""
        result: FloatArray = -y * np.exp(-np.logaddexp(0.0, y * f))
        return result

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the second derivatives."""
        result: FloatArray = np.exp(-np.logaddexp(0.0, f) - np.logaddexp(0.0, -f))
        return result

    def dual(self, v: FloatArray, y: FloatArray) -> float:
        """Return the sum of the entropies of y_i v_i."""
        a = y * v
        if a.min() < 0.0 or a.max() > 1.0:
            return -np.inf
        inner = a[(a > 0.0) & (a < 1.0)]
        return float(-np.sum(inner * np.log(inner) + (1.0 - inner) * np.log1p(-inner)))

    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the value."""
        return sum(((1 + (-b * a).exp()).log() for a, b in zip(f, y, strict=True)), arb(0))

    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value."""
        total = arb(0)
        for a in (b * c for b, c in zip(v, y, strict=True)):
            if a != 0 and a != 1:  # noqa: PLR1714
                total -= a * a.log() + (1 - a) * (1 - a).log()
        return total


class Hinge(Loss):
    """Hinge loss, l(f, y) = max(1 - y f, 0) for labels -1 and 1."""

    name = "hinge"
    smooth = False
    curvature_bound = 10.0

    def value(self, f: FloatArray, y: FloatArray) -> float:
        """Return the value."""
        return float(np.sum(np.maximum(1.0 - y * f, 0.0)))

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the left derivative in y f."""
        return np.where(y * f <= 1.0, -y, 0.0)

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return zeros."""
        return np.zeros_like(f)

    def dual(self, v: FloatArray, y: FloatArray) -> float:
        """Return the sum of y_i v_i."""
        a = y * v
        return float(a.sum()) if a.min() >= 0.0 and a.max() <= 1.0 else -np.inf

    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the value."""
        return sum(((1 - a * b).max(arb(0)) for a, b in zip(f, y, strict=True)), arb(0))

    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value."""
        return sum((a * b for a, b in zip(v, y, strict=True)), arb(0))

    def prox(self, f: FloatArray, y: FloatArray, step: float) -> tuple[FloatArray, FloatArray]:
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

    def value(self, f: FloatArray, y: FloatArray) -> float:
        """Return zero or infinity."""
        return 0.0 if np.abs(f - y).max() <= _TOLERANCE * np.abs(y).max() else np.inf

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the residual: a direction, as a constraint has no derivative."""
        return f - y

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return zeros."""
        return np.zeros_like(f)

    def dual(self, v: FloatArray, y: FloatArray) -> float:
        """Return y @ v."""
        return float(np.sum(v * y))

    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return zero where the outputs are certainly close to the targets, else infinity."""
        bound = arb(_TOLERANCE) * max((abs(b) for b in y), key=lambda b: float(b.mid()))
        close = all(abs(a - b) <= bound for a, b in zip(f, y, strict=True))
        return arb(0) if close else arb("inf")

    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value."""
        return sum((a * b for a, b in zip(v, y, strict=True)), arb(0))

    def prox(self, f: FloatArray, y: FloatArray, step: float) -> tuple[FloatArray, FloatArray]:
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


def as_loss(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the loss itself."""
    if isinstance(loss, Loss):
        return loss
    return _LOSSES[one_of(loss, "loss", sorted(_LOSSES))]
