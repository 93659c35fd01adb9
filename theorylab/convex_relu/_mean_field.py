r"""The mean-field free energy of univariate networks, a barrier problem for the residual.

At temperature tau the entropy of the law of ``(a, w, b)`` replaces the constraint ``|h| <= beta``:

    max  z^T y - 1/2 ||z||^2 - tau log int dphi / kappa(phi),      kappa = beta - h^2 / beta.

Derived from shevchenko2021-mean; the paper's text was not consulted."""

from __future__ import annotations

from functools import cache, cached_property
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.convex_relu._sinusoids import arcs, features, peaks, sinusoids
from theorylab.convex_relu._splines import as_data
from theorylab.convex_relu.univariate import Status
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = ["MeanFieldFit", "mean_field_fit"]


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


def mean_field_fit(
    x: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    temperature: float,
    tol: float = 1e-12,
    max_iter: int = 500,
    callback: Callback | None = None,
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
    callback
        Called with the number of steps, the dual objective at the temperature reached and the next
        step relative to the largest ``|y|``; the solver stops where it returns True.

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
    x, y = as_data(x, y)
    beta = as_real(beta, "beta", above=0)
    temperature = as_real(temperature, "temperature", above=0)
    tol = as_real(tol, "tol", above=0)
    max_iter = as_count(max_iter, "max_iter")
    stops = watcher(callback)
    size = float(np.abs(y).max())
    z = np.zeros_like(y)
    tau = max(temperature, float(y @ y))

    def newton(tau: float) -> tuple[float, FloatArray, FloatArray]:
        value, gradient, curvature = _dual_terms(x, z, beta)
        slope = y - z - tau * gradient
        step = np.linalg.solve(np.eye(z.size) + tau * curvature, slope)
        return value, slope, step.astype(np.float64)

    status = Status.MAX_ITER
    for iteration in range(max_iter):
        value, slope, direction = newton(tau)
        error = float(np.abs(direction).max())
        if tau == temperature and error <= tol * size:
            status = Status.SOLVED
            break
        objective = float(z @ y - 0.5 * z @ z) - tau * float(np.log(value))
        if stops(iteration, objective, error / size):
            status = Status.STOPPED
            break
        if tau > temperature and np.abs(slope).max() <= 0.1 * size:
            tau = max(temperature, tau / 4)
            continue
        gain = float(slope @ direction)
        length = 1.0
        while length > np.finfo(float).eps:
            trial = z + length * direction
            if peaks(x, trial).height.max() < beta:
                change = float((trial - z) @ y - 0.5 * (trial @ trial - z @ z))
                change -= tau * float(np.log(_partition(x, trial, beta) / value))
                # Rounding hides smaller gains, where Newton's method needs no safeguard.
                if change >= 0.1 * length * gain or gain <= 1e-8 * tau:
                    break
            length /= 2
        z = z + length * direction
    if status is not Status.SOLVED:
        error = float(np.abs(newton(temperature)[2]).max())
        warn(status.value, RuntimeWarning, stacklevel=2)
    coarse, fine = _partition(x, z, beta), _partition(x, z, beta, order=24)
    return MeanFieldFit(x, z, beta, temperature, error, abs(coarse / fine - 1), status)


def _kappa(
    x: FloatArray, z: FloatArray, beta: float, phi: FloatArray
) -> tuple[FloatArray, FloatArray]:
    h = z @ features(x, phi)
    return h, (beta - h) * (beta + h) / beta


def _panels(
    x: FloatArray, z: FloatArray, beta: float, extra: FloatArray | None = None
) -> FloatArray:
    """Return the edges, over one turn from -pi/2, of panels on which ``1 / kappa`` is resolved by a
    Gauss rule.

    On an arc h is ``A cos(phi - theta)``. The poles of ``1 / kappa`` next to theta are real,
    outside the arc, if ``A > beta``, and complex otherwise; panels double in length away from the
    point of the arc closest to them, starting with their distance."""
    starts, ends, _ = arcs(x)
    amplitude, phase = sinusoids(x, z)
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
    outputs = features(x, phi)
    h, kappa = _kappa(x, z, beta, phi)
    value = float(width @ (1 / kappa))
    density = width / (kappa * value)
    gradient: FloatArray = outputs @ (density * 2 * h / (beta * kappa))
    second = (
        outputs * (density * (2 / (beta * kappa) + 8 * h**2 / (beta * kappa) ** 2))
    ) @ outputs.T
    return value, gradient, second - np.outer(gradient, gradient)
