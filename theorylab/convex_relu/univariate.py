r"""Two-layer ReLU networks of one input: exact fits, their knots, and the mean-field free energy
above them.

With data ``(x_i, y_i)`` and units ``a relu(w t + b)``, write ``u(phi) = (cos phi, sin phi)`` and

    h(phi) = sum_i z_i relu(u(phi)^T (x_i, 1)),      z = y - f(x),

a sinusoid on each of the 2n arcs between the angles at which a unit bends at a data point.

*Penalized biases*: ``min 1/2 ||f(x) - y||^2 + beta/2 sum_j (w_j^2 + b_j^2 + a_j^2)`` is convex in
the measure of units; its dual is ``max z^T y - 1/2 ||z||^2`` subject to ``|h| <= beta``, and units
sit where ``|h| = beta``: at most one knot of each orientation strictly inside a gap between
neighbouring data (shevchenko2021-mean).

*Temperature tau*: adding ``tau`` times the entropy of the law of ``(a, w, b)`` replaces the
constraint by a barrier,

    max  z^T y - 1/2 ||z||^2 - tau log int dphi / kappa(phi),      kappa = beta - h^2 / beta.

*Free biases and output bias*: least weight decay of an interpolant is a total variation of its
slope (parhi2023-deep). Derivations are ours; the papers' texts were not consulted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, cached_property
from itertools import pairwise
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real, refuses_overflow
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result

__all__ = [
    "BalancedWeights",
    "Knots",
    "MeanFieldFit",
    "PenalizedBiasFit",
    "SplineNetwork",
    "Status",
    "balance",
    "certificate_knots",
    "descend_particles",
    "fit_penalized_biases",
    "maurey_errors",
    "maurey_mean_squared_error",
    "mean_field_fit",
    "minimal_path_norm",
    "minimal_path_norm_network",
    "path_norm",
    "sample_particles",
]


class Status(StrEnum):
    """How a solver ended."""

    SOLVED = "solved to the requested tolerance"
    MAX_ITER = "stopped after max_iter iterations above the requested tolerance; raise max_iter"


@result
class SplineNetwork:
    """Network ``sum_k v_k relu(w_k t + b_k) + slope t + intercept``.

    Attributes
    ----------
    weights, biases, output_weights
        (m,) ``w``, ``b`` and ``v``.
    slope, intercept
        Skip connection and output bias, not penalized.
    """

    weights: FloatArray
    biases: FloatArray
    output_weights: FloatArray
    slope: float = 0.0
    intercept: float = 0.0

    def __call__(self, t: ArrayLike) -> FloatArray:
        """Return the outputs at (p,) inputs."""
        t = as_array(t, "t", ndim=1)
        hidden = np.maximum(t[:, None] * self.weights + self.biases, 0)
        outputs: FloatArray = hidden @ self.output_weights + self.slope * t + self.intercept
        return outputs

    @property
    def knots(self) -> FloatArray:
        """Inputs at which a unit bends, in the order of the units."""
        return -self.biases / self.weights

    @property
    def path_norm(self) -> float:
        """``sum |v_k w_k|``, biases left out."""
        return float(np.abs(self.weights * self.output_weights).sum())

    @property
    def weight_decay(self) -> float:
        """``1/2 sum (v_k^2 + w_k^2)``, biases left out."""
        return 0.5 * float(np.sum(self.weights**2) + np.sum(self.output_weights**2))


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


@result
class MeanFieldFit:
    """Minimizer of the free energy of infinitely many units at a positive temperature.

    Attributes
    ----------
    x
        (n,) inputs.
    residual
        (n,) ``y - f(x)``.
    beta, temperature
        Weight decay and temperature.
    residual_error
        Largest entry of the Newton step at ``residual``, the estimate of its error.
    quadrature_error
        Relative change of the log-integral's argument when the number of nodes in each panel grows
        by half.
    status
        How the solver ended.
    """

    x: FloatArray
    residual: FloatArray
    beta: float
    temperature: float
    residual_error: float
    quadrature_error: float
    status: Status

    @cached_property
    def _partition(self) -> float:
        phi, width = _nodes(_panels(self.x, self.residual, self.beta))
        return float(width @ (1 / _kappa(self.x, self.residual, self.beta, phi)[1]))

    def _density(self, phi: FloatArray) -> FloatArray:
        """Mean output weight times radius of the units at the angles ``phi``, per angle."""
        h, kappa = _kappa(self.x, self.residual, self.beta, phi)
        return self.temperature * 2 * h / (self.beta * kappa**2 * self._partition)

    def __call__(self, t: ArrayLike) -> FloatArray:
        """Return the mean-field prediction at (p,) inputs."""
        t = as_array(t, "t", ndim=1)
        bends = -np.arctan(t)
        phi, width = _nodes(
            _panels(self.x, self.residual, self.beta, np.concatenate([bends, bends + np.pi]))
        )
        mass = width * self._density(phi)
        total = np.zeros_like(t)
        # Right-active units have angles in (-pi/2, pi/2) above the bend, left-active ones, shifted
        # by pi, below it.
        for part, above in ((phi < np.pi / 2, True), (phi > np.pi / 2, False)):
            angles = phi[part] if above else phi[part] - np.pi
            sums = np.cumsum(
                np.stack([mass[part] * np.cos(phi[part]), mass[part] * np.sin(phi[part])]), axis=1
            )
            sums = np.hstack([np.zeros((2, 1)), sums])
            below = sums[:, np.searchsorted(angles, bends)]
            slope, level = sums[:, -1:] - below if above else below
            total += slope * t + level
        return total

    def curvature(self, t: ArrayLike) -> FloatArray:
        """Return the second derivative of the prediction at (p,) inputs."""
        t = as_array(t, "t", ndim=1)
        density: FloatArray = self._curvature_per_angle(-np.arctan(t)) * np.cos(np.arctan(t)) ** 2
        return density

    def _curvature_per_angle(self, phi: FloatArray) -> FloatArray:
        return np.cos(phi) * (self._density(phi) + self._density(phi + np.pi))

    def curvature_mass(self, excluded: ArrayLike, radius: float) -> float:
        """Integrate the absolute second derivative over the data range, away from the given inputs.

        Parameters
        ----------
        excluded
            (k,) inputs, possibly none.
        radius
            Inputs closer than this to an excluded one are left out.
        """
        excluded = as_array(excluded, "excluded", ndim=1, allow_empty=True)
        radius = as_real(radius, "radius", above=0)
        ends = np.array([self.x.min(), self.x.max()])
        cuts = np.concatenate([ends, excluded - radius, excluded + radius])
        panels = _panels(self.x, self.residual, self.beta)
        half = np.concatenate([panels, panels - np.pi, -np.arctan(cuts)])
        phi, width = _nodes(np.unique(half[np.abs(half) < np.pi / 2]))
        t = -np.tan(phi)
        keep = (t > ends[0]) & (t < ends[1])
        for knot in excluded:
            keep &= np.abs(t - knot) > radius
        return float(width[keep] @ np.abs(self._curvature_per_angle(phi[keep])))

    def finite_size_shift(self) -> FloatArray:
        r"""Return the (n,) coefficient of 1/N in the mean prediction of N particles at equilibrium.

        Laplace's method on the law of the prediction, ``exp(-N (I(f) + ||f - y||^2 / (2 tau)))``
        with the saddle-point prefactor ``det(I'')^(1/2)``, where I is the rate function of the mean
        of N units: the shift is ``1/2 S^-1 I''' : (I''^-1 - S^-1)`` with ``S = I'' + 1/tau``. With
        the second and third cumulants C and K of a unit's outputs and ``M = (1 + C/tau)^-1`` that
        is ``-1/(2 tau) M (K : M)``, which repeated inputs leave finite."""
        tau, step = self.temperature, 1e-4
        directions = np.eye(self.residual.size)

        def cumulant(move: FloatArray) -> FloatArray:
            # The tilt is z / tau: a step of tau in z is one of 1 in the tilt.
            return tau**2 * _dual_terms(self.x, self.residual + step * tau * move, self.beta)[2]

        inverse = np.linalg.inv(directions + cumulant(0 * directions[0]) / tau)
        thirds = [(cumulant(e) - cumulant(-e)) / (2 * step) for e in directions]
        shift: FloatArray = -inverse @ np.array([np.sum(K * inverse) for K in thirds]) / (2 * tau)
        return shift


@result
class BalancedWeights:
    """Units rescaled so that both layers of each have the same norm.

    Attributes
    ----------
    weights
        (m, d) first layer.
    output_weights
        (m,) second layer.
    """

    weights: FloatArray
    output_weights: FloatArray


@refuses_overflow("x", "y", "beta")
def fit_penalized_biases(
    x: ArrayLike, y: ArrayLike, beta: float, *, tol: float = 1e-10, max_iter: int = 200
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
    x, y = _as_data(x, y)
    beta = as_real(beta, "beta", above=0)
    tol = as_real(tol, "tol", above=0)
    max_iter = as_count(max_iter, "max_iter")
    angles, signs, mass = np.zeros(0), np.zeros(0), np.zeros(0)
    z = y.copy()
    for _ in range(max_iter):
        peaks = _peaks(x, z)
        scale = max(1.0, float(peaks.height.max()) / beta)
        objective = 0.5 * float(z @ z) + beta * float(mass.sum())
        dual_objective = float(z @ y) / scale - 0.5 * float(z @ z) / scale**2
        if abs(objective - dual_objective) <= tol * objective:
            status = Status.SOLVED
            break
        new = peaks.height > beta
        angles, signs = np.append(angles, peaks.angle[new]), np.append(signs, peaks.sign[new])
        atoms = signs * _features(x, angles)
        z, mass = _project(atoms, y, beta)
        kept = mass > 0
        angles, signs, mass = angles[kept], signs[kept], mass[kept]
    else:
        status = Status.MAX_ITER
        warn(status.value, RuntimeWarning, stacklevel=2)
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
    peaks = _peaks(distinct, pooled)
    # A unit that never bends (w = 0) has no finite knot.
    touching = (peaks.height >= beta * (1 - tol)) & (
        np.abs(np.cos(peaks.angle)) > np.finfo(float).eps
    )
    angle, sign, at_data = peaks.angle[touching], peaks.sign[touching], peaks.at_data[touching]
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


def mean_field_fit(
    x: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    temperature: float,
    tol: float = 1e-12,
    max_iter: int = 500,
) -> MeanFieldFit:
    r"""Minimize the free energy of a univariate two-layer ReLU network of infinite width.

    The law of ``(a, w, b)`` minimizes ``1/2 ||f(x) - y||^2 + beta/2 E(a^2 + w^2 + b^2) + tau E log
    density`` with ``f(t) = E a relu(w t + b)``. It is a Gibbs law; its integral over a (Gaussian)
    and over the radius of (w, b) (Rayleigh) leaves the concave problem in z of the module
    docstring, solved by damped Newton steps while the temperature is lowered to its target.
    Integrals over the angle use Gauss panels graded towards the poles of ``1 / kappa``.

    Parameters
    ----------
    x, y
        (n,) inputs and outputs.
    beta
        Weight decay, positive.
    temperature
        Temperature, positive; below about 1e-7 rounding of kappa limits the predictions to three
        digits.
    tol
        Largest entry of the last Newton step, relative to the largest ``|y|``.
    max_iter
        Largest number of Newton steps.

    Returns
    -------
    MeanFieldFit
        The residual, and the prediction and its curvature as functions.

    Notes
    -----
    Derived from the Gibbs form of shevchenko2021-mean, without the truncation of the activation:
    ``|h| < beta`` makes it integrable.

    Examples
    --------
    >>> from theorylab.convex_relu import mean_field_fit
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> fit = mean_field_fit(x, y, 0.1, temperature=0.1)
    >>> fit.residual_error < 1e-9
    True
    """
    x, y = _as_data(x, y)
    beta = as_real(beta, "beta", above=0)
    temperature = as_real(temperature, "temperature", above=0)
    tol = as_real(tol, "tol", above=0)
    max_iter = as_count(max_iter, "max_iter")
    size = float(np.abs(y).max())
    z = np.zeros_like(y)
    tau = max(temperature, float(y @ y))
    status = Status.MAX_ITER
    for _ in range(max_iter):
        value, gradient, curvature = _dual_terms(x, z, beta)
        slope = y - z - tau * gradient
        direction = np.linalg.solve(np.eye(z.size) + tau * curvature, slope)
        error = float(np.abs(direction).max())
        if tau == temperature and error <= tol * size:
            status = Status.SOLVED
            break
        if tau > temperature and np.abs(slope).max() <= 0.1 * size:
            tau = max(temperature, tau / 4)
            continue
        gain = float(slope @ direction)
        length = 1.0
        while length > np.finfo(float).eps:
            trial = z + length * direction
            if _peaks(x, trial).height.max() < beta:
                change = float((trial - z) @ y - 0.5 * (trial @ trial - z @ z))
                change -= tau * float(np.log(_partition(x, trial, beta) / value))
                # Rounding hides smaller gains, where Newton's method needs no safeguard.
                if change >= 0.1 * length * gain or gain <= 1e-8 * tau:
                    break
            length /= 2
        z = z + length * direction
    if status is Status.MAX_ITER:
        warn(status.value, RuntimeWarning, stacklevel=2)
    coarse, fine = _partition(x, z, beta), _partition(x, z, beta, order=24)
    return MeanFieldFit(x, z, beta, temperature, error, abs(coarse / fine - 1), status)


def sample_particles(
    x: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    temperature: float,
    n_particles: int = 1000,
    n_sweeps: int = 2000,
    burn_in: int = 1000,
    step: float = 0.1,
    seed: int = 0,
) -> FloatArray:
    r"""Return the mean prediction at the data of N particles under noisy gradient descent with
    Metropolis correction.

    The particles ``theta_j = (a, w, b)_j`` follow their own Langevin steps, ``theta - s N grad_j E
    + sqrt(2 s tau) xi``, for the energy ``E = 1/2 ||f - y||^2 + beta/(2N) sum ||theta_j||^2``, ``f
    = 1/N sum a_j relu(w_j x + b_j)``, one after the other. The correction makes ``exp(-N E / tau)``
    exactly invariant, so that the step size leaves no bias.

    Parameters
    ----------
    x, y
        (n,) inputs and outputs.
    beta, temperature
        Weight decay and temperature, positive.
    n_particles
        N.
    n_sweeps, burn_in
        Sweeps over all particles that are averaged, and that are discarded before.
    step
        Step size ``s`` in units of ``1 / beta``; large steps are rejected and leave particles stuck
        for long.
    seed
        Seed of initialization and noise.

    Returns
    -------
    numpy.ndarray
        (n,) average of ``f(x)`` over the sweeps.

    Examples
    --------
    >>> from theorylab.convex_relu import sample_particles
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> sample_particles(
    ...     x, y, 0.1, temperature=0.1, n_particles=20, n_sweeps=50, burn_in=10, seed=0
    ... ).shape
    (3,)
    """
    x, y = _as_data(x, y)
    beta = as_real(beta, "beta", above=0)
    temperature = as_real(temperature, "temperature", above=0)
    n_particles = as_count(n_particles, "n_particles")
    n_sweeps = as_count(n_sweeps, "n_sweeps")
    burn_in = as_count(burn_in, "burn_in", minimum=0)
    step = as_real(step, "step", above=0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    theta = np.sqrt(temperature / beta) * rng.normal(size=(n_particles, 3))
    mean: FloatArray = _langevin(
        x, y, beta, temperature, theta, n_sweeps, burn_in, step / beta, rng
    )
    return mean


def minimal_path_norm(x: ArrayLike, y: ArrayLike, *, skip: bool = True) -> float:
    r"""Return the least ``1/2 sum (v_k^2 + w_k^2)`` of a network that interpolates, with free
    biases and output bias.

    With ``s_i`` the slopes of the linear interpolant, ``T = sum |s_{i+1} - s_i|`` and ``S = |s_1 +
    s_{n-1}|``, it is T with a free skip connection. Without one it is T if ``S <= T`` and ``(T + S)
    / 2`` otherwise: a network costs at least ``max(TV(f'), |f'(-inf) + f'(inf)|)``, and changing
    the outer slopes by e in total raises the first to ``T + e`` while it lowers the second to ``S -
    e``.

    Parameters
    ----------
    x, y
        (n,) distinct inputs, in any order, and outputs; at least two.
    skip
        Whether an unpenalized linear term is available.

    Notes
    -----
    parhi2023-deep, spline representer theorem; the form without skip connection is derived here.

    Examples
    --------
    >>> from theorylab.convex_relu import minimal_path_norm
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> minimal_path_norm(x, y)
    2.0
    """
    total, ends = _variation(*_sorted_slopes(x, y)[2:])
    return total if as_flag(skip, "skip") else max(total, (total + abs(ends)) / 2)


def minimal_path_norm_network(x: ArrayLike, y: ArrayLike, *, skip: bool = True) -> SplineNetwork:
    """Return an interpolating network that attains :func:`minimal_path_norm`, with balanced units.

    With skip connection it connects the dots with at most ``n - 2`` knots. Without, outer slopes
    change one unit of length outside the data where that pays, and each bend is split between
    right-active and left-active units so that the slopes at both ends come out.

    Parameters
    ----------
    x, y
        (n,) distinct inputs, in any order, and outputs; at least two.
    skip
        Whether an unpenalized linear term is available.

    Examples
    --------
    >>> from theorylab.convex_relu import minimal_path_norm_network
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> network = minimal_path_norm_network(x, y)
    >>> network
    <SplineNetwork: weights (1,), biases (1,), output_weights (1,), slope -1, intercept 0>
    """
    xs, ys, slopes, bends = _sorted_slopes(x, y)
    knots = xs[1:-1]
    if as_flag(skip, "skip"):
        kept = bends != 0
        first, knots, bends = slopes[0], knots[kept], bends[kept]
        return _units(knots, bends, np.ones(bends.size), first, ys[0], anchor=xs[0])
    total, ends = _variation(slopes, bends)
    # Lower |f'(-inf) + f'(inf)| by e, half of it at either end.
    excess = np.sign(ends) * max(0.0, (abs(ends) - total) / 2)
    knots = np.concatenate([[xs[0] - 1], knots, [xs[-1] + 1]])
    bends = np.concatenate([[excess / 2], bends, [-excess / 2]])
    kept = bends != 0
    knots, bends = knots[kept], bends[kept]
    # A fraction r of each bend goes to a right-active unit so that sum bends (2 r - 1) = f'(-inf) +
    # f'(inf).
    variation = float(np.abs(bends).sum())
    share = (ends - excess) / variation if variation else 0.0
    return _units(knots, bends, (1 + share * np.sign(bends)) / 2, 0.0, ys[0], anchor=xs[0])


@refuses_overflow("hidden_weights", "output_weights")
def path_norm(hidden_weights: ArrayLike, output_weights: ArrayLike) -> float:
    """Return ``sum_k |v_k| ||w_k||_2``, the least weight decay ``1/2 sum (v_k^2 + ||w_k||^2)`` over
    rescalings of the units.

    Parameters
    ----------
    hidden_weights
        (m, d) first layer.
    output_weights
        (m,) second layer.

    Notes
    -----
    parhi2023-deep, neural balance theorem.

    Examples
    --------
    >>> from theorylab.convex_relu import path_norm
    >>> path_norm([[3.0, 4.0]], [2.0])
    10.0
    """
    W = as_array(hidden_weights, "hidden_weights", ndim=2)
    output_weights = as_array(output_weights, "output_weights", shape=W.shape[:1])
    return float(np.abs(output_weights) @ np.linalg.norm(W, axis=1))


@refuses_overflow("hidden_weights", "output_weights")
def balance(hidden_weights: ArrayLike, output_weights: ArrayLike) -> BalancedWeights:
    """Rescale every unit to ``|v_k| = ||w_k||_2``, which keeps the function of a positively
    homogeneous network.

    Parameters
    ----------
    hidden_weights
        (m, d) first layer.
    output_weights
        (m,) second layer.

    Notes
    -----
    parhi2023-deep, neural balance theorem: only these weights attain :func:`path_norm`. A unit with
    a zero layer becomes zero.

    Examples
    --------
    >>> from theorylab.convex_relu import balance
    >>> balanced = balance([[3.0, 4.0]], [0.2])
    >>> balanced.weights, balanced.output_weights
    (array([[0.6, 0.8]]), array([1.]))
    """
    W = as_array(hidden_weights, "hidden_weights", ndim=2)
    output_weights = as_array(output_weights, "output_weights", shape=W.shape[:1])
    inner, outer = np.linalg.norm(W, axis=1), np.abs(output_weights)
    size = np.sqrt(inner * outer)
    alive = size > 0
    inner, outer = np.where(alive, inner, 1.0), np.where(alive, outer, 1.0)
    return BalancedWeights(W * (size / inner)[:, None], output_weights * size / outer)


@refuses_overflow("atoms", "coefficients")
def maurey_mean_squared_error(
    atoms: ArrayLike,
    coefficients: ArrayLike,
    n_atoms: int,
    *,
    probabilities: ArrayLike | None = None,
) -> float:
    r"""Return the expected squared error of a network thinned to randomly drawn units.

    For ``f = sum_k c_k phi_k`` and N units drawn independently with probabilities p, each entering
    as ``c_k / (N p_k) phi_k``,

        E ||f - f_N||^2 = (sum_k c_k^2 / p_k ||phi_k||^2 - ||f||^2) / N,

    which for ``p_k = |c_k| / B``, ``B = sum |c_k|``, is ``(B sum |c_k| ||phi_k||^2 - ||f||^2) /
    N``: a rate free of the input dimension.

    Parameters
    ----------
    atoms
        (n, m) outputs of the m units on n points.
    coefficients
        (m,) coefficients c.
    n_atoms
        N.
    probabilities
        (m,) sampling law, positive where c is not zero; by default proportional to ``|c|``.

    Notes
    -----
    parhi2023-deep, the argument of Maurey, Jones and Barron with its exact constant.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import maurey_mean_squared_error
    >>> maurey_mean_squared_error(np.eye(2), [0.5, 0.5], 4)
    0.125
    """
    atoms, c, p = _as_sampling(atoms, coefficients, probabilities)
    n_atoms = as_count(n_atoms, "n_atoms")
    used = c != 0
    second = float(np.sum(c[used] ** 2 / p[used] * np.sum(atoms[:, used] ** 2, axis=0)))
    return (second - float(np.sum((atoms @ c) ** 2))) / n_atoms


@refuses_overflow("atoms", "coefficients")
def maurey_errors(
    atoms: ArrayLike,
    coefficients: ArrayLike,
    n_atoms: int,
    *,
    n_draws: int = 1000,
    probabilities: ArrayLike | None = None,
    seed: int = 0,
) -> FloatArray:
    """Draw thinned networks and return their (n_draws,) squared errors; see
    :func:`maurey_mean_squared_error`.

    Parameters
    ----------
    atoms
        (n, m) outputs of the m units on n points.
    coefficients
        (m,) coefficients.
    n_atoms
        Units drawn for each network.
    n_draws
        Number of networks.
    probabilities
        (m,) sampling law; by default proportional to the absolute coefficients.
    seed
        Seed of the draws.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import maurey_errors
    >>> maurey_errors(np.eye(2), [0.5, 0.5], 4, n_draws=3, seed=0).shape
    (3,)
    """
    atoms, c, p = _as_sampling(atoms, coefficients, probabilities)
    n_atoms = as_count(n_atoms, "n_atoms")
    n_draws = as_count(n_draws, "n_draws")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    counts = rng.multinomial(n_atoms, p, size=n_draws)
    scaled = np.divide(c, p, out=np.zeros_like(c), where=p > 0)
    errors: FloatArray = np.sum(((counts / n_atoms * scaled - c) @ atoms.T) ** 2, axis=1)
    return errors


def _as_data(x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x = as_array(x, "x", ndim=1)
    return x, as_array(y, "y", shape=x.shape)


def _as_sampling(
    atoms: ArrayLike, coefficients: ArrayLike, probabilities: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    atoms = as_array(atoms, "atoms", ndim=2)
    c = as_array(coefficients, "coefficients", shape=(atoms.shape[1],))
    if probabilities is None:
        total = np.abs(c).sum()
        if total == 0:
            raise ValueError("coefficients: expected a non-zero coefficient, got zeros")
        return atoms, c, np.abs(c) / total
    p = as_array(probabilities, "probabilities", shape=c.shape, nonnegative=True)
    if abs(p.sum() - 1) > 1e-12 * p.size or np.any((p == 0) & (c != 0)):
        raise ValueError(
            f"probabilities: expected a law that is positive on all used units, got sum {p.sum()}"
        )
    return atoms, c, p


def _sorted_slopes(
    x: ArrayLike, y: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return sorted inputs, outputs, the slopes between neighbours and the changes of slope."""
    x, y = _as_data(x, y)
    order = np.argsort(x)
    xs, ys = x[order], y[order]
    if xs.size < 2 or np.any(np.diff(xs) == 0):
        raise ValueError(
            f"x: expected at least two distinct inputs without repetition, got {x.size} inputs"
        )
    slopes = np.diff(ys) / np.diff(xs)
    return xs, ys, slopes, np.diff(slopes)


def _variation(slopes: FloatArray, bends: FloatArray) -> tuple[float, float]:
    return float(np.abs(bends).sum()), float(slopes[0] + slopes[-1])


def _units(
    knots: FloatArray,
    bends: FloatArray,
    right: FloatArray,
    slope: float,
    level: float,
    *,
    anchor: float = 0.0,
) -> SplineNetwork:
    """Return balanced units with the given changes of slope, a fraction of each right-active, and
    ``level`` at ``anchor``."""
    mass = np.concatenate([bends * right, bends * (1 - right)])
    size = np.sqrt(np.abs(mass))
    weights = size * np.repeat([1.0, -1.0], bends.size)
    kept = size > 0
    weights, outputs = weights[kept], (np.sign(mass) * size)[kept]
    network = SplineNetwork(weights, -weights * np.tile(knots, 2)[kept], outputs, float(slope))
    return replace(network, intercept=float(level - network(np.array([anchor]))[0]))


def _features(x: FloatArray, phi: FloatArray) -> FloatArray:
    features: FloatArray = np.maximum(np.outer(x, np.cos(phi)) + np.sin(phi), 0)
    return features


def _arcs(x: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Return starts and ends of the 2n arcs without a bend at a data point, and the data point at
    each start."""
    bends = np.concatenate([-np.arctan(x), np.pi - np.arctan(x)])
    order = np.argsort(bends, kind="stable")
    starts = bends[order]
    return starts, np.append(starts[1:], starts[0] + 2 * np.pi), order % x.size


def _sinusoids(x: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return amplitude and phase of h on every arc."""
    starts, ends, _ = _arcs(x)
    active = _features(x, (starts + ends) / 2) > 0
    linear, constant = (z * x) @ active, z @ active
    return np.hypot(linear, constant), np.arctan2(constant, linear)


@dataclass(frozen=True)
class _Peaks:
    """Largest value of ``sign * h`` on every closed arc, where it is, and the data point there (-1
    in the open arc)."""

    height: FloatArray
    angle: FloatArray
    sign: FloatArray
    at_data: NDArray[np.intp]


def _peaks(x: FloatArray, z: FloatArray) -> _Peaks:
    starts, ends, at_start = _arcs(x)
    at_end = np.append(at_start[1:], at_start[0])
    amplitude, phase = _sinusoids(x, z)
    parts = []
    for sign in (1.0, -1.0):
        top = starts + (phase + (0 if sign > 0 else np.pi) - starts) % (2 * np.pi)
        left, right = (sign * amplitude * np.cos(edge - phase) for edge in (starts, ends))
        inside = (top > starts) & (top < ends)
        height = np.where(inside, amplitude, np.maximum(left, right))
        angle = np.where(inside, top, np.where(left >= right, starts, ends))
        at_data = np.where(inside, -1, np.where(left >= right, at_start, at_end))
        parts.append((height, angle, np.full(starts.size, sign), at_data))
    height, angle, signs, at_data = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _Peaks(height, angle, signs, at_data)


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


def _kappa(
    x: FloatArray, z: FloatArray, beta: float, phi: FloatArray
) -> tuple[FloatArray, FloatArray]:
    h = z @ _features(x, phi)
    return h, (beta - h) * (beta + h) / beta


def _panels(
    x: FloatArray, z: FloatArray, beta: float, extra: FloatArray | None = None
) -> FloatArray:
    """Return the edges, over one turn from -pi/2, of panels on which ``1 / kappa`` is resolved by a
    Gauss rule.

    On an arc h is ``A cos(phi - theta)``. The poles of ``1 / kappa`` next to theta are real,
    outside the arc, if ``A > beta``, and complex otherwise; panels double in length away from the
    point of the arc closest to them, starting with their distance."""
    starts, ends, _ = _arcs(x)
    amplitude, phase = _sinusoids(x, z)
    edges = [starts, ends]
    for lo, hi, size, theta in zip(starts, ends, amplitude, phase, strict=True):
        if hi == lo or size == 0:
            continue
        for turn in range(
            int(np.floor((lo - theta) / np.pi)), int(np.ceil((hi - theta) / np.pi)) + 1
        ):
            centre = theta + turn * np.pi
            left, right = max(lo, centre - np.pi / 2), min(hi, centre + np.pi / 2)
            if left >= right:
                continue
            nearest = min(max(centre, left), right)
            if size > beta:
                distance = abs(abs(nearest - centre) - np.arccos(beta / size))
            else:
                distance = max(np.arccosh(beta / size), abs(nearest - centre))
            scale = max(distance, 1e-12) * 2.0 ** np.arange(48)
            graded = np.concatenate([nearest - scale, [nearest], nearest + scale])
            edges += [np.array([left, right]), graded[(graded > left) & (graded < right)]]
    if extra is not None:
        edges.append(extra)
    turned = (np.concatenate(edges) + np.pi / 2) % (2 * np.pi) - np.pi / 2
    return np.unique(np.concatenate([turned, [-np.pi / 2, np.pi / 2, 3 * np.pi / 2]]))


@cache
def _gauss_rule(order: int) -> tuple[FloatArray, FloatArray]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return nodes, weights


def _nodes(edges: FloatArray, order: int = 16) -> tuple[FloatArray, FloatArray]:
    nodes, weights = _gauss_rule(order)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    return (middle[:, None] + half[:, None] * nodes).ravel(), (half[:, None] * weights).ravel()


def _partition(x: FloatArray, z: FloatArray, beta: float, order: int = 16) -> float:
    phi, width = _nodes(_panels(x, z, beta), order)
    return float(width @ (1 / _kappa(x, z, beta, phi)[1]))


def _dual_terms(x: FloatArray, z: FloatArray, beta: float) -> tuple[float, FloatArray, FloatArray]:
    """Return the integral of ``1 / kappa`` over a turn, and the gradient and the Hessian of its
    logarithm in z."""
    phi, width = _nodes(_panels(x, z, beta))
    features = _features(x, phi)
    h, kappa = _kappa(x, z, beta, phi)
    value = float(width @ (1 / kappa))
    density = width / (kappa * value)
    gradient: FloatArray = features @ (density * 2 * h / (beta * kappa))
    second = (
        features * (density * (2 / (beta * kappa) + 8 * h**2 / (beta * kappa) ** 2))
    ) @ features.T
    return value, gradient, second - np.outer(gradient, gradient)


@compiled
def _langevin(
    x: FloatArray,
    y: FloatArray,
    beta: float,
    temperature: float,
    theta: FloatArray,
    n_sweeps: int,
    burn_in: int,
    step: float,
    rng: np.random.Generator,
) -> FloatArray:
    n, n_particles = x.size, theta.shape[0]
    f, moved, mean = np.zeros(n), np.zeros(n), np.zeros(n)
    drift, back, proposal = np.zeros(3), np.zeros(3), np.zeros(3)
    for j in range(n_particles):
        for i in range(n):
            f[i] += theta[j, 0] * max(theta[j, 1] * x[i] + theta[j, 2], 0.0) / n_particles
    noise = np.sqrt(2 * step * temperature)
    for sweep in range(burn_in + n_sweeps):
        for j in range(n_particles):
            _drift(x, y, f, beta, theta[j], drift)
            forward = 0.0
            for k in range(3):
                xi = rng.standard_normal()
                forward += xi * xi / 2
                proposal[k] = theta[j, k] - step * drift[k] + noise * xi
            energy = 0.0
            for i in range(n):
                now = theta[j, 0] * max(theta[j, 1] * x[i] + theta[j, 2], 0.0)
                then = proposal[0] * max(proposal[1] * x[i] + proposal[2], 0.0)
                moved[i] = f[i] + (then - now) / n_particles
                energy += n_particles * ((moved[i] - y[i]) ** 2 - (f[i] - y[i]) ** 2) / 2
            _drift(x, y, moved, beta, proposal, back)
            backward = 0.0
            for k in range(3):
                energy += beta * (proposal[k] ** 2 - theta[j, k] ** 2) / 2
                backward += (theta[j, k] - proposal[k] + step * back[k]) ** 2 / (2 * noise * noise)
            if np.log(rng.random()) < forward - backward - energy / temperature:
                for k in range(3):
                    theta[j, k] = proposal[k]
                for i in range(n):
                    f[i] = moved[i]
        if sweep >= burn_in:
            for i in range(n):
                mean[i] += f[i] / n_sweeps
    return mean


@compiled
def _drift(
    x: FloatArray, y: FloatArray, f: FloatArray, beta: float, theta: FloatArray, out: FloatArray
) -> None:
    for k in range(3):
        out[k] = beta * theta[k]
    for i in range(x.size):
        hidden = theta[1] * x[i] + theta[2]
        if hidden > 0:
            pull = y[i] - f[i]
            out[0] -= pull * hidden
            out[1] -= pull * theta[0] * x[i]
            out[2] -= pull * theta[0]


@refuses_overflow("x", "y")
def descend_particles(
    x: ArrayLike,
    y: ArrayLike,
    n_particles: int,
    *,
    n_steps: int = 20,
    step: float = 0.1,
    n_networks: int = 100,
    exponent: float = 1.0,
    seed: int = 0,
) -> FloatArray:
    r"""Return the predictions of independently initialized networks after full-batch descent.

    The network is ``f = N^-p sum_j a_j relu(w_j x + b_j)``, its parameters start standard normal
    and take ``n_steps`` gradient steps of size ``step N^(2p-1)`` on ``1/2 mean (f(x_i) - y_i)^2``:
    the function moves at a speed that does not depend on N, and so does every particle in the
    mean-field scaling ``p = 1``.

    Parameters
    ----------
    x, y
        (n,) inputs and outputs.
    n_particles
        N.
    n_steps, step
        Number and size of the steps, in units of the time of the gradient flow.
    n_networks
        Number of independent initializations.
    exponent
        p, between 0 and 1.
    seed
        Seed of the initializations.

    Returns
    -------
    numpy.ndarray
        (n_networks, n) predictions at the data.

    Examples
    --------
    >>> from theorylab.convex_relu import descend_particles
    >>> descend_particles([-1.0, 1.0], [0.0, 1.0], 50, n_networks=3).shape
    (3, 2)
    """
    x, y = _as_data(x, y)
    n_particles = as_count(n_particles, "n_particles")
    n_steps = as_count(n_steps, "n_steps", minimum=0)
    step = as_real(step, "step", above=0)
    n_networks = as_count(n_networks, "n_networks")
    scale = n_particles ** -as_real(exponent, "exponent", minimum=0, maximum=1)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    predictions = np.empty((n_networks, x.size))
    for row in predictions:
        _descend(x, y, rng.normal(size=(n_particles, 3)), n_steps, step, scale, row)
    return predictions


@compiled
def _descend(
    x: FloatArray,
    y: FloatArray,
    theta: FloatArray,
    n_steps: int,
    step: float,
    scale: float,
    f: FloatArray,
) -> None:
    """Descend from ``theta``, which is overwritten, and leave the predictions in ``f``."""
    # The gradient carries the scale, the size of the step its inverse square over N.
    rate = step / (theta.shape[0] * scale * x.size)
    pull = np.zeros(x.size)
    for done in range(n_steps + 1):
        for i in range(x.size):
            f[i] = 0.0
        for j in range(theta.shape[0]):
            a, w, b = theta[j, 0], theta[j, 1], theta[j, 2]
            if done:
                for i in range(x.size):
                    hidden = w * x[i] + b
                    if hidden > 0:
                        theta[j, 0] += rate * pull[i] * hidden
                        theta[j, 1] += rate * pull[i] * a * x[i]
                        theta[j, 2] += rate * pull[i] * a
                a, w, b = theta[j, 0], theta[j, 1], theta[j, 2]
            for i in range(x.size):
                f[i] += scale * a * max(w * x[i] + b, 0.0)
        for i in range(x.size):
            pull[i] = y[i] - f[i]
