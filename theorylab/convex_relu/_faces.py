r"""Neurons as points on faces of the arrangement: signs, sides, the closed cells that contain them,
and the local curvature.

A network $\sum_ja_j(Xu_j)_+$ is written with $p_j=|a_j|u_j$,
$s_j=\mathrm{sign}\,a_j$, for which the least penalty of a function is $\sum_j\|p_j\|$.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.convex_relu._network import Network
from theorylab.convex_relu.arrangements import enumerate_arrangements

BoolArray = NDArray[np.bool_]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Neurons:
    """Signed neurons on data.

    Parameters
    ----------
    data
        Shape (n, d), with the column of ones if there are biases.
    points
        Shape (m, d), non-zero.
    signs
        Shape (m,), 1 or -1.
    active, tied
        Shape (m, n): rows with ``x_i @ p_j > 0``, and rows with ``x_i @ p_j = 0`` up to rounding.
    """

    data: FloatArray
    points: FloatArray
    signs: FloatArray
    active: BoolArray
    tied: BoolArray

    @property
    def lengths(self) -> FloatArray:
        """Norms of the points, whose sum is the penalty."""
        result: FloatArray = np.linalg.norm(self.points, axis=1)
        return result

    @property
    def atoms(self) -> FloatArray:
        """Signed outputs of the unit neurons, shape (n, m)."""
        return atoms_of(self.data, self.points / self.lengths[:, None], self.signs)

    @property
    def fit(self) -> FloatArray:
        """Outputs, shape (n,)."""
        result: FloatArray = atoms_of(self.data, self.points, self.signs).sum(axis=1)
        return result

    def network(self, bias: bool) -> Network:
        """Return the balanced network."""
        root = np.sqrt(self.lengths)
        return network_of(self.points / root[:, None], self.signs * root, bias)


def atoms_of(data: FloatArray, directions: FloatArray, signs: FloatArray) -> FloatArray:
    """Return ``signs_k relu(data @ directions_k)`` as columns."""
    result: FloatArray = np.maximum(data @ directions.T, 0.0) * signs
    return result


def network_of(weights: FloatArray, output: FloatArray, bias: bool) -> Network:
    """Return the network whose last input is the bias, if there is one."""
    d = weights.shape[1] - int(bias)
    biases = np.ascontiguousarray(weights[:, d]) if bias else np.zeros(len(weights))
    return Network(np.ascontiguousarray(weights[:, :d]), output, biases)


def neurons_of(data: FloatArray, network: Network, bias: bool) -> Neurons:
    """Return the neurons of a network that are not zero."""
    first = (
        np.column_stack([network.weights, np.asarray(network.biases)]) if bias else network.weights
    )
    points = np.abs(network.output_weights)[:, None] * first
    keep = np.any(points != 0.0, axis=1)
    return locate(data, points[keep], np.sign(network.output_weights[keep]))


def locate(data: FloatArray, points: FloatArray, signs: FloatArray) -> Neurons:
    """Decide the side of every row for every point."""
    z = points @ data.T
    # Projecting a neuron onto a face and mapping it to weights and back leaves a few hundred units
    # in the last place.
    small = (
        1e3
        * (data.shape[1] + 1)
        * EPS
        * np.outer(np.linalg.norm(points, axis=1), np.linalg.norm(data, axis=1))
    )
    tied = np.abs(z) <= small
    return Neurons(data, points, signs, (z > 0.0) & ~tied, tied)


def cells_containing(data: FloatArray, active: BoolArray, tied: BoolArray) -> BoolArray:
    """Return the patterns of all closed full-dimensional cells that contain a point with these
    sides, shape (cells, n)."""
    rows = np.flatnonzero(tied)
    if rows.size == 0:
        return active[None, :]
    # Near the point the arrangement is that of the tied rows alone.
    local = enumerate_arrangements(data[rows])
    result = np.repeat(active[None, :], len(local), axis=0)
    result[:, rows] = local
    return result


def merge(neurons: Neurons) -> Neurons:
    """Add up neurons of one sign that share a closed cell: the outputs stay, the penalty does not
    grow."""
    points, signs = list(neurons.points), list(neurons.signs)
    current = neurons
    j = 0
    while j < len(points):
        for k in range(len(points) - 1, j, -1):
            positive = current.active[j] | current.active[k]
            negative = ~(current.active[j] | current.tied[j]) | ~(
                current.active[k] | current.tied[k]
            )
            if signs[j] == signs[k] and not np.any(positive & negative):
                points[j] = points[j] + points[k]
                del points[k], signs[k]
                current = locate(neurons.data, np.array(points), np.array(signs))
                break
        else:
            j += 1
    return current


def tangents(neurons: Neurons) -> list[FloatArray]:
    """Return orthonormal bases, shape (d, dimension), of the spans of the neurons' faces."""
    d = neurons.data.shape[1]
    result = []
    for tied in neurons.tied:
        rows = neurons.data[tied]
        lengths = np.linalg.norm(rows, axis=1)
        rows = rows[lengths > 0.0] / lengths[lengths > 0.0, None]
        if len(rows) == 0:
            result.append(np.eye(d))
            continue
        _, s, vt = np.linalg.svd(rows)
        rank = int(np.sum(s > 1e3 * max(rows.shape) * EPS * s[0]))
        result.append(vt[rank:].T)
    return result


def curvature(
    neurons: Neurons, bases: Sequence[FloatArray], second: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray]:
    """Return the Jacobian of the fit in the faces' coordinates, shape (n, total), and the Hessian
    of the objective.

    ``second`` holds the second derivatives of the loss at the fit.
    """
    n = neurons.data.shape[0]
    if not bases:
        return np.zeros((n, 0)), np.zeros((0, 0))
    jacobian = np.column_stack(
        [
            s * (a[:, None] * neurons.data) @ z
            for s, a, z in zip(neurons.signs, neurons.active, bases, strict=True)
        ]
    )
    hessian = jacobian.T @ (second[:, None] * jacobian)
    at = 0
    for point, length, z in zip(neurons.points, neurons.lengths, bases, strict=True):
        k = z.shape[1]
        unit = z.T @ point / length
        hessian[at : at + k, at : at + k] += beta / length * (np.eye(k) - np.outer(unit, unit))
        at += k
    return jacobian, hessian


def multipliers_of(neurons: Neurons, v: FloatArray, beta: float) -> tuple[list[FloatArray], float]:
    """Return the multipliers of the ties of every neuron, and the largest gradient on the faces."""
    multipliers, worst = [], 0.0
    for p, s, active, tied in zip(
        neurons.points, neurons.signs, neurons.active, neurons.tied, strict=True
    ):
        force = s * neurons.data[active].T @ v[active] - beta * p / np.linalg.norm(p)
        rows = neurons.data[tied]
        lam, *_ = np.linalg.lstsq(rows.T, force, rcond=None) if len(rows) else (np.zeros(0),)
        multipliers.append(lam)
        worst = max(worst, float(np.linalg.norm(force - rows.T @ lam)))
    return multipliers, worst
