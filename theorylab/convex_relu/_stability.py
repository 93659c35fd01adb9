r"""Neurons that keep their sign on all perturbation balls, and the corridors that they need.

Every input may move by $\|\delta\|_p\le\epsilon$, p infinite or 2; q is the dual exponent, 1
or 2. A neuron v is *stable* if $|x_k^\top v|\ge\epsilon\|v\|_q$ for all k. Pattern D has a
non-zero stable neuron iff $\epsilon\le\mu=\max_{\|v\|_q\le1}\min_ks_kx_k^\top v$,
$s=2D-1$, the half-width of a corridor through the origin."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real, one_of
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._problem import as_patterns
from theorylab.convex_relu.arrangements import enumerate_arrangements
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.programs import linprog

__all__ = ["corridor_widths", "random_stable_network", "stability_radii"]

BALLS = ("linf", "l2")


def stability_radii(network: Network, X: ArrayLike, *, ball: str = "linf") -> FloatArray:
    r"""Return the largest radius at which each neuron changes sign on no ball, $\min_k|w^\top
    x_k+b|/\|w\|_q$.

    Parameters
    ----------
    network
        Network with m neurons.
    X
        Data, shape (n, d).
    ball
        "linf" or "l2".

    Returns
    -------
    ndarray
        Shape (m,); infinite for a neuron with zero weights.

    Raises
    ------
    ValueError
        For malformed data or an unknown ball.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import Network, stability_radii
    >>> network = Network(np.array([[3.0, 4.0]]), np.array([1.0]))
    >>> stability_radii(network, [[1.0, 0.5]], ball="l2")
    array([1.])
    """
    network = as_instance(network, "network", Network)
    X = as_array(X, "X", shape=(None, network.weights.shape[1]))
    ball = one_of(ball, "ball", BALLS)
    W, lengths = network.weights, dual_norms(network.weights, ball)
    radii: FloatArray = np.full(len(W), np.inf)
    kept, unit = lengths > 0.0, power_of_two(X)
    # Powers of two: products of tiny numbers vanish, and those of large ones have no float64.
    sizes = _units(W[kept])
    with np.errstate(over="ignore"):
        biases = network.biases[kept] / sizes / unit
        least = np.abs((X / unit) @ (W[kept] / sizes[:, None]).T + biases).min(axis=0)
        radii[kept] = least / (lengths[kept] / sizes) * unit
    if not np.isfinite(radii[kept]).all():
        raise ValueError("network: expected neurons whose hyperplanes are at distances in float64")
    return radii


def corridor_widths(
    X: ArrayLike, *, ball: str = "linf", arrangements: str | ArrayLike = "all"
) -> FloatArray:
    r"""Return the largest radius at which each pattern has a stable neuron,
    $\mu_i=\max_{\|v\|_q\le1}\min_k(2D_i-I)_{kk}x_k^\top v$.

    Parameters
    ----------
    X
        Data, shape (n, d).
    ball
        "linf" (then v is bounded in the l1 norm) or "l2".
    arrangements
        "all", in the order of ``enumerate_arrangements``, or patterns of shape (P, n).

    Returns
    -------
    ndarray
        Shape (P,), >= 0. Robust training returns the zero network at every radius above their
        maximum.

    Raises
    ------
    ValueError
        For malformed data or patterns.

    Notes
    -----
    Derived from the cone constraint of bai2021-practical. By duality $\mu_i$ is the least
    $\ell_p$ norm in the convex hull of the points $(2D_i-I)_{kk}x_k$: a linear program,
    or for p = 2 a non-negative least-squares problem.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import corridor_widths
    >>> np.round(corridor_widths([[1.0], [2.0]]), 6)
    array([1., 1.])
    """
    X = as_array(X, "X", ndim=2)
    ball = one_of(ball, "ball", BALLS)
    patterns = as_patterns(arrangements, X.shape[0])
    patterns = enumerate_arrangements(X) if patterns is None else patterns
    unit = power_of_two(X)
    signs = np.where(patterns, 1.0, -1.0)
    return unit * np.array([_corridor(side[:, None] * (X / unit), ball) for side in signs])


def random_stable_network(
    X: ArrayLike,
    eps: float,
    *,
    n_neurons: int,
    ball: str = "linf",
    rng: np.random.Generator,
) -> Network:
    r"""Draw a network of neurons with biases that are stable at a radius: a feasible point of the
    robust program.

    Parameters
    ----------
    X
        Data, shape (n, d).
    eps
        Radius, >= 0.
    n_neurons
        Number of neurons.
    ball
        "linf" or "l2".
    rng
        Random generator.

    Returns
    -------
    Network
        Gaussian directions whose hyperplanes miss all balls. Biases are Gaussian, of the size of
        the data, and grow until a hyperplane does: some lie beyond all of the data.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import random_stable_network, stability_radii
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> network = random_stable_network(X, 0.2, n_neurons=3, rng=np.random.default_rng(0))
    >>> bool((stability_radii(network, X) >= 0.2).all())
    True
    """
    X = as_array(X, "X", ndim=2)
    eps = as_real(eps, "eps", minimum=0.0)
    m = as_count(n_neurons, "n_neurons")
    ball = one_of(ball, "ball", BALLS)
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    unit = power_of_two(np.append(X, eps))
    X, eps = X / unit, eps / unit
    weights, biases = rng.normal(size=(m, X.shape[1])), np.zeros(m)
    output = rng.normal(size=m)
    size = float(np.linalg.norm(X, axis=1).max()) + eps
    unstable = np.ones(m, dtype=bool)
    while unstable.any():
        lengths = np.linalg.norm(weights[unstable], axis=1)
        biases[unstable] = size * lengths * rng.normal(size=lengths.size)
        unstable = stability_radii(Network(weights, output, biases), X, ball=ball) < eps
        size *= 1.0 + 1e-2
    return Network(weights, output, unit * biases)


def dual_norms(rows: FloatArray, ball: str) -> FloatArray:
    """Return the norms dual to the ball, along the last axis."""
    units = _units(rows)
    scaled = rows / units[..., None]
    result: FloatArray = units * np.linalg.norm(scaled, ord=1 if ball == "linf" else 2, axis=-1)
    return result


def _units(rows: FloatArray) -> FloatArray:
    """Return the powers of two above the largest entries along the last axis."""
    sizes = np.abs(rows).max(axis=-1, initial=0.0)
    # The largest of them lies beyond float64.
    units: FloatArray = np.ldexp(1.0, np.minimum(np.frexp(sizes)[1], 1023))
    return units


def _corridor(points: FloatArray, ball: str) -> float:
    """Return the least norm in the convex hull of the points, the width of the corridor that they
    leave on one side."""
    n, d = points.shape
    if ball == "l2":
        # The residual of this problem is proportional to (nearest point, -|nearest point|^2)
        # (Lawson and Hanson, least distance).
        weights, _ = nnls(np.vstack([points.T, np.ones(n)]), np.append(np.zeros(d), 1.0))
        return float(np.linalg.norm(points.T @ weights)) / float(weights.sum())
    costs = np.append(np.zeros(n), 1.0)
    sides = np.vstack(
        [np.column_stack([points.T, -np.ones(d)]), np.column_stack([-points.T, -np.ones(d)])]
    )
    found = linprog(
        costs,
        A_ub=sides,
        b_ub=np.zeros(2 * d),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.x is None:
        raise ArithmeticError(f"the linear program of a corridor failed: {found.message}")
    # The value of a feasible point, whatever the solver's tolerance.
    weights = np.maximum(np.asarray(found.x)[:-1], 0.0)
    return float(np.abs(points.T @ weights).max()) / float(weights.sum())
