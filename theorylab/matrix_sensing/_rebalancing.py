"""One step that frees asymmetric descent of its start: all singular values of a factor made
equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_real, refuses_overflow

__all__ = ["rebalance", "rebalanced_slowest_bounds"]


def rebalance(F: ArrayLike, G: ArrayLike, *, scale: float) -> tuple[FloatArray, FloatArray]:
    r"""Move all singular values of $F=\hat U\hat\Sigma\hat V^\top$ to $\beta$ without changing
    $FG^\top$.

    The map is $F\mapsto\beta\hat U\hat V^\top$, $G\mapsto G\hat V\hat\Sigma\hat V^\top/\beta$, one
    instance of the single modified step of xiong2023-over, Section 5 (paper's text not consulted).

    Parameters
    ----------
    F, G
        Factors, shapes ``(n_1, k)`` with $k\le n_1$, and ``(n_2, k)``.
    scale
        $\beta>0$.

    Returns
    -------
    F, G
        The new factors, same shapes.

    Raises
    ------
    ValueError
        If an argument is invalid or ``F`` has more columns than rows.

    Examples
    --------
    >>> from theorylab.matrix_sensing import rebalance
    >>> F, G = rebalance([[2.0], [0.0]], [[0.0], [3.0]], scale=1.0)
    >>> F.ravel(), G.ravel()
    (array([1., 0.]), array([0., 6.]))
    """
    F = as_array(F, "F", ndim=2)
    if F.shape[1] > F.shape[0]:
        raise ValueError(f"F: expected at most as many columns as rows, got shape {F.shape}")
    G = as_array(G, "G", shape=(None, F.shape[1]))
    scale = as_real(scale, "scale", above=0.0)
    U, sigma, Vt = np.linalg.svd(F, full_matrices=False)
    return scale * U @ Vt, (G @ (Vt.T * sigma)) @ Vt / scale


@refuses_overflow("singular_values", "scale", infinite=True)
def rebalanced_slowest_bounds(
    singular_values: ArrayLike, *, error: float, scale: float, step_size: float
) -> tuple[float, float]:
    r"""Bound the slowest mode of asymmetric descent from a rebalanced state, for every start that
    leads there.

    After `rebalance`, $\sigma_i(F)=\beta$ and the singular values of $G$ are those of $M+E$ over
    $\beta$. Within a distance $\rho$ of that state $$\|EG\|_F^2+\|E^\top
    F\|_F^2\ge\mu\|E\|_F^2,\qquad\mu=\min\big\{\sigma_k(F)^2,\sigma_r(G)^2\big\}(1-\kappa^2),\quad
    \kappa=\frac{\|F\|\sigma_{r+1}(G)+\|E\|}{\sigma_r(M)},$$ so the path has length at most
    $e_0/\big[(1-\frac\eta2\ell)\sqrt\mu-\eta\|F\|\|G\|e_0/\sqrt\mu\big]$, $\ell=\|F\|^2+\|G\|^2$,
    $e_0=\|E\|_F$ at the rebalancing. A $\rho$ above this length bounds the whole path; then
    $\sigma_i(F_\infty)\in\beta\pm\rho$ and $G_\infty^\top=F_\infty^+M$ give
    $$\min\Big\{(\beta-\rho)^2,\frac{\sigma_r^2}{(\beta+\rho)^2}\Big\}\le\text{slowest}\le
    \min\Big\{(\beta+\rho)^2,\frac{\sigma_r^2}{(\beta-\rho)^2}\Big\}\qquad(r\le k<n_1,\ r<n_2),$$
    around $\min\{\beta^2,\sigma_r^2/\beta^2\}$, largest at $\beta^2=\sigma_r$: no size of the start
    enters. For other $\beta$ the error left at the rebalancing may have next to no component on the
    slowest mode, and decays faster at first. (Derived here.)

    Parameters
    ----------
    singular_values
        The non-zero singular values of $M$, shape ``(r,)``.
    error
        $e_0$, the error $\|FG^\top-M\|_F$ at the rebalancing.
    scale
        $\beta>0$.
    step_size
        $\eta>0$.

    Returns
    -------
    lower, upper
        Bounds of ``limit_modes(...).slowest``; 0 and infinity if ``error`` or ``step_size`` is too
        large for the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import rebalanced_slowest_bounds
    >>> lower, upper = rebalanced_slowest_bounds([1.0], error=0.01, scale=0.7, step_size=0.1)
    >>> np.round([lower, upper], 3)
    array([0.467, 0.514])
    """
    sigma = as_array(singular_values, "singular_values", ndim=1, positive=True)
    e, beta = as_real(error, "error", minimum=0.0), as_real(scale, "scale", above=0.0)
    eta = as_real(step_size, "step_size", above=0.0)
    top, low = float(sigma.max()), float(sigma.min())

    def path(rho: float) -> float:
        f, g = beta + rho, (top + e) / beta + rho
        smallest = min(beta - rho, (low - e) / beta - rho)
        kappa = (f * (e / beta + rho) + e) / low
        if smallest <= 0 or kappa >= 1:
            return np.inf
        root = smallest * np.sqrt(1 - kappa**2)
        speed = (1 - eta * (f**2 + g**2) / 2) * root - eta * f * g * e / root
        return e / speed if speed > 0 else np.inf

    rho = 0.0
    for _ in range(100):  # the least fixed point, approached from below
        rho = path(rho)
        if rho == np.inf:
            return 0.0, np.inf
    rho *= 1 + 1e-9
    if path(rho) > rho:
        return 0.0, np.inf
    return min((beta - rho) ** 2, (low / (beta + rho)) ** 2), min(
        (beta + rho) ** 2, (low / (beta - rho)) ** 2
    )
