r"""The cost behind a coupling: entropic inverse transport with an l1 penalty.

Points $x,y$ gain $c_A(x,y)=x^\top Ay$ when matched. A coupling $\hat\pi$ with
marginals $\alpha,\beta$ is explained by the A that minimises

$$\lambda\|A\|_1+W(A)-\langle A,\hat S\rangle,\qquad W(A)=\max_{\pi\in\Pi(\alpha,\beta)}
\langle A,S_\pi\rangle-\epsilon\,\mathrm{KL}(\pi|\alpha\otimes\beta),\qquad
S_\pi=\mathrm E_\pi[xy^\top],$$

convex, with $\nabla W(A)=S_{\pi_A}$; $\hat S=S_{\hat\pi}$. Its dual maximises
$-\epsilon\,\mathrm{KL}(\pi|\alpha\otimes\beta)$ over the couplings with
$\|S_\pi-\hat S\|_\infty\le\lambda$: mixtures of $\pi_A$ with $\hat\pi$ are such,
so every A comes with a bound of its distance from the minimum. Points may be moved (functions of x
alone are absorbed), and $A/\epsilon$ does not depend on $\epsilon$.

For centred Gaussians with covariances $\Sigma_\alpha=LL^\top,\Sigma_\beta=MM^\top$, and
$L^\top AM/\epsilon=U\mathrm{diag}(s)V^\top$, $r=2s/(1+\sqrt{1+4s^2})$,

$$S=LU\mathrm{diag}(r)V^\top M^\top,\qquad W=\epsilon\sum_i\big(s_ir_i+\tfrac12\log(1-r_i^2)
\big),\qquad \epsilon\,dR_{ij}=\frac{dB_{ij}-r_ir_j\,dB_{ji}}{g_i+g_j-1}$$

(derived), where $dB=U^\top L^\top dA\,MV$, $dS=LU\,dR\,V^\top M^\top$,
$g=(1+\sqrt{1+4s^2})/2$. With $H=\nabla^2W(A)$ and I the support of A the certificate is
$z_{I^c}=H_{I^cI}H_{II}^{-1}\mathrm{sign}(A_I)$: below 1 in size, small $\lambda$
recovers the signs. Matrices are flattened row by row.

Theorems: andrade2023-sparsistency (certificate, Hessian, limits)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_real, as_symmetric, refuses_overflow
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.progress import Callback
from theorylab.optimal_transport._inverse import (
    Clouds,
    Gaussians,
    InverseCost,
    InverseStatus,
    minimise,
    plan_hessian,
)
from theorylab.optimal_transport._problem import as_weights

__all__ = [
    "InverseCost",
    "InverseStatus",
    "gain_hessian",
    "gaussian_coupling",
    "gaussian_gain",
    "gaussian_hessian",
    "gaussian_inverse_cost",
    "inverse_cost",
    "irrepresentability",
]

_UNIT = float(np.finfo(np.float64).eps)


@refuses_overflow("plan", "X", "Y", "lam", "eps")
def inverse_cost(
    plan: ArrayLike,
    X: ArrayLike,
    Y: ArrayLike,
    lam: float,
    *,
    eps: float,
    tol: float = 1e-9,
    max_iter: int = 100,
    callback: Callback | None = None,
) -> InverseCost:
    """Recover a sparse cost from a coupling of two clouds.

    Parameters
    ----------
    plan
        (n, m) observed coupling: non-negative, of sum one. Its row and column sums are the weights
        of the points.
    X
        (n, p) points.
    Y
        (m, q) points.
    lam
        Weight of the l1 penalty, positive, in units of X times Y.
    eps
        Weight of the entropy, positive, in units of the gain.
    tol
        Relative gap at which to stop.
    max_iter
        Newton steps; a warning says if they did not suffice.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` before each Newton step: the
        objective, and its gap; where it returns True, the iteration stops.

    Raises
    ------
    ValueError
        For malformed arguments, or a cost matrix of more than 10,000 entries (100 x 100), whose
        Hessian would not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import inverse_cost
    >>> sign = np.array([[-1.0], [1.0]])
    >>> found = inverse_cost(np.array([[0.4, 0.1], [0.1, 0.4]]), sign, sign, 0.1, eps=1.0)
    >>> found.matrix.round(4).tolist()  # artanh(0.6 - 0.1)
    [[0.5493]]
    """
    P, x, y = _observed(plan, X, Y)
    u, v = power_of_two(x), power_of_two(y)
    x, y = x / u, y / v
    a, b = P.sum(axis=1), P.sum(axis=0)
    clouds = Clouds(P, a, b, x - a @ x, y - b @ y)
    return minimise(clouds, lam, eps, u, v, tol, max_iter, callback)


@refuses_overflow("cross", "cov_x", "cov_y", "lam", "eps")
def gaussian_inverse_cost(
    cross: ArrayLike,
    cov_x: ArrayLike,
    cov_y: ArrayLike,
    lam: float,
    *,
    eps: float,
    tol: float = 1e-9,
    max_iter: int = 100,
    callback: Callback | None = None,
) -> InverseCost:
    """Recover a sparse cost from a Gaussian coupling, exact or estimated by its covariances.

    Parameters
    ----------
    cross
        (p, q) cross-covariance; the joint covariance is positive semi-definite.
    cov_x
        (p, p) positive definite.
    cov_y
        (q, q) positive definite.
    lam
        Weight of the l1 penalty, positive.
    eps
        Weight of the entropy, positive.
    tol
        Relative gap at which to stop.
    max_iter
        Newton steps; a warning says if they did not suffice.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` before each Newton step: the
        objective, and its gap; where it returns True, the iteration stops.

    Raises
    ------
    ValueError
        For malformed arguments, or a cost matrix of more than 10,000 entries (100 x 100), whose
        Hessian would not fit.

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_inverse_cost
    >>> gaussian_inverse_cost([[0.6]], [[1.0]], [[1.0]], 0.1, eps=3.0).matrix.round(4).tolist()
    [[2.0]]
    """
    L, M = _root(cov_x, "cov_x"), _root(cov_y, "cov_y")
    S = as_array(cross, "cross", shape=(len(L), len(M)))
    u, v = power_of_two(L), power_of_two(M)
    gaussians = Gaussians(S / u / v, L / u, M / v)
    largest = float(np.linalg.norm(gaussians.white(gaussians.target), 2))
    if largest > 1 + 1e-9:
        raise ValueError(
            "cross: expected a cross-covariance that makes cov_x and cov_y a joint covariance, got "
            f"a canonical correlation of {largest}"
        )
    return minimise(gaussians, lam, eps, u, v, tol, max_iter, callback)


@refuses_overflow("A", "cov_x", "cov_y", "eps")
def gaussian_coupling(A: ArrayLike, cov_x: ArrayLike, cov_y: ArrayLike, eps: float) -> FloatArray:
    """Return the cross-covariance (p, q) of the entropic coupling of two centred Gaussians.

    Parameters
    ----------
    A
        (p, q), of the gains x' A y.
    cov_x
        (p, p) positive definite.
    cov_y
        (q, q) positive definite.
    eps
        Weight of the entropy, positive.

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_coupling
    >>> gaussian_coupling([[2.0]], [[1.0]], [[1.0]], 3.0).round(12).tolist()
    [[0.5]]
    """
    gaussians, B = _gaussians(A, cov_x, cov_y, eps)
    return gaussians.at(B).moments


@refuses_overflow("A", "cov_x", "cov_y", "eps")
def gaussian_gain(A: ArrayLike, cov_x: ArrayLike, cov_y: ArrayLike, eps: float) -> float:
    """Return W(A) (module docstring) of two centred Gaussians.

    Parameters
    ----------
    A
        (p, q), of the gains x' A y.
    cov_x
        (p, p) positive definite.
    cov_y
        (q, q) positive definite.
    eps
        Weight of the entropy, positive.

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_gain
    >>> round(gaussian_gain([[2.0]], [[1.0]], [[1.0]], 3.0), 6)
    0.568477
    """
    gaussians, B = _gaussians(A, cov_x, cov_y, eps)
    return eps * gaussians.at(B).value


@refuses_overflow("A", "cov_x", "cov_y", "eps")
def gaussian_hessian(A: ArrayLike, cov_x: ArrayLike, cov_y: ArrayLike, eps: float) -> FloatArray:
    """Return the Hessian (p q, p q) of W at A for centred Gaussians, without an inversion: accurate
    also where the coupling is nearly a map.

    Parameters
    ----------
    A
        (p, q), of the gains x' A y.
    cov_x
        (p, p) positive definite.
    cov_y
        (q, q) positive definite.
    eps
        Weight of the entropy, positive.

    Raises
    ------
    ValueError
        For malformed arguments, or a cost matrix of more than 10,000 entries (100 x 100), whose
        Hessian would not fit.

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_hessian
    >>> gaussian_hessian([[2.0]], [[1.0]], [[1.0]], 3.0).round(12).tolist()  # (1 - r^2) / 5
    [[0.15]]
    """
    gaussians, B = _gaussians(A, cov_x, cov_y, eps)
    return gaussians.at(B).hessian() / eps


@refuses_overflow("plan", "X", "Y", "eps")
def gain_hessian(plan: ArrayLike, X: ArrayLike, Y: ArrayLike, eps: float) -> FloatArray:
    """Return the Hessian (p q, p q) of W at the A whose entropic coupling is ``plan``: the
    covariance of x y' under it, less what functions of x plus functions of y explain, over eps.

    Parameters
    ----------
    plan
        (n, m), non-negative, of sum one.
    X
        (n, p) points.
    Y
        (m, q) points.
    eps
        Weight of the entropy, positive.

    Raises
    ------
    ValueError
        For malformed arguments, or more than 10,000 entries of A (100 x 100), or more than 1e8
        products of two coordinates of a point, whose arrays would not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import gain_hessian
    >>> sign = np.array([[-1.0], [1.0]])
    >>> gain_hessian(np.full((2, 2), 0.25), sign, sign, 0.5).round(12).tolist()
    [[2.0]]
    """
    P, x, y = _observed(plan, X, Y)
    return plan_hessian(P, x, y) / as_real(eps, "eps", above=0.0)


def irrepresentability(hessian: ArrayLike, A: ArrayLike) -> FloatArray:
    r"""Return the certificate in the shape of A: its signs on the support I, and
    $H_{I^cI}H_{II}^{-1}\mathrm{sign}(A_I)$ off it.

    Parameters
    ----------
    hessian
        (k, k) symmetric, invertible on the support: that of W, or another (the lasso's, the
        graphical lasso's).
    A
        Array of k entries.

    Examples
    --------
    >>> from theorylab.optimal_transport import irrepresentability
    >>> irrepresentability([[2.0, 1.0], [1.0, 3.0]], [[-4.0, 0.0]]).tolist()
    [[-1.0, -0.5]]
    """
    A = as_array(A, "A")
    H = as_symmetric(hessian, "hessian", size=A.size)
    signs = np.sign(A.ravel())
    on = signs != 0
    if on.any():
        part = H[np.ix_(on, on)]
        size = np.abs(np.linalg.eigvalsh(part))
        if size.min() <= len(part) * _UNIT * size.max():
            raise ValueError(
                "hessian: expected a matrix that is invertible on the support of A, got "
                f"eigenvalues of size {size.min()} to {size.max()}"
            )
        solved = np.linalg.solve(part, signs[on])
        signs[~on] = H[np.ix_(~on, on)] @ solved
    return signs.reshape(A.shape)


# ---------------------------------------------------------------------------------- kernels
def _observed(
    plan: ArrayLike, X: ArrayLike, Y: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The coupling and its points, without those that have no mass."""
    P = as_array(plan, "plan", ndim=2, nonnegative=True)
    as_weights(np.asarray(plan).sum(axis=1), "plan")
    x = as_array(X, "X", shape=(P.shape[0], None))
    y = as_array(Y, "Y", shape=(P.shape[1], None))
    rows, columns = P.any(axis=1), P.any(axis=0)
    return P[np.ix_(rows, columns)] / P.sum(), x[rows], y[columns]


def _root(cov: ArrayLike, name: str) -> FloatArray:
    matrix = as_symmetric(cov, name)
    unit = float(np.ldexp(1.0, 2 * (np.frexp(np.abs(matrix).max())[1] // 2)))
    try:
        root: FloatArray = np.sqrt(unit) * np.linalg.cholesky(matrix / unit)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{name}: expected a positive definite covariance, got one with the least eigenvalue "
            f"{np.linalg.eigvalsh(matrix)[0]}"
        ) from None
    return root


def _gaussians(
    A: ArrayLike, cov_x: ArrayLike, cov_y: ArrayLike, eps: float
) -> tuple[Gaussians, FloatArray]:
    L, M = _root(cov_x, "cov_x"), _root(cov_y, "cov_y")
    A = as_array(A, "A", shape=(len(L), len(M)))
    return Gaussians(np.zeros_like(A), L, M), A / as_real(eps, "eps", above=0.0)
