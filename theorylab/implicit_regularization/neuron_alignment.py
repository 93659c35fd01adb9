r"""Two-layer ReLU networks from a small balanced start: neurons align, then learn.

$f(x)=\sum_jv_j(w_j^\top x)_+$, loss $\sum_i\exp(-y_if(x_i))$, labels
$y_i=\pm1$, balanced start $|v_j|=|w_j|$. The data $z_i=y_ix_i$ are separated by
$\mu$ if $\cos(z_i,z_k)\ge\mu>0$ for all pairs.

While f is small, directions $u=w/|w|$ move with s = sign v by

$$\dot u=sP_u^\perp\sum_{u^\top x_i>0}y_ix_i=P_u^\perp S:$$

between two switches on the great circle to S, $\cos(u,S)=\tanh(|S|t+c)$, so that all switches
are found without discretisation. $u^\top S$ never decreases. From the first time
at which it is not negative (the norm stops shrinking), a datum with $u^\top sz_i=-c|z_i|<0$
has $\dot c\le-\mu|x|_{\min}-c\,u^\top S$, $u^\top S\ge|x|_{\min}\tanh(|x|_{\min}t)$ and
$c(0)\le\sqrt{1-\mu^2}$: it switches within $\operatorname{arcosh}(1/\mu)/|x|_{\min}$,
which two points attain. As $\operatorname{arcosh}(1/\mu)\le1.04/\sqrt\mu$, this is
$O(\log n/\sqrt\mu)$, without the logarithm.

After alignment, neurons of one sign are a linear network on the data of that label: with
$g=\sum_i\ell_ix_i$ the loss of the label falls at least as $-\alpha\ell^2$, and
$D=W^\top W-vv^\top$ (rows and columns: neurons) is constant, whence
$\|W\|_F^2\le2\|W\|_2^2+\sum_\pm(\|D_\pm\|_2+\operatorname{tr}D_\pm)+\|W_{dead}\|_F^2$, where
the traces are 0 for balanced weights.

Paper: min2023-early; the constants are derived here."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.flows import integrate
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "AlignedPhase",
    "Alignment",
    "Fate",
    "ReluFlow",
    "align_directions",
    "aligned_phase",
    "alignment_bound",
    "data_separation",
    "relu_descent",
    "relu_flow",
]


class Fate(StrEnum):
    """Where a direction ends."""

    ALIGNED = "active on exactly the data of the label of its sign"
    DEAD = "inactive on all data"
    STUCK = "at a switch that pushes back, at the repelling direction, or on another pattern"


@result
class Alignment:
    """The ends of h directions.

    Attributes
    ----------
    rising
        (h,): first times at which the norm does not shrink; infinite for DEAD, and for none.
    settled
        (h,): times of the last switch; infinite for STUCK.
    directions
        (h, d): limits.
    fates
        One :class:`Fate` a direction.
    """

    rising: FloatArray
    settled: FloatArray
    directions: FloatArray
    fates: tuple[Fate, ...]


@result
class ReluFlow:
    """A gradient flow at T times.

    Attributes
    ----------
    times, losses
        (T,).
    W, v
        (T, h, d) and (T, h).
    """

    times: FloatArray
    losses: FloatArray
    W: FloatArray
    v: FloatArray


@result
class AlignedPhase:
    """What the weights at a time say of all later ones of the flow, if all neurons are aligned or
    dead.

    Attributes
    ----------
    aligned
        (h,): whether the neuron is aligned or dead.
    alpha
        $L(t)\\le L/(1+\\alpha L(t-t_2))$; 0 if a label has no neuron.
    remainder
        $\\|W(t)\\|_F^2-2\\|W(t)\\|_2^2$ is at most that.
    """

    aligned: NDArray[np.bool_]
    alpha: float
    remainder: float


@refuses_overflow("X")
def data_separation(X: ArrayLike, labels: ArrayLike) -> float:
    r"""Return the least cosine of two $y_ix_i$.

    Parameters
    ----------
    X, labels
        (n, d), without zero rows, and (n,) of -1 and 1.

    Examples
    --------
    >>> from theorylab.implicit_regularization import data_separation
    >>> round(data_separation([[3.0, 4.0], [-1.0, 0.0]], [1.0, -1.0]), 6)
    0.6
    """
    Z = _signed(X, labels)
    unit = Z / np.linalg.norm(Z, axis=1)[:, None]
    return float(np.clip(unit @ unit.T, -1, 1).min())


def alignment_bound(separation: float, smallest: float) -> float:
    r"""Return $\operatorname{arcosh}(1/\mu)/|x|_{\min}$, the longest time from where the norm
    of a neuron stops shrinking to its last switch.

    Parameters
    ----------
    separation, smallest
        $\mu$ in (0, 1], and the least norm of a datum.

    Examples
    --------
    >>> from theorylab.implicit_regularization import alignment_bound
    >>> round(alignment_bound(0.5, 2.0), 4)
    0.6585
    """
    mu = as_real(separation, "separation", minimum=1e-150, maximum=1.0)
    return math.acosh(1 / mu) / as_real(smallest, "smallest", minimum=1e-150, maximum=1e150)


@refuses_overflow("U", "X", infinite=True)
def align_directions(U: ArrayLike, signs: ArrayLike, X: ArrayLike, labels: ArrayLike) -> Alignment:
    r"""Follow directions in the limit of a vanishing start, switch by switch.

    Times are those of the exponential loss; with a loss of slope $\ell'(0)$ they are divided
    by it.

    Parameters
    ----------
    U, signs
        (h, d): directions at time 0, of any length but 0, and (h,): signs of the output weights.
    X, labels
        (n, d) data and (n,) labels, -1 and 1.

    Examples
    --------
    >>> from theorylab.implicit_regularization import align_directions
    >>> found = align_directions([[1.0, -0.5], [-1.0, -1.0]], [1.0, 1.0], [[1.0, 0.0], [0.6, 0.8]],
    ...                          [1.0, 1.0])
    >>> found.settled.round(4), found.fates[1].name
    (array([0., 0.]), 'DEAD')
    """
    data = as_array(X, "X", ndim=2)
    y = _labels(labels, "labels", len(data))
    start = as_array(U, "U", shape=(None, data.shape[1]))
    s = _labels(signs, "signs", len(start))
    unit = binary_exponent(data)
    data = np.ldexp(data, -unit)
    if not (np.abs(start).max(axis=1) > 0).all():
        raise ValueError("U: expected directions other than 0")
    start = start / np.abs(start).max(axis=1)[:, None]
    start /= np.linalg.norm(start, axis=1)[:, None]
    found = [_follow(u, sign * y, data) for u, sign in zip(start, s, strict=True)]
    rising, settled, ends, fates = zip(*found, strict=True)
    times = [np.ldexp(np.array(t), -unit) for t in (rising, settled)]
    return Alignment(times[0], times[1], np.array(ends), tuple(fates))


@refuses_overflow("W", "v", "X")
def relu_flow(
    W: ArrayLike, v: ArrayLike, X: ArrayLike, labels: ArrayLike, times: ArrayLike, *, tol: float
) -> ReluFlow:
    """Follow the gradient flow of both layers, the slope of the ReLU at 0 being 0.

    Parameters
    ----------
    W, v
        (h, d) and (h,): the weights at time 0.
    X, labels, times
        (n, d), (n,) of -1 and 1, and increasing times from 0 on.
    tol
        Relative error of a step.

    Examples
    --------
    >>> from theorylab.implicit_regularization import relu_flow
    >>> flow = relu_flow([[0.1]], [0.1], [[1.0]], [1.0], [0.0, 9.0], tol=1e-8)
    >>> bool(abs(flow.v[1, 0] - flow.W[1, 0, 0]) < 1e-6), bool(flow.losses[1] < 0.2)
    (True, True)
    """
    first, last, data, y = _network(W, v, X, labels)
    at = as_array(times, "times", ndim=1, nonnegative=True)
    if (np.diff(at) <= 0).any():
        raise ValueError("times: expected increasing values")
    accuracy = as_real(tol, "tol", minimum=1e-13, maximum=1e-2)
    h, d = first.shape

    def velocity(_: float, state: FloatArray) -> FloatArray:
        dW, dv, _loss = _gradients(state[h:].reshape(h, d), state[:h], data, y)
        return -np.concatenate([dv, dW.ravel()])

    size = max(float(np.abs(first).max()), float(np.abs(last).max()))
    start = np.concatenate([last, first.ravel()])
    states = integrate(velocity, start, at, rtol=accuracy, atol=accuracy * size)
    weights, outer = states[:, h:].reshape(-1, h, d), states[:, :h]
    losses = [_gradients(w, o, data, y)[2] for w, o in zip(weights, outer, strict=True)]
    return ReluFlow(at, np.array(losses), weights, outer)


@refuses_overflow("W", "v", "X", "step")
def relu_descent(
    W: ArrayLike,
    v: ArrayLike,
    X: ArrayLike,
    labels: ArrayLike,
    *,
    step: float,
    steps: int,
) -> tuple[FloatArray, FloatArray]:
    """Return the weights (h, d) and (h,) after some steps of gradient descent.

    Parameters
    ----------
    W, v, X, labels
        As for :func:`relu_flow`.
    step, steps
        Length and number of the steps.

    Examples
    --------
    >>> from theorylab.implicit_regularization import relu_descent
    >>> W, v = relu_descent([[0.0]], [1.0], [[1.0]], [1.0], step=0.1, steps=5)
    >>> W.tolist(), v.tolist()
    ([[0.0]], [1.0])
    """
    first, last, data, y = _network(W, v, X, labels)
    h = as_real(step, "step", above=0.0)
    first, last = first.copy(), last.copy()
    for _ in range(as_count(steps, "steps", maximum=1_000_000)):
        dW, dv, _loss = _gradients(first, last, data, y)
        first, last = first - h * dW, last - h * dv
    return first, last


@refuses_overflow("W", "v", "X")
def aligned_phase(W: ArrayLike, v: ArrayLike, X: ArrayLike, labels: ArrayLike) -> AlignedPhase:
    r"""Bound the loss and the stable rank at all later times.

    With $\mu$ the least cosine of two data of the label, $\alpha_\pm=|x|_{\min}^2(\mu+
    (1-\mu)/n_\pm)\sum_jv_j^2+\sum_j\min_i(w_j^\top x_i)^2$ and
    $1/\alpha=1/\alpha_++1/\alpha_-$.

    Parameters
    ----------
    W, v, X, labels
        As for :func:`relu_flow`: the weights at the time from which on the bounds hold, and data
        with no negative $y_iy_kx_i^\top x_k$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import aligned_phase
    >>> phase = aligned_phase([[1.0], [-2.0]], [1.0, -2.0], [[1.0], [-1.0]], [1.0, -1.0])
    >>> phase.aligned.tolist(), phase.alpha, phase.remainder
    ([True, True], 1.6, 0.0)
    """
    first, last, data, y = _network(W, v, X, labels)
    Z = _signed(data, y)
    if (Z @ Z.T < -1e-12).any():
        raise ValueError("X: expected data whose products y_i y_k <x_i, x_k> are not negative")
    pre = first @ data.T
    active, right = pre > 0, np.sign(last)[:, None] == y
    dead = ~active.any(axis=1)
    aligned = dead | (active == right).all(axis=1)
    remainder, inverse = float(np.sum(first[dead] ** 2)), 0.0
    for label in (1.0, -1.0):
        mine, of = (np.sign(last) == label) & ~dead, y == label
        if not of.any():
            continue
        rows, outer = first[mine], last[mine]
        sizes = np.linalg.norm(data[of], axis=1)
        cosines = np.clip((data[of] @ data[of].T) / np.outer(sizes, sizes), -1, 1)
        mu = max(float(cosines.min()), 0.0)
        rate = sizes.min() ** 2 * (mu + (1 - mu) / of.sum()) * np.sum(outer**2)
        rate += np.sum(np.maximum(pre[mine][:, of].min(axis=1, initial=np.inf), 0.0) ** 2)
        inverse += 1 / float(rate) if rate > 0 else math.inf
        if mine.any():
            D = rows @ rows.T - np.outer(outer, outer)
            remainder += float(np.abs(np.linalg.eigvalsh(D)).max()) + float(np.trace(D))
    return AlignedPhase(aligned, 1 / inverse, remainder)


def _labels(value: ArrayLike, name: str, count: int) -> FloatArray:
    y = as_array(value, name, shape=(count,))
    if not (np.abs(y) == 1).all():
        raise ValueError(f"{name}: expected entries -1 and 1, got {y[np.abs(y) != 1][0]}")
    return y


def _signed(X: ArrayLike, labels: ArrayLike) -> FloatArray:
    data = as_array(X, "X", ndim=2)
    y = _labels(labels, "labels", len(data))
    if not (np.abs(data).max(axis=1) > 0).all():
        raise ValueError("X: expected rows other than 0")
    return np.asarray(y[:, None] * data / np.abs(data).max(axis=1)[:, None])


def _network(
    W: ArrayLike, v: ArrayLike, X: ArrayLike, labels: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    data = as_array(X, "X", ndim=2)
    first = as_array(W, "W", shape=(None, data.shape[1]))
    last = as_array(v, "v", shape=(len(first),))
    return first, last, data, _labels(labels, "labels", len(data))


def _gradients(
    W: FloatArray, v: FloatArray, X: FloatArray, y: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    pre = W @ X.T
    active = np.maximum(pre, 0.0)
    losses = np.exp(-y * (v @ active))
    pull = -y * losses
    return v[:, None] * ((pre > 0) * pull @ X), active @ pull, float(losses.sum())


def _follow(u: FloatArray, y: FloatArray, X: FloatArray) -> tuple[float, float, FloatArray, Fate]:
    """Follow one direction of positive sign."""
    active = X @ u > 0
    t, rising = 0.0, math.inf
    for _ in range(100 + 10 * len(X)):
        if not active.any():
            return math.inf, t, u, Fate.DEAD
        S = y[active] @ X[active]
        speed = float(np.linalg.norm(S))
        toward = S / max(speed, 1e-300)
        along = float(np.clip(toward @ u, -1, 1))
        across = u - along * toward
        width = float(np.linalg.norm(across))
        if (width < 1e-14 and along < 0) or speed < 1e-14:
            break
        rising = t if along >= 0 and math.isinf(rising) else rising
        if width < 1e-14:
            return (rising, t, toward, Fate.ALIGNED if _right(active, y) else Fate.STUCK)
        # u is across sech + toward tanh, and x switches where sinh = -x.across / x.toward.
        across = across / width
        now, side, ahead = along / width, X @ across, X @ toward
        with np.errstate(divide="ignore", invalid="ignore"):
            at = np.where((ahead > 0) != active, -side / ahead, math.inf)
        at = np.where(np.isfinite(at), np.maximum(at, now), math.inf)
        i = int(np.argmin(at))
        if math.isinf(rising) and at[i] > 0:
            rising = t - math.asinh(now) / speed
        if math.isinf(at[i]):
            return (rising, t, toward, Fate.ALIGNED if _right(active, y) else Fate.STUCK)
        t += (math.asinh(at[i]) - math.asinh(now)) / speed
        cosine = 1 / math.hypot(1.0, at[i])
        u = across * cosine + toward * (at[i] * cosine)
        active = active.copy()
        active[i] = ~active[i]
        left = y[active] @ X[active] @ X[i] if active.any() else ahead[i]
        if (left > 0) != active[i]:
            break
    return rising, math.inf, u, Fate.STUCK


def _right(active: NDArray[np.bool_], y: FloatArray) -> bool:
    return bool((active == (y > 0)).all())
