r"""The worst perturbation of every input of a two-layer ReLU network, exactly, and of its
linearisation.

Every input may move by $\|\delta\|_p\le\epsilon$, p infinite or 2. On each activation region
inside the ball the network is affine, so that it is extreme at an extreme point of the region's
closure: finitely many points, all of which are compared. The linearisation at $x_k$ has the worst
case $\ell_k\big(f(x_k),\epsilon\|\nabla f(x_k)\|_q\big)$ with
$\ell_k(f,r)=(1-y_kf+r)_+$ (hinge) or $\frac12(|f-y_k|+r)^2$ (squared)."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_instance,
    as_real,
    one_of,
    refuses_overflow,
)
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._stability import BALLS, dual_norms
from theorylab.convex_relu.arrangements import cover_count, enumerate_arrangements
from theorylab.convex_relu.losses import Hinge, Loss, Squared, as_loss
from theorylab.numerics.results import result

__all__ = ["Attack", "linearized_loss", "worst_case"]

_MAX_CANDIDATES = 2_000_000


@result
class Attack:
    """The worst perturbation of every input.

    Parameters
    ----------
    perturbations
        Shape (n, d), inside the ball.
    outputs
        Outputs at the perturbed inputs, shape (n,).
    losses
        Losses there, shape (n,): no perturbation in the ball does more harm.
    """

    perturbations: FloatArray
    outputs: FloatArray
    losses: FloatArray

    @property
    def loss(self) -> float:
        """Worst-case loss, summed over inputs."""
        return float(self.losses.sum())


@refuses_overflow("network", "X", "y", "eps")
def worst_case(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    *,
    loss: str | Loss = "hinge",
    ball: str = "linf",
) -> Attack:
    """Find the worst perturbation of every input of any two-layer ReLU network, exactly.

    Parameters
    ----------
    network
        Network with one output; biases and a skip connection are allowed.
    X, y
        Data, shape (n, d), and labels or targets, shape (n,).
    eps
        Radius of the balls, >= 0.
    loss, ball
        "hinge", "squared" or the ``Loss`` of that name; "linf" or "l2".

    Returns
    -------
    Attack
        Perturbations, outputs and losses.

    Raises
    ------
    ValueError
        For malformed data, or where more than two million points would have to be compared.

    Notes
    -----
    On each activation region inside the ball the network is affine, so that it is extreme at an
    extreme point of the region's closure: where d independent hyperplanes meet (of neurons, or
    faces of the box), or, on the sphere, at the extreme point of an affine function on a flat in
    which k < d of the neurons' hyperplanes meet. All of these points are compared; only neurons
    that change sign inside the ball take part. Exponential in d.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import Network, worst_case
    >>> network = Network(np.array([[1.0, 0.0]]), np.array([1.0]))
    >>> worst_case(network, [[1.0, 0.0]], [1.0], 0.25).losses
    array([0.25])
    """
    network, X, y, loss, ball = attacked(network, X, y, loss, ball)
    eps = as_real(eps, "eps", minimum=0.0)
    perturbations, outputs, losses = np.zeros_like(X), np.empty(len(X)), np.empty(len(X))
    for k, x in enumerate(X):
        points = _extreme_points(network, x, eps, ball)
        values = network(x + points)
        harm = loss.terms(values, y[k : k + 1])
        # Of equally harmful points (a hinge at zero), the one with the least margin.
        best = (
            int(np.lexsort((y[k] * values, -harm))[0])
            if isinstance(loss, Hinge)
            else int(np.argmax(harm))
        )
        perturbations[k], outputs[k], losses[k] = points[best], values[best], harm[best]
    return Attack(perturbations, outputs, losses)


@refuses_overflow("network", "X", "y", "eps")
def linearized_loss(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    *,
    loss: str | Loss = "hinge",
    ball: str = "linf",
) -> float:
    r"""Return the worst-case loss of the network's linearisation at every input, the robust
    program's loss.

    Parameters
    ----------
    network, X, y, eps, loss, ball
        As for ``worst_case``.

    Returns
    -------
    float
        $\sum_k\ell_k(f(x_k),\epsilon\|\nabla f(x_k)\|_q)$; the true worst case if every
        neuron is stable.

    Notes
    -----
    bai2021-practical (convex adversarial training).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import linearized_loss, Network
    >>> network = Network(np.array([[1.0, 0.0]]), np.array([1.0]))
    >>> linearized_loss(network, [[1.0, 0.0]], [1.0], 0.25)
    0.25
    """
    network, X, y, loss, ball = attacked(network, X, y, loss, ball)
    eps = as_real(eps, "eps", minimum=0.0)
    active = X @ network.weights.T + network.biases >= 0.0
    gradients = (active * network.output_weights) @ network.weights + network.linear
    return float(robust_losses(network(X), eps * dual_norms(gradients, ball), y, loss).sum())


def robust_loss(loss: str | Loss, y: FloatArray) -> Loss:
    """Return a loss whose worst case is known, with its targets checked."""
    chosen = as_loss(loss, Hinge, Squared)
    chosen.check_labels(y)
    return chosen


def attacked(
    network: Network, X: ArrayLike, y: ArrayLike, loss: str | Loss, ball: str
) -> tuple[Network, FloatArray, FloatArray, Loss, str]:
    """Validate a network with one output and its problem."""
    network = as_instance(network, "network", Network)
    if network.output_weights.ndim != 1:
        raise ValueError(
            "network: expected one output, got output weights of shape "
            f"{network.output_weights.shape}"
        )
    X = as_array(X, "X", shape=(None, network.weights.shape[1]))
    y = as_array(y, "y", shape=(X.shape[0],))
    chosen = robust_loss(loss, y)
    return network, X, y, chosen, one_of(ball, "ball", BALLS)


def robust_losses(f: FloatArray, moves: FloatArray, y: FloatArray, loss: Loss) -> FloatArray:
    """Return the losses after the worst moves of outputs that are at most as long as given."""
    return (
        np.maximum(1.0 - y * f + moves, 0.0)
        if isinstance(loss, Hinge)
        else 0.5 * (np.abs(f - y) + moves) ** 2
    )


def _extreme_points(network: Network, x: FloatArray, eps: float, ball: str) -> FloatArray:
    """Return perturbations among which are those of the least and the largest output, shape (count,
    d)."""
    W, a = network.weights, network.output_weights
    z, lengths = W @ x + network.biases, dual_norms(W, ball)
    unstable = (np.abs(z) < eps * lengths) & (a != 0.0)
    steady = (z > 0.0) & ~unstable
    base = a[steady] @ W[steady] + network.linear
    # In a ball of radius one, rows of length one: a neuron's units are anyone's choice.
    lengths = lengths[unstable]
    W, z, a = W[unstable] / lengths[:, None], z[unstable] / lengths / eps, a[unstable] * lengths
    return eps * (_box_points(W, z, base) if ball == "linf" else _sphere_points(W, z, a, base))


def _box_points(W: FloatArray, z: FloatArray, base: FloatArray) -> FloatArray:
    u, d = W.shape
    if u == 0:
        return np.vstack([np.sign(base), -np.sign(base), np.zeros(d)])
    total = sum(math.comb(u, k) * math.comb(d, k) * 2 ** (d - k) for k in range(min(u, d) + 1))
    if total > _MAX_CANDIDATES:
        raise ValueError(
            f"network: expected at most {_MAX_CANDIDATES} candidate points per input, got {total}"
        )
    points = []
    for k in range(min(u, d) + 1):
        rows = np.array(list(combinations(range(u), k)), dtype=np.intp).reshape(math.comb(u, k), k)
        corners = np.array(list(product((-1.0, 1.0), repeat=d - k))).reshape(2 ** (d - k), d - k)
        for free in combinations(range(d), k):
            held = [i for i in range(d) if i not in free]
            block = np.empty((len(rows), len(corners), d))
            block[:, :, held] = corners
            if k > 0:
                systems = W[rows][:, :, list(free)]
                good = np.abs(np.linalg.det(systems)) > 1e-13 * np.prod(
                    np.linalg.norm(W[rows], axis=2), axis=1
                )
                right = -z[rows][:, :, None] - W[rows][:, :, held] @ corners.T
                solved = np.linalg.solve(systems[good], right[good])
                block = block[good]
                block[:, :, list(free)] = np.swapaxes(solved, 1, 2)
            flat = block.reshape(-1, d)
            # Rounding may put a point on a face slightly outside: it is clipped.
            points.append(flat[np.all(np.abs(flat) <= 1.0 + 1e-9, axis=1)])
    return np.clip(np.vstack(points), -1.0, 1.0)


def _sphere_points(W: FloatArray, z: FloatArray, a: FloatArray, base: FloatArray) -> FloatArray:
    u, d = W.shape
    total = sum(
        math.comb(u, k) * (cover_count(u - k, d - k + 1) if k < min(u, d - 1) else 2)
        for k in range(min(u, d) + 1)
    )
    if total > _MAX_CANDIDATES:
        raise ValueError(
            f"network: expected at most {_MAX_CANDIDATES} candidate points per input, got {total}"
        )
    points: list[FloatArray] = []
    for k in range(min(u, d) + 1):
        for rows in combinations(range(u), k):
            chosen = list(rows)
            basis: FloatArray = np.eye(d)
            centre: FloatArray = np.zeros(d)
            if k > 0:
                _, s, vt = np.linalg.svd(W[chosen])
                if s[-1] <= 1e-13 * s[0]:
                    continue
                basis = vt[k:].T
                centre = np.asarray(
                    np.linalg.lstsq(W[chosen], -z[chosen], rcond=None)[0], dtype=np.float64
                )
            square = 1.0 - float(centre @ centre)
            if square < -1e-9:
                continue
            radius = math.sqrt(max(square, 0.0))
            # A vertex, or for all of a flat where the network is constant on it.
            points.append(centre[None])
            if k == d:
                continue
            others = [j for j in range(u) if j not in chosen]
            if k == d - 1:
                steps = basis.T
            elif others:
                lifted = np.column_stack([W[others] @ basis, z[others] + W[others] @ centre])
                active = enumerate_arrangements(lifted)
                steps = (base + (active * a[others]) @ W[others]) @ basis @ basis.T
            else:
                steps = (base @ basis @ basis.T)[None]
            lengths = dual_norms(steps, "l2")
            steps = steps[lengths > 0.0] / lengths[lengths > 0.0, None]
            points += [centre + radius * steps, centre - radius * steps]
    stacked = np.vstack(points)
    lengths = np.linalg.norm(stacked, axis=1)
    inside: FloatArray = stacked / np.maximum(lengths, 1.0)[:, None]
    return inside
