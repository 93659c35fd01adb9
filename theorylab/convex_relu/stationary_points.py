r"""Local minima of the training problem of two-layer ReLU networks, as optima of sub-sampled convex
programs.

Descent on $F(u,a)=\tfrac12\|\sum_ja_j(Xu_j)_+-y\|^2+\tfrac\beta2\sum_j(\|u_j\|^2+a_j^2)$ ends
in balanced networks, $|a_j|=\|u_j\|$; with $p_j=|a_j|u_j$,
$s_j=\mathrm{sign}\,a_j$ and the residual $v=y-\sum_js_j(Xp_j)_+$, a network without
zero neurons is a local minimum if and only if

$$\beta\frac{p_j^\top\delta}{\|p_j\|}\;\ge\;s_j\sum_{x_k^\top p_j>0}v_kx_k^\top\delta
+s_j\sum_{x_k^\top p_j=0}v_k(x_k^\top\delta)_+\qquad\text{for all }\delta\text{ and }j,$$

if and only if it is optimal for the convex program over the closed cells that contain its own
neurons, each with that neuron's sign: on a product of such cells the objective is convex, and the
finitely many products cover a neighbourhood. In particular it is optimal for the program with one
cell per neuron, the ties counted as active ($D_{kk}=1$ where $x_k^\top p_j=0$), or any
other choice. Weak duality makes the test: the cells' constraints $\|\Pi_K(s_jX^\top
Dv)\|\le\beta$ hold, up to the scaling of v that gives the certified gap.

Ties are the rule: descent ends on kinks, where gradients do not vanish. A Clarke stationary point,
zero in the convex hull of the limits of gradients, need not be a local minimum: at a tie with
$s_jv_k>0$ moving the neuron to either side may descend. A local minimum that has a zero
neuron is global, since the zero neuron asks for the dual constraint on the whole sphere. The paper
(mishkin2023-optimal) states stationary points as optima of sub-sampled programs; its text was not
consulted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from theorylab._validation import FloatArray, as_count, one_of, refuses_overflow
from theorylab.convex_relu._cones import ConeSearch
from theorylab.convex_relu._faces import BoolArray, Neurons, cells_containing, locate, neurons_of
from theorylab.convex_relu._local import descend
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._network_descent import as_start
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.results import result

__all__ = [
    "StationaryPoint",
    "SubsampledCertificate",
    "TieMultipliers",
    "certify_subsampled",
    "least_directional_derivative",
    "local_minimum",
    "tie_multipliers",
]


_VANISHED = 1e-11


@result
class StationaryPoint:
    """A local minimum of the non-convex problem.

    Parameters
    ----------
    network
        Its neurons that are not zero, balanced.
    objective
        Value.
    signs
        Signs of the output weights, shape (m,).
    patterns
        ``X @ u_j >= 0`` with ties counted as active, shape (m, n).
    ties
        Rows with ``x_k @ u_j = 0``, shape (m, n).
    certificate
        Its optimality over all cells that contain its neurons.
    """

    network: Network
    objective: float
    signs: FloatArray
    patterns: BoolArray
    ties: BoolArray
    certificate: SubsampledCertificate


def local_minimum(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    network: Network | tuple[ArrayLike, ArrayLike],
    *,
    max_steps: int = 1000,
) -> StationaryPoint:
    """Descend from a network to a local minimum, exactly.

    Parameters
    ----------
    X, y, beta, network
        As for ``gradient_descent``; the end of which is a good start.
    max_steps
        Largest number of Newton steps on the faces.

    Returns
    -------
    StationaryPoint
        The local minimum and its certificate. Neurons that vanish are dropped, and neurons of one
        sign in one cell are added up.

    Raises
    ------
    ValueError
        For malformed data or a network of the wrong shape.

    Notes
    -----
    Newton steps on the faces of the arrangement, searched exactly through kinks; the objective
    never rises.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import local_minimum, Network
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> start = Network(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, -1.0]))
    >>> point = local_minimum(X, y, 0.1, start)
    >>> round(point.objective, 4)
    0.1374
    """
    X, y, beta, first, output = as_start(X, y, beta, network)
    max_steps = as_count(max_steps, "max_steps")
    reduction = reduce_rows(X)
    neurons = neurons_of(
        reduction.data, Network(np.ascontiguousarray(first @ reduction.basis.T), output), False
    )
    # A neuron without an active row only shrinks.
    keep = neurons.active.any(axis=1)
    points, signs, active = neurons.points, neurons.signs, neurons.active | neurons.tied
    while True:
        points, signs, active = points[keep].copy(), signs[keep].copy(), active[keep].copy()
        if len(points) == 0:
            break
        ties = np.zeros_like(active)
        descend(
            reduction.data,
            y,
            np.ones_like(y),
            beta,
            points,
            signs,
            active,
            ties,
            0,
            True,
            max_steps,
            1e-12,
        )
        lengths = np.linalg.norm(points, axis=1)
        # Newton steps shorten a vanishing neuron by a factor; below this it no longer changes the
        # objective in float64.
        keep = lengths > _VANISHED * lengths.sum()
        if keep.all():
            break
    end = locate(X, points @ reduction.basis, signs)
    found = end.network(False)
    certificate = _certify(end, X, y, beta, "all")
    return StationaryPoint(
        found, certificate.objective, end.signs, end.active | end.tied, end.tied, certificate
    )


@result
class SubsampledCertificate:
    """A network, and what it lacks to the optimum of a sub-sampled convex program.

    Parameters
    ----------
    patterns, signs
        The program's pairs: shape (P, n) and (P,).
    objective
        Value of the network.
    dual_objective
        Lower bound of the program's optimum.
    dual_norm
        Largest ``|Proj_K(s X.T D v)| / beta`` over the pairs at the residual v: one where the
        network is optimal.
    """

    patterns: BoolArray
    signs: FloatArray
    objective: float
    dual_objective: float
    dual_norm: float

    @property
    def gap(self) -> float:
        """Relative gap to the program's optimum; zero up to rounding where the network is optimal
        for it."""
        return relative_gap(self.objective, self.dual_objective)


def certify_subsampled(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    network: Network | tuple[ArrayLike, ArrayLike],
    *,
    cells: str = "all",
) -> SubsampledCertificate:
    """Compare a network with the optimum of the convex program over the cells of its own neurons,
    each with the neuron's sign.

    Parameters
    ----------
    X, y, beta, network
        As for ``gradient_descent``.
    cells
        "all": every closed cell that contains a neuron, so that the gap is zero exactly at the
        local minima. "own": one cell per neuron, ties counted as active; then zero gap is
        necessary.

    Returns
    -------
    SubsampledCertificate
        Objective, lower bound, pairs.

    Raises
    ------
    ValueError
        For malformed data, a network of the wrong shape, or an unknown option.

    Notes
    -----
    mishkin2023-optimal (stationary points as optima of sub-sampled programs; the form with all
    cells is derived, module docstring). The bound holds for any network; the objective is that of
    the network balanced neuron by neuron.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import certify_subsampled, Network
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> start = Network(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, -1.0]))
    >>> certificate = certify_subsampled(X, y, 0.1, start)
    >>> certificate.dual_objective <= certificate.objective
    True
    """
    X, y, beta, first, output = as_start(X, y, beta, network)
    option = one_of(cells, "cells", ("all", "own"))
    return _certify(neurons_of(X, Network(first, output), False), X, y, beta, option)


def _certify(
    neurons: Neurons, X: FloatArray, y: FloatArray, beta: float, cells: str
) -> SubsampledCertificate:
    patterns, signs = [np.zeros((0, X.shape[0]), dtype=bool)], [np.zeros(0)]
    for s, active, tied in zip(neurons.signs, neurons.active, neurons.tied, strict=True):
        part = cells_containing(X, active, tied) if cells == "all" else (active | tied)[None, :]
        patterns.append(part)
        signs.append(np.full(len(part), s))
    found, sign = np.vstack(patterns), np.concatenate(signs)
    v = y - neurons.fit
    norm = 0.0
    for s in (1, -1):
        if np.any(sign == s):
            values, _ = ConeSearch(X, np.ascontiguousarray(found[sign == s]))(v, s, 0.0)
            norm = max(norm, float(values.max()))
    objective = 0.5 * float(v @ v) + beta * float(neurons.lengths.sum())
    # The best multiple of v, from zero on, that is feasible for the pairs.
    best = max(float(y @ v), 0.0) / max(float(v @ v), 1e-300)
    scale = min(best, beta / norm if norm > 0.0 else np.inf)
    dual = scale * v
    return SubsampledCertificate(
        found, sign, objective, float(y @ dual - 0.5 * dual @ dual), norm / beta
    )


@refuses_overflow("X", "y", "beta", "network")
def least_directional_derivative(
    X: ArrayLike, y: ArrayLike, beta: float, network: Network | tuple[ArrayLike, ArrayLike]
) -> float:
    """Return the least one-sided derivative of the objective over all unit directions of the
    weights: 0 at a directionally stationary network, negative elsewhere.

    Parameters
    ----------
    X, y, beta, network
        As for ``gradient_descent``; the layers need not be balanced.

    Notes
    -----
    The derivative is linear on each cell of the arrangement of a neuron's tied rows, so its least
    value there is minus the length of a projection onto the cell, exact up to rounding.

    Examples
    --------
    >>> from theorylab.convex_relu import least_directional_derivative
    >>> least_directional_derivative([[1.0]], [2.0], 0.5, ([[1.0]], [1.0])).__round__(6)
    -0.707107
    >>> least_directional_derivative([[1.0]], [1.5], 0.5, ([[1.0]], [1.0]))
    -0.0
    """
    X, y, beta, first, output = as_start(X, y, beta, network)
    v = y - np.maximum(X @ first.T, 0.0) @ output
    sides = locate(X, first, np.sign(output))
    squares = float(np.sum((beta * output - np.maximum(X @ first.T, 0.0).T @ v) ** 2))
    for u, a, active, tied in zip(first, output, sides.active, sides.tied, strict=True):
        steepest = 0.0
        for pattern in cells_containing(X, active, tied):
            gradient = beta * u - a * X[pattern].T @ v[pattern]
            walls = (2.0 * pattern[tied] - 1.0)[:, None] * X[tied]
            length = nnls(walls.T, gradient)[1] if len(walls) else float(np.linalg.norm(gradient))
            steepest = max(steepest, length)
        squares += steepest**2
    return -float(np.sqrt(squares))


@result
class TieMultipliers:
    """Multipliers of the cone constraints of a sub-sampled program, ties counted as active.

    Parameters
    ----------
    multipliers
        Shape (m, n): of ``x_k @ p_j >= 0`` at the ties of neuron j, zero elsewhere; of least norm
        where the tied rows are dependent.
    limits
        ``-s_j v_k`` at the ties, zero elsewhere: what the multipliers may reach at a directionally
        stationary network.
    residual
        What they leave of the condition ``beta p_j / |p_j| = s_j X.T D_j v + X.T mu_j``, shape
        (m,).
    """

    multipliers: FloatArray
    limits: FloatArray
    residual: FloatArray


@refuses_overflow("X", "y", "beta", "network")
def tie_multipliers(
    X: ArrayLike, y: ArrayLike, beta: float, network: Network | tuple[ArrayLike, ArrayLike]
) -> TieMultipliers:
    """Return the multipliers of a network's ties in the program over its own cells.

    Parameters
    ----------
    X, y, beta, network
        As for ``gradient_descent``; neurons that are zero are left out.

    Notes
    -----
    With independent ties a balanced network without zero neurons is directionally stationary iff
    the residual is zero and ``0 <= multipliers <= limits`` (derived): at a tie the derivative along
    ``x_k @ delta = t`` is ``mu_k t`` for ``t > 0`` and ``(mu_k + s_j v_k) t`` for ``t < 0``.

    Examples
    --------
    >>> from theorylab.convex_relu import tie_multipliers
    >>> tie_multipliers([[1.0, 0.0], [0.0, 1.0]], [1.0, 2.0], 0.5, ([[0.0, 1.0]], [1.0])).limits
    array([[-1.,  0.]])
    """
    X, y, beta, first, output = as_start(X, y, beta, network)
    neurons = neurons_of(X, Network(first, output), False)
    v = y - neurons.fit
    multipliers, limits = np.zeros(neurons.tied.shape), np.zeros(neurons.tied.shape)
    residual = np.zeros(neurons.signs.size)
    for j, (p, s, tied) in enumerate(zip(neurons.points, neurons.signs, neurons.tied, strict=True)):
        on = neurons.active[j] | tied
        force = beta * p / np.linalg.norm(p) - s * X[on].T @ v[on]
        multipliers[j, tied] = np.linalg.lstsq(X[tied].T, force, rcond=None)[0]
        limits[j, tied] = -s * v[tied]
        residual[j] = np.linalg.norm(force - X[tied].T @ multipliers[j, tied])
    return TieMultipliers(multipliers, limits, residual)
