r"""Entropic transport by Sinkhorn's scaling, stabilised.

Of all plans with marginals a and b the entropic plan minimises

$$\langle C,P\rangle+\epsilon\sum_{ij}P_{ij}\log P_{ij},\qquad
P_{ij}=e^{(f_i+g_j-C_{ij})/\epsilon},$$

and its potentials maximise $\langle a,f\rangle+\langle b,g\rangle+\epsilon(1-\sum_{ij}
e^{(f_i+g_j-C_{ij})/\epsilon})$, concave. Scaling rows and columns to their marginals in turn is
exact maximisation over f and over g. The two values differ by less than the marginal error times
the size of costs and potentials, and both are reported.

One kernel $e^{(f+g-C)/\epsilon}$ is kept and scaled by two vectors; potentials absorb the
vectors before they leave the range of float64, and a half-step in the log domain is taken only
where a row or column of the kernel has vanished. Small $\epsilon$ is approached from above.
The error then falls by a factor per iteration that tends to one as $\epsilon$ falls: see
:func:`~theorylab.optimal_transport.newton_plan`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_count, as_real
from theorylab.numerics.progress import Callback
from theorylab.optimal_transport._problem import (
    TransportPlan,
    TransportStatus,
    Watch,
    as_problem,
    entropic_bounds,
)

__all__ = ["sinkhorn_plan"]

_FALL = 4.0  # of eps, from one stage to the next
_DIRECT = 1 / 300  # of the largest cost: kernels with a larger eps do not underflow
_RANGE = 1e100  # of the scaling vectors, beyond which they are absorbed


def sinkhorn_plan(
    a: ArrayLike,
    b: ArrayLike,
    C: ArrayLike,
    eps: float,
    *,
    tol: float = 1e-9,
    max_iter: int = 10_000,
    start: TransportPlan | None = None,
    callback: Callback | None = None,
) -> TransportPlan:
    """Return the entropic plan by stabilised scaling.

    Parameters
    ----------
    a, b
        (n,) and (m,) weights that sum to one.
    C
        (n, m) costs.
    eps
        Weight of the entropy, positive, in units of C (POT's ``reg``).
    tol
        Sum of the absolute marginal errors at which to stop.
    max_iter
        Iterations (a scaling of rows and one of columns) at the final eps; a warning says if they
        did not suffice.
    start
        Plan of a nearby problem of the same shape, whose potentials start the iteration.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each iteration at the final
        eps: the dual value, and the marginal error; where it returns True, the iteration stops.

    Returns
    -------
    TransportPlan
        With potentials such that ``plan = exp((f[:, None] + g - C) / eps)``, -inf where a weight
        is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import sinkhorn_plan
    >>> w = np.full(2, 0.5)
    >>> sinkhorn_plan(w, w, np.array([[0.0, 1.0], [1.0, 0.0]]), 0.5).plan.round(4).tolist()
    [[0.4404, 0.0596], [0.0596, 0.4404]]
    """
    problem = as_problem(a, b, C)
    eps = problem.scaled(eps, "eps")
    tol = as_real(tol, "tol", minimum=0.0)
    max_iter = as_count(max_iter, "max_iter")
    weights = problem.a, problem.b, problem.C
    given = problem.start(start)
    if given is None:
        f, g = warm_potentials(*weights, eps)
    else:
        f, g = given[0], soft_minimum(problem.C, given[0], eps, problem.b)
    watch = Watch(problem, callback)
    plan, f, g, error, steps = scale(*weights, eps, f, g, tol, max_iter, watch)
    status = TransportStatus.CONVERGED if error <= tol else TransportStatus.NOT_CONVERGED
    value, dual = entropic_bounds(plan, f, g, *weights, eps)
    return problem.finish(
        plan,
        f,
        g,
        value,
        dual,
        float(np.vdot(plan, problem.C)),
        steps,
        TransportStatus.STOPPED if watch.stopped else status,
        marginal_error=error,
    )


def warm_potentials(
    a: FloatArray, b: FloatArray, C: FloatArray, eps: float
) -> tuple[FloatArray, FloatArray]:
    """Return potentials near those of eps: a few iterations at each of a falling sequence of
    weights, the last of which is within a factor of it. Zero where the kernel cannot underflow."""
    f, g = np.zeros(a.size), np.zeros(b.size)
    spread = float(C.max())
    if eps >= _DIRECT * spread:
        return f, g
    stage = spread / 50
    while stage > eps:
        _, f, g, _, _ = scale(a, b, C, stage, f, g, 1e-2, 50)
        stage /= _FALL
    return f, g


def scale(
    a: FloatArray,
    b: FloatArray,
    C: FloatArray,
    eps: float,
    f: FloatArray,
    g: FloatArray,
    tol: float,
    max_iter: int,
    watch: Watch | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray, float, int]:
    """Scale rows and columns in turn from the potentials f and g; return the plan, whose column
    sums are exact, the potentials, the marginal error and the iterations."""
    steps = 0
    while True:
        K = _kernel(C, f, g, eps)
        u, v = np.ones(a.size), np.ones(b.size)
        sums = K.sum(axis=1)
        if steps >= max_iter:
            return K, f, g, float(abs(sums - a).sum()), steps
        while True:
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                new_u = a / sums
                new_v = b / (new_u @ K)
            if not (_in_range(new_u) and _in_range(new_v)):
                break
            u, v = new_u, new_v
            sums = K @ v
            steps += 1
            error = float(abs(u * sums - a).sum())
            if watch and watch.callback:
                watch(f + eps * np.log(u), g + eps * np.log(v), error)
            if (watch and watch.stopped) or error <= tol or steps >= max_iter:
                K *= u[:, None]
                K *= v
                return K, f + eps * np.log(u), g + eps * np.log(v), error, steps
        f = soft_minimum(C.T, g + eps * np.log(v), eps, a)
        g = soft_minimum(C, f, eps, b)
        steps += 1


def _kernel(C: FloatArray, f: FloatArray, g: FloatArray, eps: float) -> FloatArray:
    K = f[:, None] - C
    K += g
    K /= eps
    return np.exp(K, out=K)


def _in_range(scaling: FloatArray) -> bool:
    return bool(scaling.min() > 1 / _RANGE and scaling.max() < _RANGE)


def soft_minimum(C: FloatArray, f: FloatArray, eps: float, b: FloatArray) -> FloatArray:
    """Return the g that makes the column sums b: a half-step in the log domain."""
    Z = (f[:, None] - C) / eps
    top = Z.max(axis=0)
    Z -= top
    g: FloatArray = eps * (np.log(b) - top - np.log(np.exp(Z, out=Z).sum(axis=0)))
    return g
