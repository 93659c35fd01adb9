r"""The best solutions of rank $1,2,\dots$ of a sensing problem, $Z_s=\arg\min_{\mathrm{rank}\,Z\le
s,Z\succeq0}\frac14\|\mathcal A(Z-M)\|^2$: found by minimisation, apart from any descent path."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_symmetric,
    refuses_overflow,
)
from theorylab.matrix_sensing._packing import pack_symmetric, unpack_symmetric
from theorylab.matrix_sensing.operators import MeasurementOperator
from theorylab.numerics.results import result

__all__ = [
    "BestRankSolutions",
    "best_rank_solutions",
    "global_margin",
    "normal_image",
    "sensing_problem",
]


@result
class BestRankSolutions:
    r"""The best solutions of rank $1,\dots,S$, see `best_rank_solutions`.

    Attributes
    ----------
    factors
        $U_s$ with $Z_s=U_sU_s^\top$, shape ``(n, s)`` each.
    objectives
        $f(U_s)$, shape ``(S,)``.
    gradients
        $\|\nabla f(U_s)\|_F$, shape ``(S,)``.
    curvatures
        $\mu_s$, the smallest Hessian eigenvalue of the rank-$s$ problem at $U_s$ off the rotations
        $U_s\mapsto U_sQ$, shape ``(S,)``; not positive where the best point found is not an
        isolated minimum.
    attained
        Share of the starts that ended within $10^{-6}$ of $Z_s$ (relative), shape ``(S,)``.
    """

    factors: tuple[FloatArray, ...]
    objectives: FloatArray
    gradients: FloatArray
    curvatures: FloatArray
    attained: FloatArray

    @property
    def solutions(self) -> FloatArray:
        """$Z_1,\\dots,Z_S$, shape ``(S, n, n)``."""
        return np.array([U @ U.T for U in self.factors])


@refuses_overflow("truth")
def best_rank_solutions(
    truth: ArrayLike,
    operator: MeasurementOperator,
    *,
    max_rank: int,
    rng: np.random.Generator,
    starts: int = 8,
) -> BestRankSolutions:
    r"""Minimise $\frac14\|\mathcal A(UU^\top-M)\|^2$ over $U\in\mathbb R^{n\times s}$ for
    $s=1,\dots,S$.

    L-BFGS from random starts of the size of $M$, the best polished by Newton's method: apart from
    any descent path.

    Parameters
    ----------
    truth
        $M$, symmetric with a positive eigenvalue, shape ``(n, n)``.
    operator
        Symmetric measurements.
    max_rank
        $S\le n$.
    rng
        Draws the starts.
    starts
        Number of starts for each rank.

    Returns
    -------
    BestRankSolutions
        Factors with their objectives, gradients, curvatures.

    Notes
    -----
    jin2023-understanding proves that under restricted isometry and distinct eigenvalues $Z_s$ is
    unique (theorem's text not consulted); ``attained`` and ``curvatures`` show whether it is here.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import best_rank_solutions, gaussian_operator
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> best = best_rank_solutions(
    ...     np.diag([3.0, 1.0, 0.0]), operator, max_rank=2, rng=np.random.default_rng(1), starts=2
    ... )
    >>> np.allclose(best.solutions[1], np.diag([3.0, 1.0, 0.0]), atol=1e-6)
    True
    """
    M, gram = sensing_problem(truth, operator)
    S = as_count(max_rank, "max_rank", maximum=len(M))
    rng = as_instance(rng, "rng", np.random.Generator)
    starts = as_count(starts, "starts")
    if np.linalg.eigvalsh(M)[-1] <= 0:
        raise ValueError("truth: expected a matrix with a positive eigenvalue, got none")
    n, size = len(M), np.sqrt(np.linalg.norm(M, 2))
    factors, rows = [], []
    for s in range(1, S + 1):

        def value(flat: Any, columns: int) -> tuple[float, Any]:
            objective, gradient = objective_and_gradient(flat.reshape(n, columns), M, gram)
            return objective, gradient.ravel()

        settings: Any = {"maxiter": 5000, "maxfun": 10_000, "ftol": 0.0, "gtol": 1e-9 * size**3}
        runs = [
            minimize(
                value,
                size * rng.standard_normal(n * s) / np.sqrt(n),
                (s,),
                "L-BFGS-B",
                True,
                options=settings,
            )
            for _ in range(starts)
        ]
        ends = [run.x.reshape(n, s) for run in sorted(runs, key=lambda run: float(run.fun))]
        U = ends[0]
        rotations = s * (s - 1) // 2
        for _ in range(4):
            gradient = objective_and_gradient(U, M, gram)[1]
            values, vectors = np.linalg.eigh(_hessian(U, M, gram))
            keep = np.arange(n * s) >= rotations
            step = vectors[:, keep] @ ((vectors[:, keep].T @ gradient.ravel()) / values[keep])
            if not np.linalg.norm(step) < 1e-3 * size:  # not near an isolated minimum
                break
            U = U - step.reshape(n, s)
        Z = U @ U.T
        attained = np.mean([np.linalg.norm(V @ V.T - Z) <= 1e-6 * np.linalg.norm(Z) for V in ends])
        objective, gradient = objective_and_gradient(U, M, gram)
        curvature = np.linalg.eigvalsh(_hessian(U, M, gram))[rotations]
        factors.append(U)
        rows.append((objective, float(np.linalg.norm(gradient)), curvature, attained))
    table = np.array(rows)
    return BestRankSolutions(tuple(factors), table[:, 0], table[:, 1], table[:, 2], table[:, 3])


@refuses_overflow("truth", "factor")
def global_margin(truth: ArrayLike, operator: MeasurementOperator, factor: ArrayLike) -> float:
    r"""Return a number whose positive sign proves a critical point the only best solution of its
    rank.

    With $Z=UU^\top$ of rank $k$, $R=\mathcal A^*\mathcal A(Z-M)$, $RU=0$, $\nu=\lambda_{\max}(-R)$
    and $W\succeq0$ of rank at most $k$ with trace $\tau$ off the range of $Z$,
    $$f(W)-f(Z)=\tfrac12\langle R,W\rangle+\tfrac14\|\mathcal A(W-Z)\|^2
    \ge\tfrac\tau2(\sigma\lambda_k(Z)-\nu),$$
    $\sigma$ the least eigenvalue of $\mathcal A^*\mathcal A$, as $\|W-Z\|_F^2\ge2\lambda_k(Z)\tau$
    (by Hoffman and Wielandt, and $(g-\lambda)^2+2gc+c^2\ge2\lambda c$). (Derived here.)

    Parameters
    ----------
    truth
        $M$, symmetric, shape ``(n, n)``.
    operator
        Symmetric measurements; fewer than $n(n+1)/2$ have $\sigma=0$ and prove nothing.
    factor
        $U$, a critical point of $f$ up to rounding, shape ``(n, k)``.

    Returns
    -------
    float
        $\sigma\lambda_k(Z)-\max(\nu,0)$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import MeasurementOperator, global_margin
    >>> operator = MeasurementOperator(np.eye(3), 2, 2, True)
    >>> round(global_margin(np.diag([3.0, 1.0]), operator, np.array([[3.0**0.5], [0.0]])), 9)
    2.0
    """
    M, gram = sensing_problem(truth, operator)
    U = as_array(factor, "factor", shape=(len(M), None))
    nu = max(float(np.linalg.eigvalsh(-normal_image(U @ U.T - M, gram))[-1]), 0.0)
    if operator.n_measurements < len(gram):
        return -nu
    least = float(np.linalg.eigvalsh(gram)[0]) * np.linalg.svd(U, compute_uv=False)[-1] ** 2
    return float(least) - nu


def sensing_problem(
    truth: ArrayLike, operator: MeasurementOperator
) -> tuple[FloatArray, FloatArray]:
    operator = as_instance(operator, "operator", MeasurementOperator)
    if not operator.symmetric:
        raise ValueError("operator: expected symmetric measurements, got general ones")
    return as_symmetric(truth, "truth", size=operator.n_rows), operator.stacked.T @ operator.stacked


def normal_image(matrix: FloatArray, gram: FloatArray) -> FloatArray:
    flat, image = np.empty(len(gram)), np.empty_like(matrix)
    pack_symmetric(matrix, flat)
    unpack_symmetric(gram @ flat, image)
    return image


def objective_and_gradient(
    U: FloatArray, M: FloatArray, gram: FloatArray
) -> tuple[float, FloatArray]:
    E = U @ U.T - M
    image = normal_image(E, gram)
    return float(np.sum(E * image)) / 4, image @ U


def _hessian(U: FloatArray, M: FloatArray, gram: FloatArray) -> FloatArray:
    residual = normal_image(U @ U.T - M, gram)
    columns = []
    for unit in np.eye(U.size).reshape(-1, *U.shape):
        columns.append((normal_image(U @ unit.T + unit @ U.T, gram) @ U + residual @ unit).ravel())
    H = np.array(columns)
    return np.asarray((H + H.T) / 2)
