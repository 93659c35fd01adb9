"""Neurons $p_j=|a_j|u_j$ of one output, each with its sign and its face of the arrangement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._problem import BoolArray


@dataclass
class Neurons:
    """Neurons p_j with signs and faces; row 0 is the skip connection if there is one.

    Parameters
    ----------
    p, sigma
        Shapes (m, d) and (m,).
    active, tight
        The side of every row for every neuron, shape (m, n), and the rows held at zero.
    linear
        Number of leading rows that are linear maps without penalty, 0 or 1.
    """

    p: FloatArray
    sigma: FloatArray
    active: BoolArray
    tight: BoolArray
    linear: int

    @staticmethod
    def none(n: int, d: int, linear: int) -> Neurons:
        return Neurons(
            np.zeros((linear, d)),
            np.ones(linear),
            np.ones((linear, n), dtype=bool),
            np.zeros((linear, n), dtype=bool),
            linear,
        )

    def copy(self) -> Neurons:
        return Neurons(
            self.p.copy(), self.sigma.copy(), self.active.copy(), self.tight.copy(), self.linear
        )

    def pruned(self) -> Neurons:
        """Leave out neurons that are zero, if there are any."""
        keep = np.any(self.p != 0.0, axis=1)
        keep[: self.linear] = True
        if keep.all():
            return self
        return Neurons(
            self.p[keep], self.sigma[keep], self.active[keep], self.tight[keep], self.linear
        )

    def extended(
        self, p: FloatArray, sigma: FloatArray, active: BoolArray, tight: BoolArray
    ) -> Neurons:
        return Neurons(
            np.concatenate([self.p, p]),
            np.concatenate([self.sigma, sigma]),
            np.concatenate([self.active, active]),
            np.concatenate([self.tight, tight]),
            self.linear,
        )

    def blend(self, other: Neurons, weight: float) -> Neurons:
        """Return the network whose output is the convex combination of both outputs."""
        k = self.linear
        p = weight * other.p
        mixed = self.extended(p[k:], other.sigma[k:], other.active[k:], other.tight[k:])
        mixed.p[: len(self.p)] *= 1.0 - weight
        mixed.p[:k] += p[:k]
        return mixed

    def output(self, X: FloatArray) -> FloatArray:
        """Return the outputs, on the sides that the neurons are said to be."""
        hidden = np.where(self.active & ~self.tight, self.p @ X.T, 0.0)
        result: FloatArray = self.sigma @ hidden
        return result

    @property
    def norm(self) -> float:
        """The penalty over beta."""
        return float(np.linalg.norm(self.p[self.linear :], axis=1).sum())

    def released(self, X: FloatArray, z: FloatArray) -> Neurons | None:
        """Release, for every neuron, the row held at zero whose side descends most steeply at the
        dual point z, in units of the penalty; None if there is none."""
        result = self.copy()
        for j in np.flatnonzero(self.tight.any(axis=1)):
            rows = np.flatnonzero(self.tight[j])
            unit = self.p[j] / np.linalg.norm(self.p[j])
            held = X[rows]
            pull = unit - self.sigma[j] * (z * (self.active[j] & ~self.tight[j])) @ X
            multipliers, _, rank, _ = np.linalg.lstsq(held.T, pull, rcond=1e-11)
            if j < self.linear or rank < len(rows):
                continue
            lengths = np.linalg.norm(held, axis=1)
            slopes = np.stack([multipliers, self.sigma[j] * z[rows] - multipliers]) * lengths
            side, which = np.unravel_index(np.argmax(slopes), slopes.shape)
            if slopes[side, which] > 1e-9:
                result.tight[j, rows[which]] = False
                result.active[j, rows[which]] = side == 1
        return None if (result.tight == self.tight).all() else result
