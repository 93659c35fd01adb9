r"""Ascent on Sinkhorn's Lyapunov potential, step by step: scaling, Newton, cut Newton.

With $P_{ij}=e^{(x_i+y_j-C_{ij})/\epsilon-1}$ the potential of
:func:`~theorylab.optimal_transport.lyapunov` has gradient $(a-P1,b-P^\top1)$ and

$$-\epsilon\nabla^2L=H=\begin{pmatrix}\mathrm{diag}(P1)&P\\P^\top&\mathrm{diag}(P^\top1)
\end{pmatrix},\qquad H_k=\begin{pmatrix}\mathrm{diag}(P1)&S\\S^\top&\mathrm{diag}(P^\top1)
\end{pmatrix},$$

S the k largest entries of P. Scaling maximises over x and over y in turn; a Newton step solves
$H_kd=\epsilon\nabla L$. Near the maximum (derived here) the marginal error falls

- by $\sigma_2^2$ an iteration of scaling, the second singular value of
  $\mathrm{diag}(a)^{-1/2}P\,\mathrm{diag}(b)^{-1/2}$;
- by the spectral radius of $I-H_k^{-1}H$ (without the direction (1, -1)) a cut step;
- to $\lambda^2(1+O(\|s\|_\infty))$ in a full step, $s_{ij}=(d_i+d_{n+j})/\epsilon$,
  $\lambda^2=\langle\nabla L,d\rangle/\epsilon=\sum_{ij}P_{ij}s_{ij}^2$, as it is exactly
  $2\sum_{ij}P_{ij}(e^{s_{ij}}-1-s_{ij})$.

These are for study, dense; the solver is :func:`~theorylab.optimal_transport.newton_plan`.

Theorem: tang2024-accelerating (the method); the factors are derived here, the first is known."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.numerics.results import result
from theorylab.optimal_transport._problem import as_weights
from theorylab.optimal_transport.sinkhorn import soft_minimum

__all__ = ["Ascent", "AscentFactors", "ascent_factors", "newton_ascent", "scaling_ascent"]

_TURN = 0.9  # of the slope along a step, negative at its end: more than a full step may leave


@result
class Ascent:
    """A record of an ascent.

    Attributes
    ----------
    x, y
        (n,) and (m,) potentials at the end.
    plan
        (n, m), exp((x[:, None] + y - C) / eps - 1).
    errors
        (steps + 1,) sums of the absolute marginal errors, before the first step and after each.
    decrements
        (steps,) squared Newton decrements before each Newton step; empty for scaling.
    sizes
        (steps,) largest $|s_{ij}|$ of each Newton step, as taken; empty for scaling.
    """

    x: FloatArray
    y: FloatArray
    plan: FloatArray
    errors: FloatArray
    decrements: FloatArray
    sizes: FloatArray

    def __repr__(self) -> str:
        n, m = self.plan.shape
        return f"<Ascent {n}x{m}, {self.errors.size - 1} steps, error {self.errors[-1]:.1e}>"


class AscentFactors(NamedTuple):
    """Factors by which marginal errors fall near the maximum: an iteration of scaling, a cut Newton
    step."""

    scaling: float
    newton: float


def scaling_ascent(
    x: ArrayLike, y: ArrayLike, a: ArrayLike, b: ArrayLike, C: ArrayLike, eps: float, *, steps: int
) -> Ascent:
    """Return the record of Sinkhorn's iteration: exact maximisation over x, then over y.

    Parameters
    ----------
    x, y
        (n,) and (m,) potentials to start from; x is replaced at once.
    a, b
        Positive weights that sum to one.
    C
        (n, m) costs.
    eps
        Weight of the entropy.
    steps
        Iterations.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import scaling_ascent
    >>> C = np.array([[0.0, 1.0], [2.0, 0.0]])
    >>> record = scaling_ascent([0, 0], [0, 0], [0.5, 0.5], [0.3, 0.7], C, 1.0, steps=99)
    >>> bool(record.errors[-1] < 1e-12)
    True
    """
    x, y, a, b, C, eps = _problem(x, y, a, b, C, eps)
    errors = [_gradient(_plan(x, y, C, eps), a, b)[1]]
    for _ in range(as_count(steps, "steps", minimum=0)):
        x = soft_minimum(C.T, y - eps, eps, a)
        y = soft_minimum(C, x - eps, eps, b)
        errors.append(_gradient(_plan(x, y, C, eps), a, b)[1])
    return _finish(x, y, _plan(x, y, C, eps), errors, [], [])


def newton_ascent(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    C: ArrayLike,
    eps: float,
    *,
    steps: int,
    kept: int | None = None,
) -> Ascent:
    """Return the record of Newton's method, halving a step while the slope along it turns to the
    opposite of itself, or nearly.

    Parameters
    ----------
    x, y
        (n,) and (m,) potentials to start from.
    a, b
        Positive weights that sum to one.
    C
        (n, m) costs.
    eps
        Weight of the entropy.
    steps
        Newton steps.
    kept
        Number of the largest entries of the off-diagonal block that the Hessian keeps; all by
        default.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import newton_ascent
    >>> C = np.array([[0.0, 1.0], [2.0, 0.0]])
    >>> record = newton_ascent([0.5, 0.5], [0, 0], [0.5, 0.5], [0.3, 0.7], C, 0.5, steps=6)
    >>> bool(record.errors[-1] < 1e-12)
    True
    """
    x, y, a, b, C, eps = _problem(x, y, a, b, C, eps)
    n = a.size
    if kept is not None:
        kept = as_count(kept, "kept", maximum=C.size)
    plan = _plan(x, y, C, eps)
    g, error = _gradient(plan, a, b)
    errors = [error]
    decrements: list[float] = []
    sizes: list[float] = []
    for _ in range(as_count(steps, "steps", minimum=0)):
        try:
            d = eps * np.linalg.solve(_curvature(plan, kept), g)
        except np.linalg.LinAlgError:
            d = np.full(g.size, np.nan)
        gain, t = float(g @ d), 1.0
        if not np.isfinite(gain):
            text = f"stopped after {len(sizes)} steps at error {errors[-1]:.1e}: the Hessian is"
            warnings.warn(f"{text} singular in float64", RuntimeWarning, stacklevel=2)
            break
        while True:
            trial = x + t * d[:n], y + t * d[n:]
            with np.errstate(over="ignore", invalid="ignore"):
                new = _plan(*trial, C, eps)
                new_g, error = _gradient(new, a, b)
            if (np.isfinite(error) and new_g @ d >= -_TURN * gain) or t < 1e-9:
                break
            t /= 2
        decrements.append(gain / eps)
        sizes.append(t * float(np.abs(d[:n, None] + d[n:]).max()) / eps)
        (x, y), plan, g = trial, new, new_g
        errors.append(error)
    return _finish(x, y, plan, errors, decrements, sizes)


def ascent_factors(plan: ArrayLike, *, kept: int | None = None) -> AscentFactors:
    """Return the factors by which the marginal error falls per step, near an entropic plan.

    Parameters
    ----------
    plan
        (n, m) positive entries: the plan at the maximum.
    kept
        Number of its largest entries that the Hessian of the Newton step keeps; all by default,
        with factor 0.

    Examples
    --------
    >>> from theorylab.optimal_transport import ascent_factors
    >>> round(ascent_factors([[0.4, 0.1], [0.1, 0.4]]).scaling, 12)
    0.36
    """
    P = as_array(plan, "plan", ndim=2, positive=True)
    P = P / P.max()
    if kept is not None:
        kept = as_count(kept, "kept", maximum=P.size)
    rows, columns = P.sum(axis=1), P.sum(axis=0)
    values = np.linalg.svd(P / np.sqrt(np.outer(rows, columns)), compute_uv=False)
    # On the complement of (1, -1), which the map fixes.
    n, m = P.shape
    kernel = np.append(np.ones(n), -np.ones(m))[:, None]
    basis = np.linalg.svd(kernel)[0][:, 1:]
    rest = _curvature(P, kept) - _curvature(P, None)
    step = basis.T @ np.linalg.solve(_curvature(P, kept), rest @ basis)
    radius = float(np.abs(np.linalg.eigvals(step)).max())
    return AscentFactors(float(values[1] ** 2) if values.size > 1 else 0.0, radius)


def _problem(
    x: ArrayLike, y: ArrayLike, a: ArrayLike, b: ArrayLike, C: ArrayLike, eps: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, float]:
    a, b = (as_array(as_weights(w, k), k, positive=True) for w, k in ((a, "a"), (b, "b")))
    x, y = as_array(x, "x", shape=a.shape), as_array(y, "y", shape=b.shape)
    C = as_array(C, "C", shape=(a.size, b.size))
    eps = as_real(eps, "eps", above=0.0)
    with np.errstate(over="ignore"):
        plan = _plan(x, y, C, eps)
        low, high = (min(plan.sum(axis=k).min() for k in (0, 1)), plan.sum())
    if not (low > 0 and np.isfinite(high)):
        what = "an overflow" if low > 0 else "an empty row or column"
        raise ValueError(f"x: expected potentials whose plan float64 can hold, got {what}")
    return x, y, a, b, C, eps


def _plan(x: FloatArray, y: FloatArray, C: FloatArray, eps: float) -> FloatArray:
    plan: FloatArray = np.exp((x[:, None] + y - C) / eps - 1)
    return plan


def _gradient(P: FloatArray, a: FloatArray, b: FloatArray) -> tuple[FloatArray, float]:
    g = np.concatenate([a - P.sum(axis=1), b - P.sum(axis=0)])
    return g, float(np.abs(g).sum())


def _curvature(P: FloatArray, kept: int | None) -> FloatArray:
    """Return the cut H, plus a multiple of the projection on (1, -1), to which gradients are
    orthogonal."""
    n, m = P.shape
    S = P
    if kept is not None and kept < P.size:
        order = np.argpartition(P.ravel(), P.size - kept)[P.size - kept :]
        S = np.zeros_like(P)
        S.flat[order] = P.flat[order]
    kernel = np.append(np.ones(n), -np.ones(m))
    H: FloatArray = np.block([[np.diag(P.sum(axis=1)), S], [S.T, np.diag(P.sum(axis=0))]])
    H += np.outer(kernel, kernel) * (2 * P.sum() / (n + m) ** 2)
    return H


def _finish(
    x: FloatArray,
    y: FloatArray,
    plan: FloatArray,
    errors: list[float],
    decrements: list[float],
    sizes: list[float],
) -> Ascent:
    arrays = [x, y, plan, *(np.array(v) for v in (errors, decrements, sizes))]
    for array in arrays:
        array.flags.writeable = False
    return Ascent(*arrays)
