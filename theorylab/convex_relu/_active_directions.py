"""Directions in which the dual constraint is active: the maximisers on the cells that reach it, and
how far the dual point is from the exact one."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._cones import ConeSearch
from theorylab.convex_relu._constraint import tight_leaves
from theorylab.convex_relu._dual_norm import rounding_slack
from theorylab.convex_relu._faces import (
    EPS,
    BoolArray,
    Neurons,
    cells_containing,
    curvature,
    locate,
    multipliers_of,
    tangents,
)
from theorylab.convex_relu._reduction import Reduction
from theorylab.convex_relu.arrangements import cover_count, enumerate_arrangements
from theorylab.convex_relu.losses import Loss, Squared
from theorylab.numerics.budgets import steps_in_a_minute

_MAX_NODES = 2_000_000  # of a covering, or half a minute's
_MAX_ENTRIES = 1_000_000  # of all patterns, where they take the place of a covering


def newton_distance(
    neurons: Neurons, v: FloatArray, loss: Loss, y: FloatArray, beta: float
) -> float:
    """Bound how far ``v`` is from that of the exact stationary point on the same faces, or return
    infinity.

    In the norm of the Hessian, where a step has length at most r / sqrt(mu) for a gradient r and
    least eigenvalue mu, there is a stationary point within twice a step if third derivatives are
    there at most one over that (Newton-Kantorovich). Short neurons bend much, but are held as
    firmly: in this norm only their lengths are free."""
    if neurons.signs.size == 0:
        return 0.0
    bases = tangents(neurons)
    jacobian, hessian = curvature(neurons, bases, loss.curvature(neurons.fit, y), beta)
    _, gradient = multipliers_of(neurons, v, beta)
    # The products that the gradient sums are rounded.
    gradient += EPS * float(np.abs(v) @ np.linalg.norm(neurons.data, axis=1))
    # What is left of the conditions where neurons and v are not quite consistent.
    offset = v + loss.gradient(neurons.fit, y)
    residual = gradient * np.sqrt(neurons.signs.size) + float(np.linalg.norm(jacobian.T @ offset))
    values, vectors = np.linalg.eigh(hessian)
    if values[0] <= 0.0:
        return np.inf
    root = vectors / np.sqrt(values)
    inverse = root @ root.T
    step = 2.0 * residual / float(np.sqrt(values[0]))
    # Third derivatives of beta |p|: at most 3 beta / |p|^2 times the part of a unit step along p
    # and the square of that across, on the ball of steps, where |p| stays above half the length.
    third, at = 0.0, 0
    for point, length, basis in zip(neurons.points, neurons.lengths, bases, strict=True):
        block = inverse[at : at + basis.shape[1], at : at + basis.shape[1]]
        at += basis.shape[1]
        unit = basis.T @ point / length
        reach = float(np.sqrt(np.linalg.norm(block, 2)))
        if step * reach > 0.5 * length:
            return np.inf
        turned = 2.0 * step * reach**2 / length
        along, across = float(np.sqrt(unit @ block @ unit)), float(np.sqrt(length / beta))
        third += 12.0 * beta / length**2 * (along + turned) * (across + turned) ** 2
    if not isinstance(loss.base, Squared):
        # Those of the loss are at most its curvature bound.
        third += loss.curvature_bound * float(np.linalg.norm(jacobian @ root, 2)) ** 3
    # From -L'(fit) v moves by dv with |dv|^2 <= L |dv @ A dp| (cocoercivity) <= L |gradient @ dp|,
    # the penalty being convex: less than sqrt(L) times a step.
    distance = float(np.linalg.norm(offset)) + float(np.sqrt(loss.curvature_bound)) * step
    return distance if third * step <= 1.0 else np.inf


def promising_cells(
    reduction: Reduction, data: FloatArray, v: FloatArray, beta: float
) -> BoolArray | None:
    """Return the patterns of all cells on which ``|v @ relu(X u)|`` may exceed ``(1 - 9e-7) beta``,
    None where they are not found within the budget.

    Such a u lies in a leaf of the covering with little slack, and close to the leaf's majorant w:
    ``(1 - 9e-7) beta <= w @ u``, ``|w| <= beta``."""
    n, d = reduction.data.shape
    weight = float(np.abs(v) @ reduction.norms)
    threshold = beta * (1.0 + max(1e-9, rounding_slack(n, d, weight, beta)))
    nodes = steps_in_a_minute(4000.0 + 2.4 * len(reduction.lines) * d * d, most=_MAX_NODES)
    found = []
    for sign in (1.0, -1.0):
        if d == 0:
            break
        point, linear = reduction.condense(sign * v)
        leaves = None
        if 2.0**d <= nodes:  # every orthant is one
            leaves, *_ = tight_leaves(reduction.lines, point, linear, threshold, nodes)
        if leaves is None:
            few = cover_count(n, d) * n <= _MAX_ENTRIES
            return enumerate_arrangements(data) if few else None
        majorants = leaves[1] @ reduction.basis
        majorants /= np.linalg.norm(majorants, axis=1, keepdims=True)
        sides = locate(data, majorants, np.full(len(majorants), sign))
        near = np.abs(majorants @ data.T) <= 2e-3 * np.linalg.norm(data, axis=1)
        found += [
            cells_containing(data, active & ~tied, tied)
            for active, tied in zip(sides.active, near, strict=True)
        ]
    if not found:
        return np.ones((1, len(v)), dtype=bool)
    return np.unique(np.vstack(found), axis=0)


def cell_maximisers(
    search: ConeSearch, v: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the maxima of ``s v @ relu(X u)`` over the cells that exceed beta / 2, their unit
    maximisers and signs."""
    values, directions, signs = [], [], []
    for s in (1, -1):
        found, nearest = search(v, s, 0.5 * beta)
        keep = found > 0.5 * beta
        values.append(found[keep])
        directions.append(nearest[keep] / found[keep, None])
        signs.append(np.full(int(keep.sum()), float(s)))
    return np.concatenate(values), np.concatenate(directions), np.concatenate(signs)


def distinct(
    directions: FloatArray, signs: FloatArray, values: FloatArray, tolerance: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Keep one of the directions that several cells share."""
    keep: list[int] = []
    for k in range(len(signs)):
        same = [
            j
            for j in keep
            if signs[j] == signs[k] and np.linalg.norm(directions[j] - directions[k]) <= tolerance
        ]
        if not same:
            keep.append(k)
        elif values[k] > values[same[0]]:
            keep[keep.index(same[0])] = k
    return directions[keep], signs[keep], values[keep]


def assign(neurons: Neurons, directions: FloatArray, signs: FloatArray) -> FloatArray:
    """Return the weights of a network on the directions: each neuron counts for the nearest
    direction of its sign."""
    weights = np.zeros(len(signs))
    for point, sign, length in zip(neurons.points, neurons.signs, neurons.lengths, strict=True):
        alignment = np.where(signs == sign, directions @ point, -np.inf)
        weights[int(np.argmax(alignment))] += length
    return weights
