r"""Gradient flow of deep residual networks, and what it keeps of their smoothness in depth.

$$h_0=Ax,\quad h_k=h_{k-1}+\frac1{L\sqrt m}V_k\sigma\Big(\frac{W_kh_{k-1}}{\sqrt q}\Big),
\quad F(x)=Bh_L,\qquad \ell=\frac1n\sum_i\|F(x_i)-y_i\|^2,$$

with $\sigma=\tanh$, and $\dot Z_k=-L\,\partial\ell/\partial Z_k$ for
$Z_k=(V_k,W_k)$, plain gradients for A and B. Where $Z_k(0)=\mathcal Z(k/L)$ with a
Lipschitz $\mathcal Z$, differences of adjacent layers obey a linear system of which the
coefficients do not depend on L: with bounds v, w, b, H of the norms of the weights and of the
hidden layers, $c=s_1vw/\sqrt{mq}$, $S=\min(s_0,s_1wH/\sqrt{mq})$,
$P=2b\sqrt\ell e^c\ge\sum_i|\partial\ell/\partial h_i|$, and $\lambda_V,\lambda_W$
bounds of L times the differences,

$$\dot\lambda_V=2cSP+\frac{s_1PH}{\sqrt{mq}}\lambda_W,\qquad
\dot\lambda_W=\frac P{\sqrt{mq}}\Big[s_1H\lambda_V+\frac{s_2vH^2}{\sqrt q}\lambda_W
+\frac{s_2v^2wSH}{\sqrt q}+s_1vcH+s_1v^2S\Big].$$

where $s_0=s_1=1$ and $s_2=4/\sqrt{27}$ bound
$|\sigma|,|\sigma'|,|\sigma''|$. The bounds of the norms grow no faster than the gradients,
$\dot v=PS$, $\dot w=s_1vPH/\sqrt{mq}$, $\dot a=P|x|$,
$\dot b=2\sqrt\ell H$: a scalar system that bounds the flow from its start alone. The loss in
it stays where it was, or, from $V=0$ and tied W, falls at the rate
$\frac4n(\sigma_{\min}(J_0)-\Delta)_+^2$ with a bound $\Delta$ of the drift of the
Jacobian J (scaled by $\sqrt L$ for the layers), the condition of Polyak and Lojasiewicz.

At the standard start, V = 0, $W_k=W$, $A=(I,0)^\top$, $B=(0,I)$,
$|x_i|\le\sqrt q$, the system can be followed by hand to infinite time. Let
$\omega=\|W\|_2/\sqrt{mq}$ and $\kappa^2=(30(1+\omega))^2n^3q^2\ell(0)/\lambda^3\le1$
with $\lambda=\lambda_{\min}(SS^\top+2XX^\top)\le1+2q$,
$S=\sigma(XW_x^\top/\sqrt q)/\sqrt m$. While $\Delta\le\sqrt\lambda/2$, the integral of
$\sqrt\ell$ is at most $2n\sqrt{\ell(0)}/\lambda$, so that $be^c\le1.35$ (in fact
1.31), $v\le\int P\le0.285\kappa/((1+\omega)\sqrt{nq})$, $H\le1.43\sqrt q$, and
$\Delta\le0.43\kappa\sqrt\lambda$: it stays so at all times. With that, and
$be^c\le1+0.35\kappa$,

$$\int P\le p=\frac{(1+0.35\kappa)n\sqrt{\ell(0)}}{(1-\kappa/2)^2\lambda},\quad
\ell\le\ell(0)e^{-\frac4n\lambda(1-\kappa/2)^2t},\quad
\lambda_V\le(1.02\omega+0.03)p^2,\ \lambda_W\le(1.35\omega+0.27)p^3.$$

Paper: marion2023-implicit; the constants are derived here."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_real, refuses_overflow
from theorylab.implicit_regularization._residual_network import (
    as_network,
    forward,
    gradients,
)
from theorylab.numerics.flows import integrate
from theorylab.numerics.results import result

__all__ = [
    "FlowMajorant",
    "ResidualFlow",
    "TiedConvergence",
    "depth_increments",
    "flow_majorant",
    "residual_gradient_flow",
    "tied_convergence",
]

_EVALUATIONS = 4000
CURVATURE = 4 / (3 * math.sqrt(3))  # the largest |tanh''|


@result
class ResidualFlow:
    """A gradient flow at T times.

    Attributes
    ----------
    times, losses
        (T,).
    V, W, A, B
        (T, L, q, m), (T, L, m, q), (T, q, d), (T, d', q).
    outputs
        (T, n, d').
    """

    times: FloatArray
    losses: FloatArray
    V: FloatArray
    W: FloatArray
    A: FloatArray
    B: FloatArray
    outputs: FloatArray


@result
class FlowMajorant:
    """Upper bounds of a gradient flow at T times, arrays of shape (T,).

    Attributes
    ----------
    times, losses
        Of the loss.
    increments
        (T, 2): of L times the Frobenius norm of a difference of adjacent $V_k$, and of
        adjacent $W_k$.
    distances
        (T, 2): of the Frobenius norms of the changes of a $V_k$, and of a $W_k$.
    """

    times: FloatArray
    losses: FloatArray
    increments: FloatArray
    distances: FloatArray


@result
class TiedConvergence:
    """What the standard start says of its flow at all times, and at every depth.

    Attributes
    ----------
    eigenvalue
        $\\lambda$.
    excess
        $\\kappa$, at most 1 if what follows is proved.
    rate
        $\\ell(t)\\le\\ell(0)e^{-rate\\,t}$; 0 if unproved.
    increments
        (2,): bounds of L times the differences of adjacent $V_k$, and of adjacent
        $W_k$, in the Frobenius norm; infinite if unproved.
    """

    eigenvalue: float
    excess: float
    rate: float
    increments: FloatArray


@refuses_overflow("V", "W", "A", "B", "X", "Y")
def residual_gradient_flow(
    V: ArrayLike,
    W: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    X: ArrayLike,
    Y: ArrayLike,
    times: ArrayLike,
    *,
    speed: float | None = None,
    tol: float = 1e-9,
) -> ResidualFlow:
    r"""Follow the gradient flow of all weights.

    Parameters
    ----------
    V, W, A, B, X
        As for :func:`residual_outputs`: the weights at time 0.
    Y
        (n, d') targets.
    times
        Increasing, from 0 on.
    speed
        Factor of the gradients of the layers; L by default.
    tol
        Relative error of a step of the integrator (order 8); entries below a hundredth of the
        targets, or of 1, have that error relative to them.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import residual_gradient_flow, tied_network
    >>> start = tied_network(4, depth=8, hidden=2, inputs=1, outputs=1, seed=0)
    >>> flow = residual_gradient_flow(*start, [[1.0], [-0.5]], [[0.3], [0.1]], [0.0, 1.0, 10.0])
    >>> bool(flow.losses[2] < flow.losses[1] < flow.losses[0])
    True
    """
    net, data = as_network(V, W, A, B, X)
    targets = as_array(Y, "Y", shape=(len(data), len(net[3])))
    at = as_array(times, "times", ndim=1, nonnegative=True)
    if (np.diff(at) <= 0).any():
        raise ValueError("times: expected increasing values")
    fast = float(len(net[0])) if speed is None else as_real(speed, "speed", minimum=0.0)
    accuracy = as_real(tol, "tol", minimum=1e-13, maximum=1e-2)
    ends = np.cumsum([0] + [w.size for w in net])
    shapes = [w.shape for w in net]

    def split(state: FloatArray) -> list[FloatArray]:
        flat = np.ascontiguousarray(state)
        return [flat[i:j].reshape(s) for i, j, s in zip(ends[:-1], ends[1:], shapes, strict=True)]

    def velocity(_: float, state: FloatArray) -> FloatArray:
        v, w, a, b = split(state)
        dv, dw, da, db = gradients(v, w, a, b, data, targets)
        return -np.concatenate([g.ravel() for g in (fast * dv, fast * dw, da, db)])

    start = np.concatenate([w.ravel() for w in net])
    small = accuracy * 1e-2 * min(float(np.abs(targets).max()) or 1.0, 1.0)
    states = integrate(velocity, start, at, rtol=accuracy, atol=small, evaluations=_EVALUATIONS)
    v, w, a, b = (np.array(z) for z in zip(*map(split, states), strict=True))
    rows = zip(v, w, a, b, strict=True)
    outputs = np.array([forward(*row, data)[-1] @ row[3].T for row in rows])
    losses = np.sum((outputs - targets) ** 2, axis=(1, 2)) / len(data)
    return ResidualFlow(at, losses, v, w, a, b, outputs)


def depth_increments(V: ArrayLike, W: ArrayLike) -> FloatArray:
    r"""Return $L\max_k\|V_{k+1}-V_k\|_F$ and $L\max_k\|W_{k+1}-W_k\|_F$, shape (2,).

    Parameters
    ----------
    V, W
        (L, q, m) and (L, m, q).

    Examples
    --------
    >>> from theorylab.implicit_regularization import depth_increments
    >>> depth_increments([[[0.5]], [[1.0]]], [[[2.0]], [[2.0]]])
    array([1., 0.])
    """
    v = as_array(V, "V", ndim=3)
    w = as_array(W, "W", shape=(len(v), v.shape[2], v.shape[1]))
    sizes = [np.linalg.norm(np.diff(z, axis=0), axis=(1, 2)).max(initial=0.0) for z in (v, w)]
    found = len(v) * np.array(sizes)
    if not np.isfinite(found).all():
        raise ValueError("V, W: expected differences whose squares stay within float64")
    return found


@refuses_overflow("V", "W", "A", "B", "X", "Y", "loss")
def flow_majorant(
    V: ArrayLike,
    W: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    X: ArrayLike,
    Y: ArrayLike,
    times: ArrayLike,
    *,
    lipschitz: ArrayLike | None = None,
    loss: float | None = None,
) -> FlowMajorant:
    r"""Bound the flow of a tanh network from its start, by the system of the module's first lines.

    Parameters
    ----------
    V, W, A, B, X, Y, times
        As for :func:`residual_gradient_flow`.
    lipschitz
        (2,): Lipschitz constants of $\mathcal V$ and $\mathcal W$; by default the
        increments of the given layers.
    loss
        Upper bound of the initial loss, to be used for networks of several depths; by default that
        of the given one.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import flow_majorant, residual_gradient_flow
    >>> from theorylab.implicit_regularization import tied_network
    >>> start = tied_network(4, depth=8, hidden=2, inputs=1, outputs=1, seed=0)
    >>> problem = (*start, [[1.0]], [[0.05]], [0.0, 4.0])
    >>> bool(residual_gradient_flow(*problem).losses[1] < flow_majorant(*problem).losses[1] < 1e-3)
    True
    """
    net, data = as_network(V, W, A, B, X)
    targets = as_array(Y, "Y", shape=(len(data), len(net[3])))
    at = as_array(times, "times", ndim=1, nonnegative=True)
    if (np.diff(at) <= 0).any():
        raise ValueError("times: expected increasing values")
    hidden = forward(*net, data)
    error = np.sum((hidden[-1] @ net[3].T - targets) ** 2) / len(data)
    top = float(error) if loss is None else as_real(loss, "loss", minimum=float(error))
    rough = depth_increments(net[0], net[1]) if lipschitz is None else lipschitz
    steep = as_array(rough, "lipschitz", shape=(2,), nonnegative=True)
    v0, w0 = (float(np.linalg.norm(z, 2, axis=(1, 2)).max()) for z in net[:2])
    b0 = float(np.linalg.norm(net[3], 2))
    n, q, m = len(data), net[0].shape[1], net[0].shape[2]
    reach = float(np.linalg.norm(data, axis=1).max())
    first = float(np.linalg.norm(hidden[0], axis=1).max())
    root = math.sqrt(m * q)
    tied = v0 == 0 and (net[1] == net[1][0]).all()
    sigma = 0.0
    if tied:
        features = np.tanh(hidden[0] @ net[1][0].T / math.sqrt(q)) / math.sqrt(m)
        # The kernel is (F F' + X X') x B B' + H H' x I: of its blocks in the eigenvectors of B B',
        # that of the least eigenvalue has the least.
        weak = max(float(np.linalg.eigvalsh(net[3] @ net[3].T)[0]), 0.0)
        kernel = weak * (features @ features.T + data @ data.T) + hidden[0] @ hidden[0].T
        sigma = math.sqrt(max(float(np.linalg.eigvalsh(kernel)[0]), 0.0))

    def velocity(_: float, state: FloatArray) -> FloatArray:
        dv, dw, da, db, lv, lw, share = state
        v, w, b, size = v0 + dv, w0 + dw, b0 + db, math.sqrt(top * max(share, 0.0))
        c = v * w / root
        growth = math.exp(c)
        H = min((first + da * reach) * growth, first + da * reach + v)
        S = min(1.0, w * H / root)
        P = 2 * b * size * growth
        turn = db + b * math.expm1(c)
        moved = da * reach + v * S
        drift = math.sqrt(n) * math.hypot(
            turn * S + b0 * (dw * H + w0 * moved) / root,
            b * growth * v * H / root,
            turn * reach,
            moved,
        )
        bend = CURVATURE * v * H / math.sqrt(q)
        inner = H * lv + bend * H * lw + bend * v * w * S + v * c * H + v * v * S
        rates = [P * S, v * P * H / root, P * reach, 2 * size * H]
        rates += [2 * c * S * P + P * H / root * lw, P / root * inner]
        return np.array([*rates, -4 / n * max(sigma - drift, 0.0) ** 2 * share])

    start = np.array([0.0, 0.0, 0.0, 0.0, *steep, 1.0])
    states = integrate(velocity, start, at, rtol=1e-9, atol=1e-13, evaluations=_EVALUATIONS)
    return FlowMajorant(at, top * states[:, 6], states[:, 4:6], states[:, :2])


@refuses_overflow("W", "X", "Y", infinite=True)
def tied_convergence(W: ArrayLike, X: ArrayLike, Y: ArrayLike) -> TiedConvergence:
    r"""Bound the flow from the standard start of :func:`tied_network` at all times, if its targets
    are small.

    Parameters
    ----------
    W
        (m, q): the matrix of all layers.
    X, Y
        (n, d) data of norms at most $\sqrt q$, and (n, d') targets, d + d' = q.

    Examples
    --------
    >>> from theorylab.implicit_regularization import tied_convergence
    >>> found = tied_convergence([[1.0, 0.5]], [[1.0]], [[0.005]])
    >>> round(found.eigenvalue, 4), round(found.excess, 4), round(found.rate, 4)
    (2.3707, 0.1472, 8.1387)
    """
    data = as_array(X, "X", ndim=2)
    n, d = data.shape
    targets = as_array(Y, "Y", shape=(n, None))
    q = d + targets.shape[1]
    first = as_array(W, "W", shape=(None, q))
    m = len(first)
    if np.linalg.norm(data, axis=1).max() > math.sqrt(q) * (1 + 1e-12):
        raise ValueError(f"X: expected rows of norm at most sqrt(d + d'), {math.sqrt(q):.6g}")
    features = np.tanh(data @ first[:, :d].T / math.sqrt(q)) / math.sqrt(m)
    kernel = features @ features.T + 2 * data @ data.T
    low = float(np.linalg.eigvalsh(kernel)[0])
    omega = float(np.linalg.norm(first, 2)) / math.sqrt(m * q)
    size = float(np.linalg.norm(targets)) / math.sqrt(n)
    if low < 1e-14 * np.trace(kernel):
        return TiedConvergence(low, math.inf, 0.0, np.full(2, math.inf))
    excess = 30 * (1 + omega) * n**1.5 * q * size / low**1.5
    if excess > 1:
        return TiedConvergence(low, excess, 0.0, np.full(2, math.inf))
    left = (1 - excess / 2) ** 2
    p = (1 + 0.35 * excess) * n * size / left / low
    bounds = np.array([(1.02 * omega + 0.03) * p**2, (1.35 * omega + 0.27) * p**3])
    return TiedConvergence(low, excess, 4 / n * low * left, bounds)
