"""The derivative of an optimum in the data and the penalty, on the faces where its neurons lie."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_flag, as_real
from theorylab.convex_relu._faces import (
    EPS,
    Neurons,
    curvature,
    multipliers_of,
    neurons_of,
    tangents,
)
from theorylab.convex_relu._minimality import optimal_pruning
from theorylab.convex_relu._network import Network, as_network
from theorylab.convex_relu._problem import as_problem, augment
from theorylab.convex_relu.losses import Loss, Squared
from theorylab.convex_relu.training import train
from theorylab.numerics.results import result


class SensitivityStatus(StrEnum):
    """Whether the derivative is determined."""

    REGULAR = "the optimality conditions on the current faces determine the derivative"
    SINGULAR = (
        "the optimality conditions on the current faces are singular (dependent "
        "neurons or dependent tied rows); "
        "the derivative returned is one of least norm"
    )


@result
class Sensitivity:
    """Derivative of an optimum in one direction of the data.

    Parameters
    ----------
    points, signs
        Neurons ``p_j = |a_j| u_j``, shape (m, d), and their signs, shape (m,).
    d_points
        Derivatives of the points, shape (m, d).
    d_fit
        Derivative of the outputs, shape (n,).
    d_objective, d_penalty
        Derivatives of the optimal value and of the penalty ``sum_j |p_j|``.
    margin
        How far, relative to ``beta`` or to the neurons, the faces are from changing: the least of
        the distances of the ties' multipliers from the ends of their intervals. Zero means that the
        derivative is one-sided.
    status
        Whether the derivative is determined.
    """

    points: FloatArray
    signs: FloatArray
    d_points: FloatArray
    d_fit: FloatArray
    d_objective: float
    d_penalty: float
    margin: float
    status: SensitivityStatus


def sensitivity(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    d_X: ArrayLike | None = None,
    d_y: ArrayLike | None = None,
    d_beta: float = 0.0,
    network: Network | tuple[ArrayLike, ArrayLike] | None = None,
    loss: str | Loss = "squared",
    bias: bool = False,
) -> Sensitivity:
    """Differentiate the optimal network along ``(X + t d_X, y + t d_y, beta + t d_beta)`` at t = 0.

    Parameters
    ----------
    X, y, beta
        The problem; one output.
    d_X, d_y, d_beta
        The direction; zero by default. ``d_y`` needs the squared loss, weighted or not.
    network
        A minimal optimal network; by default the one that training and pruning give.
    loss, bias
        As for ``train``; a smooth loss.

    Returns
    -------
    Sensitivity
        Derivatives of the neurons, the outputs, the value and the penalty.

    Raises
    ------
    ValueError
        For malformed arguments, a loss that is not smooth, or a network that is not stationary.

    Notes
    -----
    mishkin2023-optimal, sensitivity; the formula is derived. On the faces ``B_j p_j = 0`` the
    optimum solves ``-s_j X.T D_j v + beta p_j/|p_j| + B_j.T lam_j = 0`` with ``v = -L'(sum_j s_j
    D_j X p_j)``; differentiating both gives a linear system whose matrix is the Hessian on the
    faces, ``A.T L'' A + beta blkdiag(I - p p.T/|p|^2)/|p|``. The ties hold while ``0 < lam_jk <
    -s_j v_k``. A neuron that is about to appear elsewhere is not seen here, but by
    ``find_optimal_set(...).next_slack``.

    Examples
    --------
    >>> from theorylab.convex_relu import sensitivity
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> change = sensitivity(X, y, 0.1, d_beta=1.0)
    >>> round(change.d_objective, 4), round(change.d_penalty, 4)
    (1.2866, -1.7441)
    """
    X, y, beta, chosen = as_problem(X, y, beta, loss)
    bias = as_flag(bias, "bias")
    if y.ndim != 1:
        raise ValueError(f"y: expected one output, shape ({X.shape[0]},), got {y.shape}")
    if not chosen.smooth:
        raise ValueError(f"loss: expected a smooth loss, got {chosen.name}")
    n = X.shape[0]
    d_data = np.zeros_like(X) if d_X is None else as_array(d_X, "d_X", shape=X.shape)
    if bias:
        d_data = np.column_stack([d_data, np.zeros(n)])
    d_target = np.zeros(n) if d_y is None else as_array(d_y, "d_y", shape=(n,))
    if np.any(d_target) and not isinstance(chosen.base, Squared):
        raise ValueError(f"d_y: expected zero for the {chosen.name} loss, whose labels are fixed")
    d_beta = as_real(d_beta, "d_beta")
    origin = "one"
    if network is None:
        training = train(X, y, beta, loss=chosen, bias=bias, tol=1e-9)
        origin = f"from training, which ended as {training.status.name}, one"
        given = optimal_pruning(X, training.network, bias=bias).network
    else:
        given = as_network(network, X, y)
    neurons = neurons_of(augment(X, bias), given, bias)
    fit = neurons.fit
    v = -chosen.gradient(fit, y)
    multipliers, residual = multipliers_of(neurons, v, beta)
    # Training stops at a reduced gradient of 1e-9 beta, summed over the norms of n rows.
    if residual > 1e-6 * beta:
        raise ValueError(
            f"network: expected a stationary network, got {origin} whose gradient on its "
            f"faces is {residual / beta:.1e} beta"
        )
    return _implicit_derivative(
        neurons, v, chosen.curvature(fit, y), beta, multipliers, d_data, d_target, d_beta
    )


def _implicit_derivative(
    neurons: Neurons,
    v: FloatArray,
    second: FloatArray,
    beta: float,
    multipliers: list[FloatArray],
    d_data: FloatArray,
    d_target: FloatArray,
    d_beta: float,
) -> Sensitivity:
    bases = tangents(neurons)
    jacobian, hessian = curvature(neurons, bases, second, beta)
    data, lengths = neurons.data, neurons.lengths
    units = neurons.points / lengths[:, None]
    m = len(lengths)
    # What the faces' own motion does: B w = -dB p keeps the ties.
    follow = np.zeros_like(neurons.points)
    explicit = np.zeros(len(v))
    regular = True
    for j in range(m):
        rows, d_rows = data[neurons.tied[j]], d_data[neurons.tied[j]]
        if len(rows):
            follow[j] = np.linalg.lstsq(rows, -d_rows @ neurons.points[j], rcond=None)[0]
            regular = regular and len(rows) == data.shape[1] - bases[j].shape[1]
        explicit += (
            neurons.signs[j] * neurons.active[j] * (data @ follow[j] + d_data @ neurons.points[j])
        )
    # Of the targets, which move for the squared loss only, what counts is their distance.
    pull = second * (explicit - d_target)
    right, envelope = [], d_beta * float(lengths.sum()) + float(v @ d_target)
    for j in range(m):
        s, active, tied = neurons.signs[j], neurons.active[j], neurons.tied[j]
        force = (
            s * d_data[active].T @ v[active]
            - s * data[active].T @ pull[active]
            - d_beta * units[j]
            - d_data[tied].T @ multipliers[j]
        )
        right.append(bases[j].T @ force)
        envelope += float(
            -s * v[active] @ (d_data[active] @ neurons.points[j])
            + multipliers[j] @ (d_data[tied] @ neurons.points[j])
        )
    step = np.zeros(0)
    if m:
        values = np.linalg.eigvalsh(hessian)
        regular = regular and bool(values[0] > 1e3 * len(values) * EPS * values[-1])
        step = np.linalg.lstsq(hessian, np.concatenate(right), rcond=None)[0]
    d_points, at = follow.copy(), 0
    for j in range(m):
        size = bases[j].shape[1]
        d_points[j] += bases[j] @ step[at : at + size]
        at += size
    margin = np.inf
    for s, tied, lam in zip(neurons.signs, neurons.tied, multipliers, strict=True):
        if lam.size:
            room = np.minimum(lam, -s * v[tied] - lam) * np.linalg.norm(data[tied], axis=1) / beta
            margin = min(margin, float(room.min()))
    return Sensitivity(
        points=neurons.points,
        signs=neurons.signs,
        d_points=d_points,
        d_fit=explicit + jacobian @ step,
        d_objective=envelope,
        d_penalty=float(np.sum(units * d_points)),
        margin=margin,
        status=SensitivityStatus.REGULAR if regular else SensitivityStatus.SINGULAR,
    )
