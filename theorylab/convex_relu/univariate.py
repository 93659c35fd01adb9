r"""Two-layer ReLU networks of one input with penalized biases: exact fits and their knots.

With data ``(x_i, y_i)`` and units ``a relu(w t + b)``, write ``u(phi) = (cos phi, sin phi)`` and

    h(phi) = sum_i z_i relu(u(phi)^T (x_i, 1)),      z = y - f(x),

a sinusoid on each of the 2n arcs between the angles at which a unit bends at a data point. Then
``min 1/2 ||f(x) - y||^2 + beta/2 sum_j (w_j^2 + b_j^2 + a_j^2)`` is convex in the measure of units;
its dual is ``max z^T y - 1/2 ||z||^2`` subject to ``|h| <= beta``, and units sit where ``|h| =
beta``: at most one knot of each orientation strictly inside a gap between neighbouring data
(shevchenko2021-mean; derivations are ours, the paper's text was not consulted)."""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.convex_relu._sinusoids import features, peaks
from theorylab.convex_relu._splines import SplineNetwork, as_data
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = ["Knots", "PenalizedBiasFit", "Status", "certificate_knots", "fit_penalized_biases"]


class Status(StrEnum):
    """How a solver ended."""

    SOLVED = "solved to the requested tolerance"
    MAX_ITER = "stopped after max_iter iterations above the requested tolerance; raise max_iter"
    STOPPED = "stopped by the callback, above the requested tolerance"


@result
class PenalizedBiasFit:
    """Global minimum of squared loss with weight decay on weights, biases and output weights.

    Attributes
    ----------
    network
        An optimal network with balanced units.
    residual
        (n,) ``y - f(x)``, which is the dual point.
    objective, dual_objective
        Value of the network, and of the residual scaled into ``|h| <= beta``.
    rounding
        What rounding may have added to their difference.
    status
        How the solver ended.
    """

    network: SplineNetwork
    residual: FloatArray
    objective: float
    dual_objective: float
    rounding: float
    status: Status

    @property
    def gap(self) -> float:
        """Relative duality gap."""
        return relative_gap(self.objective, self.dual_objective, rounding=self.rounding)


@result
class Knots:
    """Inputs at which the certificate touches its bound; every optimal network bends at a subset of
    them.

    Attributes
    ----------
    position
        (k,) increasing within each orientation; only finite knots are listed.
    right
        (k,) whether units there are active to the right of the knot.
    sign
        (k,) sign of the output weights there.
    on_data
        (k,) index of the data point on which the knot lies, -1 inside a gap.
    """

    position: FloatArray
    right: NDArray[np.bool_]
    sign: FloatArray
    on_data: NDArray[np.intp]

    def per_gap(self, x: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Count distinct knots strictly inside, and in the closure, of each gap between
        neighbouring data.

        Parameters
        ----------
        x
            (n,) the inputs from which the knots were computed.

        Returns
        -------
        open_counts, closed_counts
            (number of distinct inputs - 1,) each.
        """
        x = as_array(x, "x", ndim=1)
        data = np.unique(x)
        inside = np.unique(self.position[self.on_data < 0])
        opened = np.array(
            [np.sum((inside > lo) & (inside < hi)) for lo, hi in pairwise(data)], np.intp
        )
        touched = np.isin(data, x[self.on_data[self.on_data >= 0]]).astype(np.intp)
        return opened, opened + touched[:-1] + touched[1:]


@refuses_overflow("x", "y", "beta")
def fit_penalized_biases(
    x: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    tol: float = 1e-10,
    max_iter: int = 200,
    callback: Callback | None = None,
) -> PenalizedBiasFit:
    r"""Fit a network of any width with weight decay on all its parameters, biases included, to
    global optimality.

    The dual point is the projection of y onto ``{z : |h_z| <= beta}``. Units are exchanged: project
    onto the constraints at finitely many angles (a non-negative least-squares problem), then add
    the maximizer of ``|h|`` on each arc, known in closed form, where it exceeds beta.

    Parameters
    ----------
    x, y
        (n,) inputs and outputs.
    beta
        Weight decay, positive.
    tol
        Largest relative duality gap.
    max_iter
        Largest number of exchanges.
    callback
        Called with the number of exchanges, the objective and its relative gap; the solver stops
        where it returns True.

    Returns
    -------
    PenalizedBiasFit
        An optimal network, the dual point and both objectives.

    Notes
    -----
    shevchenko2021-mean, the zero-temperature limit, as the convex program of pilanci and ergen with
    rows ``(x_i, 1)``.

    Examples
    --------
    >>> from theorylab.convex_relu import fit_penalized_biases
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> fit = fit_penalized_biases(x, y, 0.1)
    >>> round(fit.objective, 6), fit.objective - fit.dual_objective < 1e-9
    (0.185, True)
    """
    x, y = as_data(x, y)
    beta = as_real(beta, "beta", above=0)
    tol = as_real(tol, "tol", above=0)
    max_iter = as_count(max_iter, "max_iter")
    stops = watcher(callback)
    angles, signs, mass = np.zeros(0), np.zeros(0), np.zeros(0)
    z = y.copy()
    for iteration in range(max_iter + 1):
        found = peaks(x, z)
        scale = max(1.0, float(found.height.max()) / beta)
        objective = 0.5 * float(z @ z) + beta * float(mass.sum())
        dual_objective = float(z @ y) / scale - 0.5 * float(z @ z) / scale**2
        gap = abs(objective - dual_objective)
        if gap <= tol * objective:
            status = Status.SOLVED
            break
        if stops(iteration, objective, gap / objective):
            status = Status.STOPPED
            break
        if iteration == max_iter:
            status = Status.MAX_ITER
            break
        new = found.height > beta
        angles, signs = np.append(angles, found.angle[new]), np.append(signs, found.sign[new])
        z, mass = _project(signs * features(x, angles), y, beta)
        kept = mass > 0
        angles, signs, mass = angles[kept], signs[kept], mass[kept]
    if status is not Status.SOLVED:
        warn(status.value, RuntimeWarning, stacklevel=3)
    root = np.sqrt(mass)
    network = SplineNetwork(root * np.cos(angles), root * np.sin(angles), signs * root)
    rounding = 1e-12 * float(np.abs(z) @ np.abs(y))
    return PenalizedBiasFit(network, z, objective, dual_objective, rounding, status)


def certificate_knots(
    x: ArrayLike, residual: ArrayLike, beta: float, *, tol: float = 1e-9
) -> Knots:
    """Read off where units of an optimal network can bend: the finite knots with ``|h| = beta``.

    Parameters
    ----------
    x
        (n,) inputs.
    residual
        (n,) residual of the optimum, :attr:`PenalizedBiasFit.residual`.
    beta
        Weight decay.
    tol
        Relative error of the residual: a local maximum of ``|h|`` above ``beta (1 - tol)`` counts
        as touching.

    Returns
    -------
    Knots
        All of them, for every optimal network at once; knots on data are marked by their index.

    Notes
    -----
    On the arc of one orientation between two data points h is one sinusoid, so that ``|h| = beta``
    strictly inside happens at most once, and then ``|h| < beta`` at both ends. With two
    orientations a closed gap holds at most three knots, at most two of them inside, and none at its
    ends if there are two inside: a sharper form of the theorem of shevchenko2021-mean.

    Examples
    --------
    >>> from theorylab.convex_relu import certificate_knots, fit_penalized_biases
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> fit = fit_penalized_biases(x, y, 0.1)
    >>> certificate_knots(x, fit.residual, 0.1)
    <Knots: position (3,), right (3,), sign (3,), on_data (3,)>
    """
    x = as_array(x, "x", ndim=1)
    z = as_array(residual, "residual", shape=x.shape)
    beta = as_real(beta, "beta", above=0)
    tol = as_real(tol, "tol", above=0, below=1)
    distinct, index, group = np.unique(x, return_index=True, return_inverse=True)
    pooled: FloatArray = np.bincount(group, weights=z).astype(np.float64)
    found = peaks(distinct, pooled)
    # A unit that never bends (w = 0) has no finite knot.
    touching = (found.height >= beta * (1 - tol)) & (
        np.abs(np.cos(found.angle)) > np.finfo(float).eps
    )
    angle, sign, at_data = found.angle[touching], found.sign[touching], found.at_data[touching]
    position = np.where(at_data >= 0, distinct[at_data], -np.tan(angle))
    # A bend of h at a data point is a local maximum only if it is one on both arcs that end there;
    # if it is not, the maximum beside it is listed, and the value at the data point is below beta
    # by less than tol.
    _, first, count = np.unique(
        np.stack([np.cos(angle) > 0, position, sign]), axis=1, return_index=True, return_counts=True
    )
    first = first[(at_data[first] < 0) | (count > 1)]
    on_data = np.where(at_data[first] >= 0, index[at_data[first]], -1)
    return Knots(position[first], np.cos(angle[first]) > 0, sign[first], on_data)


def _project(atoms: FloatArray, y: FloatArray, beta: float) -> tuple[FloatArray, FloatArray]:
    """Project y onto ``{z : atoms^T z <= beta}``; also return the multipliers, ``z = y - atoms @
    multipliers``.

    A least-distance problem, solved as a non-negative least-squares problem (Lawson and Hanson).
    """
    size = float(np.linalg.norm(y))
    target = np.zeros(y.size + 1)
    target[-1] = 1.0
    system = np.vstack([-atoms, atoms.T @ y / size - beta / size])
    solution, _ = nnls(system, target, maxiter=100 * (y.size + atoms.shape[1]))
    rest = target - system @ solution
    multipliers = size * solution / rest[-1]
    return y - atoms @ multipliers, multipliers
