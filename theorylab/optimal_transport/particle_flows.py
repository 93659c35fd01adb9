r"""Particle gradient descent on the line, on a displacement-convex functional.

For distribution functions $F_\mu,F_\nu$ on the line and independent copies,

$$\mathcal E(\mu,\nu)=\int(F_\mu-F_\nu)^2
=\mathbb E|X-Y|-\tfrac12\mathbb E|X-X'|-\tfrac12\mathbb E|Y-Y'|,\qquad X\sim\mu,\ Y\sim\nu.$$

It is convex along sorted (optimal) couplings in $\mu$. For $\nu=U[0,1]$ and n equal
particles $w_i$ of rank $r_i$ (ties share their mean rank), the gradient in the
n-particle metric $\frac1n\sum v_i^2$ is

$$n\,\partial_i\mathcal E=2\big(\mathrm{clip}(w_i,0,1)-\tfrac{r_i-1/2}n\big).$$

Steps of size $\eta\le\frac12$ therefore never change the order of distinct particles. On
[0,1] the functional is $W_2^2(\mu,\nu)=\frac1n\sum(w_i-\frac{r_i-1/2}n)^2+\frac1{12n^2}$.

A network of step neurons $x\mapsto\mathbf 1\{\cos(\theta-\varphi)>0\}$ on inputs of angle
$\varphi$, uniform on the circle, has squared loss $\mathcal E/\pi$ between its angles
$\theta\in[0,\pi)$ and those of the target.

Source: daneshmand2023-efficient (the instance is ours)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.budgets import check_record
from theorylab.numerics.results import result
from theorylab.optimal_transport._pairs import mean_over_pairs
from theorylab.optimal_transport._problem import as_weights

__all__ = [
    "ParticleDescent",
    "cramer_distance",
    "energy_distance",
    "particle_descent",
    "step_network",
    "step_network_loss",
    "uniform_energy",
    "uniform_gradient",
]

_BLOCK = 2**21  # pairs held at a time


@result
class ParticleDescent:
    """A run of particle gradient descent.

    Attributes
    ----------
    positions
        (steps + 1, n): the particles, in the order in which they came.
    energies
        (steps + 1,): the functional on the way.
    """

    positions: FloatArray
    energies: FloatArray

    def __repr__(self) -> str:
        steps, n = self.positions.shape
        return (
            f"<ParticleDescent of {n} particles, {steps - 1} steps, energy {self.energies[0]:.3g} "
            f"to {self.energies[-1]:.3g}>"
        )


@refuses_overflow("x", "y")
def cramer_distance(
    x: ArrayLike, y: ArrayLike, a: ArrayLike | None = None, b: ArrayLike | None = None
) -> float:
    r"""Return $\int(F_\mu-F_\nu)^2$ of weighted points on the line: the energy distance,
    half the square of SciPy's.

    Parameters
    ----------
    x, y
        (n,) and (m,) points.
    a, b
        Weights that sum to one; uniform by default.

    Examples
    --------
    >>> from theorylab.optimal_transport import cramer_distance
    >>> cramer_distance([0.0, 2.0], [1.0])
    0.5
    """
    x, y = as_array(x, "x", ndim=1), as_array(y, "y", ndim=1)
    weights = np.concatenate([_weights(a, "a", x.size), -_weights(b, "b", y.size)])
    points = np.concatenate([x, y])
    order = np.argsort(points)
    return float(np.cumsum(weights[order])[:-1] ** 2 @ np.diff(points[order]))


@refuses_overflow("X", "Y")
def energy_distance(X: ArrayLike, Y: ArrayLike) -> float:
    r"""Return $\mathbb E|X-Y|-\frac12\mathbb E|X-X'|-\frac12\mathbb E|Y-Y'|$ of two clouds in
    any dimension.

    Displacement convex in X on the line only: in the plane $-|x_i-x_j|$ is concave along
    straight paths that turn about each other.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) points, of equal weight.

    Examples
    --------
    >>> from theorylab.optimal_transport import energy_distance
    >>> energy_distance([[0.0], [2.0]], [[1.0]])
    0.5
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(None, X.shape[1]))
    across, *inside = (mean_over_pairs(P, Q, np.asarray) for P, Q in ((X, Y), (X, X), (Y, Y)))
    return across - sum(inside) / 2


@refuses_overflow("x")
def uniform_energy(x: ArrayLike) -> float:
    r"""Return $\int(F_\mu-F_\nu)^2$ between n equal particles and the uniform measure on
    [0,1], as a sum of non-negative terms.

    Parameters
    ----------
    x
        (n,) particles, anywhere on the line.

    Examples
    --------
    >>> from theorylab.optimal_transport import uniform_energy
    >>> round(12 * 4**2 * uniform_energy([0.125, 0.375, 0.625, 0.875]), 12)
    1.0
    """
    points = np.sort(as_array(x, "x", ndim=1))
    levels = np.arange(points.size + 1) / points.size
    below = np.append(np.minimum(points, 0.0), 0.0)
    above = np.append(1.0, np.maximum(points, 1.0))
    ends = np.concatenate([[0.0], np.clip(points, 0.0, 1.0), [1.0]])
    p, q = ends[1:] - levels, ends[:-1] - levels
    inside = np.diff(ends) @ (p * p + p * q + q * q) / 3
    outside = levels[1:] ** 2 @ np.diff(below) + (1 - levels[:-1]) ** 2 @ np.diff(above)
    return float(inside + outside)


def uniform_gradient(x: ArrayLike) -> FloatArray:
    """Return the gradient of :func:`uniform_energy` in the n-particle metric: n times the partial
    derivatives; for coincident particles the subgradient that keeps them together.

    Parameters
    ----------
    x
        (n,) particles.

    Examples
    --------
    >>> from theorylab.optimal_transport import uniform_gradient
    >>> uniform_gradient([0.25, 5.0]).tolist()
    [0.0, 0.5]
    """
    x = as_array(x, "x", ndim=1)
    ordered = np.sort(x)
    ranks = (np.searchsorted(ordered, x) + np.searchsorted(ordered, x, side="right")) / 2
    gradient: FloatArray = 2 * (np.clip(x, 0.0, 1.0) - ranks / x.size)
    return gradient


@refuses_overflow("x", "step_size")
def particle_descent(x: ArrayLike, *, step_size: float, steps: int) -> ParticleDescent:
    r"""Run gradient descent of n particles towards the uniform measure on [0,1].

    From distinct particles and a step $\eta\le\frac12$ the energy is within
    $W_2^2(w_0,w^\star)/(4\eta k+1)$ of its least $\frac1{12n^2}$, where
    $w^\star$ are the points $\frac{i-1/2}n$. Particles that coincide stay together.

    Parameters
    ----------
    x
        (n,) start.
    step_size
        Step in the n-particle metric.
    steps
        Number of steps.

    Examples
    --------
    >>> from theorylab.optimal_transport import particle_descent
    >>> run = particle_descent([0.4, 0.1], step_size=0.5, steps=1)
    >>> run.positions[-1].tolist()
    [0.75, 0.25]
    """
    x = as_array(x, "x", ndim=1)
    step_size = as_real(step_size, "step_size", above=0.0)
    count = as_count(steps, "steps", minimum=0)
    check_record(count, x.size)
    positions = np.empty((count + 1, x.size))
    positions[0] = x
    for k in range(len(positions) - 1):
        positions[k + 1] = positions[k] - step_size * uniform_gradient(positions[k])
    return ParticleDescent(positions, np.array([uniform_energy(w) for w in positions]))


def step_network(
    angles: ArrayLike, inputs: ArrayLike, weights: ArrayLike | None = None
) -> FloatArray:
    r"""Return $\sum_ia_i\mathbf 1\{\cos(\theta_i-\varphi)>0\}$ at each input.

    Parameters
    ----------
    angles
        (n,) angles of the neurons.
    inputs
        (m,) angles of points on the circle.
    weights
        (n,) of the neurons, that sum to one; uniform by default.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import step_network
    >>> step_network([0.5, 1.0], [0.0, np.pi / 2 + 0.7]).tolist()
    [1.0, 0.5]
    """
    angles, inputs = as_array(angles, "angles", ndim=1), as_array(inputs, "inputs", ndim=1)
    w = _weights(weights, "weights", angles.size)
    outputs, rows = np.empty(inputs.size), max(1, _BLOCK // angles.size)
    for first in range(0, inputs.size, rows):
        block = slice(first, first + rows)
        outputs[block] = (np.cos(inputs[block, None] - angles) > 0) @ w
    return outputs


def step_network_loss(
    angles: ArrayLike,
    targets: ArrayLike,
    weights: ArrayLike | None = None,
    target_weights: ArrayLike | None = None,
) -> float:
    """Return the mean squared difference of two networks of step neurons over the circle: exact, as
    both are constant between the arcs' ends.

    Parameters
    ----------
    angles, targets
        (n,) and (m,) angles of the neurons, on the whole circle.
    weights, target_weights
        Of the neurons, that sum to one; uniform by default.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import step_network_loss
    >>> round(step_network_loss([0.5], [0.5 + np.pi / 4]), 12)
    0.25
    """
    angles, targets = as_array(angles, "angles", ndim=1), as_array(targets, "targets", ndim=1)
    quarter = np.pi / 2
    every = np.concatenate([angles, targets])
    ends = np.sort(np.mod(np.concatenate([every - quarter, every + quarter]), 2 * np.pi))
    lengths = np.diff(ends, append=ends[0] + 2 * np.pi)
    middle = ends + lengths / 2
    difference = step_network(angles, middle, weights) - step_network(
        targets, middle, _weights(target_weights, "target_weights", targets.size)
    )
    return float(lengths @ difference**2 / (2 * np.pi))


def _weights(weights: ArrayLike | None, name: str, size: int) -> FloatArray:
    if weights is None:
        return np.full(size, 1 / size)
    return as_weights(as_array(weights, name, shape=(size,)), name)
