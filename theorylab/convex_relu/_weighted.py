r"""A loss with weights, $\sum_iw_i\ell(f_i,y_i)$.

Its conjugate is $\sum_iw_i\ell^*(v_i/w_i,y_i)$: the dual point divided by the weights is one of
the loss without them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flint import arb, fmpq
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array
from theorylab.convex_relu.losses import Interpolation, Loss, as_loss

__all__ = ["Weighted"]


class Weighted(Loss):
    """A loss with a weight for every sample, sum_i w_i l(f_i, y_i).

    Its conjugate is ``w_i l*(v_i / w_i)``: the dual point divided by the weights is one of the
    loss without them.

    Parameters
    ----------
    loss
        "squared", "logistic", "hinge", or a ``Loss``.
    weights
        Positive, shape (n,); samples without weight are left out of the data.

    Examples
    --------
    >>> from theorylab.convex_relu import Weighted, train
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> twice = train([*X, X[0]], [*y, y[0]], 0.1)
    >>> weighted = train(X, y, 0.1, loss=Weighted("squared", [2.0, 1.0, 1.0]))
    >>> round(weighted.objective - twice.objective, 9), weighted.status.name
    (0.0, 'CERTIFIED')
    """

    def __init__(self, loss: str | Loss, weights: ArrayLike) -> None:
        base = as_loss(loss)
        if isinstance(base, Interpolation):
            raise ValueError("loss: expected one that weights change, got interpolation")
        # A copy: what was certified stays what it was.
        self.weights = np.array(as_array(weights, "weights", ndim=1, positive=True))
        self.weights.flags.writeable = False
        largest = float(self.weights.max())
        if not 1e-140 <= largest <= 1e140:
            raise ValueError(
                "weights: expected a largest entry between 1e-140 and 1e140, whose square is a "
                f"float64, got {largest}"
            )
        self._base = base
        self.name = f"weighted {base.name}"
        self.smooth, self.bounded_dual = base.smooth, base.bounded_dual
        self.degree, self.attained = base.degree, base.attained
        self.curvature_bound = base.curvature_bound * largest

    @property
    def base(self) -> Loss:
        """The loss without weights."""
        return self._base

    def on_rows(self, kept: NDArray[np.bool_]) -> Loss:
        """Return the loss of some of the samples."""
        return Weighted(self.base, self.weights[kept])

    def _beside(self, values: FloatArray) -> FloatArray:
        """The weights, as a column where there are several outputs."""
        return self.weights if values.ndim == 1 else self.weights[:, None]

    def check_labels(self, y: FloatArray) -> None:
        """Raise ``ValueError`` where labels or weights do not fit."""
        self.base.check_labels(y)
        as_array(self.weights, "loss.weights", shape=(len(y),))

    def terms(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the weighted losses."""
        return self._beside(f) * self.base.terms(f, y)

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the derivatives."""
        return self._beside(f) * self.base.gradient(f, y)

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        """Return the second derivatives."""
        return self._beside(f) * self.base.curvature(f, y)

    def dual_terms(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return the terms of the dual value."""
        w = self._beside(v)
        return w * self.base.dual_terms(v / w, y)

    def dual_sizes(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return sizes of the terms."""
        w = self._beside(v)
        return w * self.base.dual_sizes(v / w, y)

    def value_ball(self, f: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the value."""
        terms = zip(self.weights, f, y, strict=True)
        return sum((arb(float(w)) * self.base.value_ball([a], [b]) for w, a, b in terms), arb(0))

    def dual_ball(self, v: list[arb], y: list[arb]) -> arb:
        """Return an enclosure of the dual value."""
        weights = [arb(float(w)) for w in self.weights]
        terms = zip(weights, v, y, strict=True)
        return sum((w * self.base.dual_ball([a / w], [b]) for w, a, b in terms), arb(0))

    def prox(
        self, f: FloatArray, y: FloatArray, step: float | FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the proximal point and its derivative."""
        return self.base.prox(f, y, step * self.weights)

    def into_domain(self, v: FloatArray, last: FloatArray, y: FloatArray) -> FloatArray:
        """Return a dual point moved into the domain."""
        w = self.weights
        with np.errstate(over="ignore"):  # far outside
            return w * self.base.into_domain(v / w, last / w, y)

    def in_domain(self, v: Sequence[fmpq], y: FloatArray) -> bool:
        """Whether an exact dual point lies in the domain."""
        weights = (fmpq(*float(w).as_integer_ratio()) for w in self.weights)
        return self.base.in_domain([a / w for a, w in zip(v, weights, strict=True)], y)

    def interior(self, v: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
        """Entries of a dual point that may move both ways inside the domain."""
        return self.base.interior(v / self.weights, y)

    def widths(self, y: FloatArray) -> FloatArray:
        """Return the weights."""
        return self.weights * self.base.widths(y)

    def at_ends(self, v: FloatArray, y: FloatArray) -> FloatArray:
        """Return a dual point whose entries at the ends of the domain are there exactly."""
        return self.weights * self.base.at_ends(v / self.weights, y)

    def optimality(
        self, f: FloatArray, v: FloatArray, y: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the residuals times the weights, and their derivatives in f and v."""
        w = self.weights
        residual, in_f, in_v = self.base.optimality(f, v / w, y)
        return w * residual, w * in_f, in_v
