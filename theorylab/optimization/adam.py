r"""Adam, AMSGrad, AdaMax and AdaGrad: their iterates, their steps, and the longest step they can
take.

With gradients $g_1,\dots,g_t$, $m_t=\beta_1m_{t-1}+(1-\beta_1)g_t$ and
$v_t=\beta_2v_{t-1}+(1-\beta_2)g_t^2$, Adam moves by $x_{t+1}=x_t-\Delta_t$,

$$\Delta_t=\alpha\,\frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)}},\qquad
\sup_g\frac{\Delta_t^2}{\alpha^2}=\frac{(1-\beta_1)^2}{1-\beta_2}\,\frac{1-\beta_2^t}{(1-\beta_1^t)^2}\sum_{k<t}\rho^k,\quad
\rho=\frac{\beta_1^2}{\beta_2}$$

by the Cauchy-Schwarz inequality, attained at $g_{t-k}\propto(\beta_1/\beta_2)^k$: more than
kingma2014-adam, Section 2.1 states. AdaMax divides $m_t/(1-\beta_1^t)$ by
$u_t=\max(\beta_2u_{t-1},|g_t|)$ instead, and its longest step is
$\alpha\frac{1-\beta_1}{1-\beta_1^t}\sum_{k<t}(\beta_1/\beta_2)^k$, attained at
$g_{t-k}\propto\beta_2^{-k}$. AMSGrad divides by the root of the running maximum of
$v_t$, AdaGrad divides $g_t$ by that of $\sum_{s\le t}g_s^2$. The regret of these
methods is in :mod:`theorylab.optimization.adaptive_regret`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_function,
    as_real,
    one_of,
)
from theorylab.numerics.budgets import check_record
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.optimization._step_histories import (
    coefficient,
    next_root,
    quotient_or_zero,
    total_weight,
)

__all__ = ["AdaptiveRun", "adagrad", "adam", "adamax", "amsgrad"]

Gradient = Callable[[FloatArray, int], ArrayLike]


@result
class AdaptiveRun:
    """A run of an adaptive method.

    Attributes
    ----------
    iterates
        Shape (steps + 1, d): the iterates x_1, ..., x_{steps+1}.
    gradients
        Shape (steps, d): row t - 1 is the gradient at x_t.
    denominators
        Shape (steps, d): the roots by which the momentum was divided, before ``eps`` is added.
    """

    iterates: FloatArray
    gradients: FloatArray
    denominators: FloatArray

    @property
    def final(self) -> FloatArray:
        """The last iterate, shape (d,)."""
        final: FloatArray = self.iterates[-1]
        return final

    @property
    def average(self) -> FloatArray:
        """The mean of the iterates at which a gradient was taken, shape (d,)."""
        return np.asarray(self.iterates[:-1].mean(axis=0))


def adam(
    gradient: Gradient,
    x0: ArrayLike,
    *,
    step_size: float,
    steps: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: str = "constant",
    momentum_decay: float = 1.0,
    bias_correction: bool = True,
    lower: float = -math.inf,
    upper: float = math.inf,
    callback: Callback | None = None,
) -> AdaptiveRun:
    r"""Run Adam (kingma2014-adam, Algorithm 1), optionally projected on a box.

    With ``eps=0`` a coordinate whose denominator is zero does not move: all its gradients were
    zero, or ``beta2=0`` and the latest one is.

    Parameters
    ----------
    gradient
        Function of the iterate, shape (d,), and of the time t = 1, 2, ..., returning shape (d,).
    x0
        Shape (d,): the starting point.
    step_size
        The paper's $\alpha$, positive.
    steps
        Number of steps.
    beta1, beta2
        Momentum coefficients in [0, 1).
    eps
        Added to the root of the second moment.
    decay
        ``"constant"``, or ``"sqrt"`` for $\alpha_t=\alpha/\sqrt t$.
    momentum_decay
        $\lambda$ in (0, 1]: the first coefficient at time t is $\beta_1\lambda^{t-1}$.
    bias_correction
        Divide the moments by $1-\beta^t$.
    lower, upper
        Ends of the box; in the diagonal metric of the method the projection clips.
    callback
        Called with a `Progress` after every step. As the loss is not known, the objective is
        $g_t\cdot x_t$, that of a linear loss; the error is $\|g_t\|$. Where it returns True the
        run ends with this step.

    Raises
    ------
    ValueError
        Naming the argument; also when ``gradient`` returns another shape or values that are not
        finite.

    Examples
    --------
    >>> from theorylab.optimization import adam
    >>> run = adam(lambda x, t: 2 * x, [1.0], step_size=0.1, steps=200)
    >>> abs(float(run.iterates[-1, 0])) < 0.01
    True
    """
    return _run(
        "adam",
        gradient,
        x0,
        step_size,
        steps,
        beta1,
        beta2,
        eps,
        decay,
        momentum_decay,
        bias_correction,
        lower,
        upper,
        callback=callback,
    )


def amsgrad(
    gradient: Gradient,
    x0: ArrayLike,
    *,
    step_size: float,
    steps: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 0.0,
    decay: str = "constant",
    momentum_decay: float = 1.0,
    bias_correction: bool = False,
    lower: float = -math.inf,
    upper: float = math.inf,
    callback: Callback | None = None,
) -> AdaptiveRun:
    """Run AMSGrad (reddi2018-convergence, Algorithm 2): Adam with the running maximum of the second
    moment.

    Parameters, result and errors are those of :func:`adam`; the paper corrects no bias and adds no
    ``eps``.

    Examples
    --------
    >>> from theorylab.optimization import amsgrad
    >>> run = amsgrad(lambda x, t: 2 * x, [1.0], step_size=0.1, steps=50)
    >>> bool((run.denominators[1:] >= run.denominators[:-1]).all())  # they never fall
    True
    """
    return _run(
        "amsgrad",
        gradient,
        x0,
        step_size,
        steps,
        beta1,
        beta2,
        eps,
        decay,
        momentum_decay,
        bias_correction,
        lower,
        upper,
        callback=callback,
    )


def adamax(
    gradient: Gradient,
    x0: ArrayLike,
    *,
    step_size: float,
    steps: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    decay: str = "constant",
    lower: float = -math.inf,
    upper: float = math.inf,
    callback: Callback | None = None,
) -> AdaptiveRun:
    """Run AdaMax (kingma2014-adam, Algorithm 2): the second moment is a decaying maximum; ``beta2``
    may be 1.

    Parameters, result and errors are those of :func:`adam`.

    Examples
    --------
    >>> from theorylab.optimization import adamax
    >>> run = adamax(lambda x, t: 1.0 + 0 * x, [0.0], step_size=0.1, steps=3)
    >>> run.iterates.ravel().round(6).tolist()  # equal gradients: steps of the step size
    [0.0, -0.1, -0.2, -0.3]
    """
    return _run(
        "adamax",
        gradient,
        x0,
        step_size,
        steps,
        beta1,
        beta2,
        decay=decay,
        bias_correction=True,
        lower=lower,
        upper=upper,
        callback=callback,
    )


def adagrad(
    gradient: Gradient,
    x0: ArrayLike,
    *,
    step_size: float,
    steps: int,
    eps: float = 0.0,
    lower: float = -math.inf,
    upper: float = math.inf,
    callback: Callback | None = None,
) -> AdaptiveRun:
    """Run AdaGrad: steps divided by the root of the sum of all squared gradients.

    Parameters, result and errors are those of :func:`adam`.

    Examples
    --------
    >>> from theorylab.optimization import adagrad
    >>> run = adagrad(lambda x, t: 1.0 + 0 * x, [0.0], step_size=1.0, steps=4)
    >>> run.iterates.ravel().round(4).tolist()  # steps 1 / sqrt(t)
    [0.0, -1.0, -1.7071, -2.2845, -2.7845]
    """
    return _run(
        "adagrad",
        gradient,
        x0,
        step_size,
        steps,
        eps=eps,
        lower=lower,
        upper=upper,
        callback=callback,
    )


def _run(
    method: str,
    gradient: Gradient,
    x0: ArrayLike,
    step_size: float,
    steps: int,
    beta1: float = 0.0,
    beta2: float = 0.0,
    eps: float = 0.0,
    decay: str = "constant",
    momentum_decay: float = 1.0,
    bias_correction: bool = False,
    lower: float = -math.inf,
    upper: float = math.inf,
    callback: Callback | None = None,
) -> AdaptiveRun:
    as_function(gradient, "gradient")
    start = as_array(x0, "x0", ndim=1)
    alpha, count = as_real(step_size, "step_size", above=0.0), as_count(steps, "steps")
    b1 = coefficient(beta1, "beta1")
    b2 = (
        as_real(beta2, "beta2", above=0.0, maximum=1.0)
        if method == "adamax"
        else coefficient(beta2, "beta2")
    )
    added = as_real(eps, "eps", minimum=0.0)
    shrinking = one_of(decay, "decay", ("constant", "sqrt")) == "sqrt"
    fading = as_real(momentum_decay, "momentum_decay", above=0.0, maximum=1.0)
    corrected = as_flag(bias_correction, "bias_correction")
    low = as_real(lower, "lower", below=math.inf, allow_inf=True)
    high = as_real(upper, "upper", minimum=low, allow_inf=True)
    if ((start < low) | (start > high)).any():
        raise ValueError(f"x0: expected a point of the box [{low}, {high}], got {start}")

    check_record(count, 3 * start.size)
    iterates = np.empty((count + 1, start.size))
    gradients, denominators = np.empty((2, count, start.size))
    iterates[0] = start
    m, second, root = np.zeros((3, start.size))
    stops = watcher(callback)
    for t in range(1, count + 1):
        g = as_array(gradient(iterates[t - 1], t), "gradient", shape=start.shape)
        first = b1 * fading ** (t - 1)
        m = first * m + (1 - first) * g
        if method == "adamax":
            root = np.maximum(b2 * root, np.abs(g))
        elif method == "adagrad":
            root = np.hypot(root, g)
        else:
            second = next_root(second, b2, g)
            root = np.maximum(root, second) if method == "amsgrad" else second
        momentum, denominator = m, root
        if corrected:
            momentum = m / total_weight(b1, t)
            denominator = root if method == "adamax" else root / np.sqrt(total_weight(b2, t))
        rate = alpha / math.sqrt(t) if shrinking else alpha
        iterates[t] = np.clip(
            iterates[t - 1] - rate * quotient_or_zero(momentum, denominator + added), low, high
        )
        gradients[t - 1], denominators[t - 1] = g, denominator
        if not (np.isfinite(iterates[t]).all() and np.isfinite(denominator).all()):
            raise ValueError(
                f"step_size: expected steps and gradients that stay within float64, got {alpha} "
                f"and an overflow at step {t}"
            )
        if callback is not None and stops(t, float(g @ iterates[t - 1]), float(np.linalg.norm(g))):
            count = t
            break
    return AdaptiveRun(iterates[: count + 1], gradients[:count], denominators[:count])
