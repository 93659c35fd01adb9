r"""The cost behind a coupling: entropic inverse transport with an l1 penalty.

Points :math:`x,y` gain :math:`c_A(x,y)=x^\top Ay` when matched. A coupling :math:`\hat\pi` with
marginals :math:`\alpha,\beta` is explained by the A that minimises

.. math:: \lambda\|A\|_1+W(A)-\langle A,\hat S\rangle,\qquad W(A)=\max_{\pi\in\Pi(\alpha,\beta)}
   \langle A,S_\pi\rangle-\epsilon\,\mathrm{KL}(\pi|\alpha\otimes\beta),\qquad
   S_\pi=\mathrm E_\pi[xy^\top],

convex, with :math:`\nabla W(A)=S_{\pi_A}`; :math:`\hat S=S_{\hat\pi}`. Its dual maximises
:math:`-\epsilon\,\mathrm{KL}(\pi|\alpha\otimes\beta)` over the couplings with
:math:`\|S_\pi-\hat S\|_\infty\le\lambda`: mixtures of :math:`\pi_A` with :math:`\hat\pi` are such,
so every A comes with a bound of its distance from the minimum. Points may be moved (functions of x
alone are absorbed), and :math:`A/\epsilon` does not depend on :math:`\epsilon`.

For centred Gaussians with covariances :math:`\Sigma_\alpha=LL^\top,\Sigma_\beta=MM^\top`, and
:math:`L^\top AM/\epsilon=U\mathrm{diag}(s)V^\top`, :math:`r=2s/(1+\sqrt{1+4s^2})`,

.. math:: S=LU\mathrm{diag}(r)V^\top M^\top,\qquad W=\epsilon\sum_i\big(s_ir_i+\tfrac12\log(1-r_i^2)
   \big),\qquad \epsilon\,dR_{ij}=\frac{dB_{ij}-r_ir_j\,dB_{ji}}{g_i+g_j-1}

(derived), where :math:`dB=U^\top L^\top dA\,MV`, :math:`dS=LU\,dR\,V^\top M^\top`,
:math:`g=(1+\sqrt{1+4s^2})/2`. With :math:`H=\nabla^2W(A)` and I the support of A the certificate is
:math:`z_{I^c}=H_{I^cI}H_{II}^{-1}\mathrm{sign}(A_I)`: below 1 in size, small :math:`\lambda`
recovers the signs. Matrices are flattened row by row.

Theorems: andrade2023-sparsistency (certificate, Hessian, limits)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solve_triangular

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.compiled import compiled
from theorylab.optimal_transport._problem import as_weights
from theorylab.optimal_transport.sinkhorn import soft_minimum

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
_TINY = float(np.finfo(np.float64).tiny)
_NONE = np.zeros(0)
_SWEEPS = 20  # of coordinate descent between two guesses of the support
_ROUNDS = 100
_HALVINGS = 40


class InverseStatus(StrEnum):
    """How the solver ended."""

    CONVERGED = "the relative gap is below the tolerance"
    ROUNDING = "rounding ended the descent above the tolerance: lam is small for float64"
    STOPPED = "the iterations ended above the tolerance: raise max_iter"


@dataclass(frozen=True, eq=False, repr=False)
class InverseCost:
    """A cost matrix with a bound of its distance from the minimum.

    Attributes
    ----------
    matrix
        (p, q), the A of the gains x' A y; its zeros are exact.
    moments
        (p, q), E[x y'] under the entropic coupling of ``matrix``, about the means.
    value, lower
        Objective at ``matrix``, and a bound that no matrix passes.
    gap
        value - lower over the size of the objective's terms; 0 where rounding explains it.
    kkt_residual
        Largest violation of the optimality conditions in ``moments``, over lam.
    n_iterations
        Newton steps.
    status
        How the solver ended.
    """

    matrix: FloatArray
    moments: FloatArray
    value: float
    lower: float
    gap: float
    kkt_residual: float
    n_iterations: int
    status: InverseStatus

    def __repr__(self) -> str:
        p, q = self.matrix.shape
        return (
            f"<InverseCost {p}x{q}, {np.count_nonzero(self.matrix)} entries, "
            f"value {self.value:.6g}, gap {self.gap:.1e}, {self.status.name.lower()}>"
        )


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

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import inverse_cost
    >>> sign = np.array([[-1.0], [1.0]])
    >>> found = inverse_cost(np.array([[0.4, 0.1], [0.1, 0.4]]), sign, sign, 0.1, eps=1.0)
    >>> found.matrix.round(6).tolist()  # artanh(0.6 - 0.1)
    [[0.549306]]
    """
    P = as_array(plan, "plan", ndim=2, nonnegative=True)
    as_weights(np.asarray(plan).sum(axis=1), "plan")
    X = as_array(X, "X", shape=(P.shape[0], None))
    Y = as_array(Y, "Y", shape=(P.shape[1], None))
    P = P / P.sum()
    rows, columns = P.any(axis=1), P.any(axis=0)
    P, X, Y = P[np.ix_(rows, columns)], X[rows], Y[columns]
    a, b = P.sum(axis=1), P.sum(axis=0)
    u, v = power_of_two(X), power_of_two(Y)
    X, Y = X / u, Y / v
    clouds = _Clouds(P, a, b, X - a @ X, Y - b @ Y)
    return _solve(clouds, lam, eps, u, v, tol, max_iter)


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

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_inverse_cost
    >>> gaussian_inverse_cost([[0.6]], [[1.0]], [[1.0]], 0.1, eps=3.0).matrix.round(9).tolist()
    [[2.0]]
    """
    L, M = _root(cov_x, "cov_x"), _root(cov_y, "cov_y")
    S = as_array(cross, "cross", shape=(len(L), len(M)))
    u, v = power_of_two(L), power_of_two(M)
    gaussians = _Gaussians(S / u / v, L / u, M / v)
    largest = float(np.linalg.norm(gaussians.white(gaussians.target), 2))
    if largest > 1 + 1e-9:
        raise ValueError(
            "cross: expected a cross-covariance that makes cov_x and cov_y a joint covariance, got "
            f"a canonical correlation of {largest}"
        )
    return _solve(gaussians, lam, eps, u, v, tol, max_iter)


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

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import gain_hessian
    >>> sign = np.array([[-1.0], [1.0]])
    >>> gain_hessian(np.full((2, 2), 0.25), sign, sign, 0.5).round(12).tolist()
    [[2.0]]
    """
    P = as_array(plan, "plan", ndim=2, nonnegative=True)
    as_weights(np.asarray(plan).sum(axis=1), "plan")
    X = as_array(X, "X", shape=(P.shape[0], None))
    Y = as_array(Y, "Y", shape=(P.shape[1], None))
    eps = as_real(eps, "eps", above=0.0)
    rows, columns = P.any(axis=1), P.any(axis=0)
    P = P[np.ix_(rows, columns)] / P.sum()
    return _plan_hessian(P, X[rows], Y[columns]) / eps


def irrepresentability(hessian: ArrayLike, A: ArrayLike) -> FloatArray:
    r"""Return the certificate in the shape of A: its signs on the support I, and
    :math:`H_{I^cI}H_{II}^{-1}\mathrm{sign}(A_I)` off it.

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


# ------------------------------------------------------------------------- couplings, with eps = 1
class _Point(NamedTuple):
    """W at a matrix: a bound of it from above, E[x y'], its Hessian on demand; of clouds the plan
    and the potential of y."""

    value: float
    moments: FloatArray
    hessian: Callable[[], FloatArray]
    plan: FloatArray = _NONE
    potential: FloatArray = _NONE


class _Couplings(Protocol):
    """The couplings of two fixed marginals, one of them observed."""

    @property
    def target(self) -> FloatArray: ...

    def at(self, B: FloatArray, start: _Point | None = None) -> _Point: ...

    def bound(self, point: _Point, lam: float) -> float: ...


class _Clouds:
    """The couplings of two weighted clouds."""

    def __init__(self, P: FloatArray, a: FloatArray, b: FloatArray, X: FloatArray, Y: FloatArray):
        self.P, self.a, self.b, self.X, self.Y = P, a, b, X, Y
        self.target = X.T @ P @ Y
        self.entropies = float(a @ np.log(a) + b @ np.log(b))

    def at(self, B: FloatArray, start: _Point | None = None) -> _Point:
        C = -(self.X @ B @ self.Y.T)
        P, value, g = self.plan(C, self.b * 0 if start is None else start.potential)
        moments = self.X.T @ P @ self.Y
        return _Point(
            self.entropies - value, moments, lambda: _plan_hessian(P, self.X, self.Y), P, g
        )

    def plan(self, C: FloatArray, g: FloatArray) -> tuple[FloatArray, float, FloatArray]:
        """Newton steps on the dual as a function of g, f being exact: plan, dual value, g."""
        (P, value), size = self.ascent(C, g), 1 + float(abs(C).max())
        for _ in range(_ROUNDS):
            gradient = self.b - P.sum(axis=0)
            error = abs(gradient).sum()
            if error <= 16 * _UNIT * size:
                break
            curvature = np.diag(P.sum(axis=0)) - P.T @ (P / self.a[:, None])
            curvature[np.diag_indices_from(curvature)] += _UNIT * self.b.max()
            direction = np.linalg.solve(curvature + np.outer(self.b, self.b), gradient)
            step, slope = 1.0, float(gradient @ direction)
            Q, better = self.ascent(C, g + direction)
            if slope > 1e-12 * size:
                while better < value + 1e-4 * step * slope and step > 1e-9:
                    step /= 2
                    Q, better = self.ascent(C, g + step * direction)
            elif abs(self.b - Q.sum(axis=0)).sum() >= error:
                break  # rounding hides the ascent, and the marginals are as good as they get
            P, value, g = Q, better, g + step * direction
        return P, value, g

    def ascent(self, C: FloatArray, g: FloatArray) -> tuple[FloatArray, float]:
        """The plan of exact row sums for g, and its dual value."""
        f = soft_minimum(C.T, g, 1.0, self.a)
        return np.exp(f[:, None] + g - C), float(self.a @ f + self.b @ g)

    def bound(self, point: _Point, lam: float) -> float:
        Q = point.plan * np.minimum(1, self.b / np.maximum(point.plan.sum(axis=0), _TINY))
        lacking = np.maximum(self.a - Q.sum(axis=1), 0), np.maximum(self.b - Q.sum(axis=0), 0)
        if lacking[0].any() and lacking[1].any():
            Q += np.outer(lacking[0], lacking[1] / lacking[1].sum())
        share = _share(self.X.T @ Q @ self.Y - self.target, lam)
        Q = (1 - share) * Q + share * self.P
        mass = Q[Q > 0]
        return self.entropies - float(mass @ np.log(mass))


class _Gaussians:
    """The couplings of N(0, L L') and N(0, M M') for triangular roots."""

    def __init__(self, target: FloatArray, L: FloatArray, M: FloatArray):
        self.target, self.L, self.M = target, L, M

    def white(self, S: FloatArray) -> FloatArray:
        half = solve_triangular(self.L, S, lower=True)
        whitened: FloatArray = solve_triangular(self.M, half.T, lower=True).T
        return whitened

    def at(self, B: FloatArray, start: _Point | None = None) -> _Point:
        U, s, Vt = np.linalg.svd(self.L.T @ B @ self.M)
        k = s.size
        g = (1 + np.hypot(1, 2 * s)) / 2
        r = s / g
        left, right = self.L @ U, self.M @ Vt.T
        # 1 - r^2 = 1 / g, and g = 1 + s r: no digits are lost where s is small.
        return _Point(
            float(np.sum(s * r - np.log1p(s * r) / 2)),
            (left[:, :k] * r) @ right[:, :k].T,
            lambda: _gaussian_hessian(g, r, left, right),
        )

    def bound(self, point: _Point, lam: float) -> float:
        share = _share(point.moments - self.target, lam)
        mixed = (1 - share) * point.moments + share * self.target
        r = np.linalg.svd(self.white(mixed), compute_uv=False)
        return float(np.sum(np.log1p(-r * r)) / 2) if r[0] < 1 else -np.inf


def _gaussian_hessian(
    g: FloatArray, r: FloatArray, left: FloatArray, right: FloatArray
) -> FloatArray:
    """The last formula of the module docstring, in the basis of A."""
    p, q, k = len(left), len(right), r.size
    gp, gq = np.ones(p), np.ones(q)
    gp[:k], gq[:k] = g, g
    weights = 1 / (gp[:, None] + gq - 1)
    inner = np.diag(weights.ravel())
    i, j = (index.ravel() for index in np.indices((k, k)))
    inner[i * q + j, j * q + i] -= weights[i, j] * r[i] * r[j]
    basis = np.kron(left, right)
    H: FloatArray = basis @ inner @ basis.T
    return (H + H.T) / 2


def _plan_hessian(P: FloatArray, X: FloatArray, Y: FloatArray) -> FloatArray:
    """Covariance of x y' under P less its projection on functions of x plus functions of y."""
    (n, p), (m, q) = X.shape, Y.shape
    a, b = P.sum(axis=1), P.sum(axis=0)
    X, Y = X - a @ X, Y - b @ Y
    XX = np.einsum("ni,nk->nik", X, X).reshape(n, -1)
    YY = np.einsum("mj,ml->mjl", Y, Y).reshape(m, -1)
    second = (XX.T @ P @ YY).reshape(p, p, q, q).transpose(0, 2, 1, 3).reshape(p * q, p * q)
    rows = np.einsum("ni,nj->nij", X, P @ Y).reshape(n, -1)
    columns = np.einsum("mi,mj->mij", P.T @ X, Y).reshape(m, -1)
    # f + g is least squares for x y': f = (rows - P g) / a, and g solves the Schur complement, in
    # which 1 is in the kernel.
    complement = np.diag(b) - P.T @ (P / a[:, None]) + np.outer(b, b)
    g = np.linalg.solve(complement, columns - P.T @ (rows / a[:, None]))
    f = (rows - P @ g) / a[:, None]
    H: FloatArray = second - rows.T @ f - columns.T @ g
    return (H + H.T) / 2


def _share(difference: FloatArray, lam: float) -> float:
    """How much of the observed coupling brings the moments within lam of its own."""
    size = float(np.abs(difference).max())
    return max(0.0, 1 - lam / size) if size > 0 else 0.0


def _root(cov: ArrayLike, name: str) -> FloatArray:
    matrix = as_symmetric(cov, name)
    unit = float(np.ldexp(1.0, 2 * (np.frexp(np.abs(matrix).max())[1] // 2)))
    try:
        return np.linalg.cholesky(matrix / unit) * np.sqrt(unit)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{name}: expected a positive definite covariance, got one with the least eigenvalue "
            f"{np.linalg.eigvalsh(matrix)[0]}"
        ) from None


def _gaussians(
    A: ArrayLike, cov_x: ArrayLike, cov_y: ArrayLike, eps: float
) -> tuple[_Gaussians, FloatArray]:
    L, M = _root(cov_x, "cov_x"), _root(cov_y, "cov_y")
    A = as_array(A, "A", shape=(len(L), len(M)))
    return _Gaussians(np.zeros_like(A), L, M), A / as_real(eps, "eps", above=0.0)


# ------------------------------------------------------------------------------------- the solver
def _solve(
    couplings: _Couplings, lam: float, eps: float, u: float, v: float, tol: float, max_iter: int
) -> InverseCost:
    """Proximal Newton steps in A u v / eps, with the penalty lam / (u v)."""
    lam = as_real(lam, "lam", above=0.0) / u / v
    eps = as_real(eps, "eps", above=0.0)
    tol = as_real(tol, "tol", minimum=0.0)
    max_iter = as_count(max_iter, "max_iter")
    T = couplings.target
    B = np.zeros_like(T)
    point, lower, steps, stuck = couplings.at(B), -np.inf, 0, False
    while True:
        value, size = _objective(point, B, T, lam)
        lower = max(lower, couplings.bound(point, lam))
        difference = value - lower
        # At a zero matrix the terms vanish: the bound is then the scale.
        gap = 0.0 if difference <= 64 * _UNIT * size else difference / max(size, difference)
        if gap <= tol or stuck or steps == max_iter:
            break
        steps += 1
        gradient, H = point.moments - T, point.hessian()
        # Semi-definite up to rounding: a ridge of that size keeps coordinates bounded.
        H[np.diag_indices_from(H)] += 8 * _UNIT * H.shape[0] * np.abs(H).max()
        D = _quadratic(H, gradient.ravel(), B.ravel(), lam).reshape(B.shape) - B
        fall = float(np.sum(gradient * D)) + lam * float(np.sum(np.abs(B + D) - np.abs(B)))
        step, stuck = 1.0, True
        for _ in range(_HALVINGS):
            trial = couplings.at(B + step * D, point)
            risen = _objective(trial, B + step * D, T, lam)[0] - value
            if risen <= 1e-4 * step * fall or (step == 1 and abs(risen) <= 4 * _UNIT * size):
                B, point, stuck = B + step * D, trial, fall == 0
                break
            step /= 2
    status = InverseStatus.CONVERGED
    if gap > tol:
        status = InverseStatus.ROUNDING if stuck else InverseStatus.STOPPED
        warnings.warn(f"gap {gap:.1e} after {steps} steps: {status}", RuntimeWarning, stacklevel=4)
    slack = point.moments - T
    violation = np.where(B != 0, np.abs(slack + lam * np.sign(B)), np.abs(slack) - lam)
    arrays = (B * (eps / u / v), point.moments * (u * v))
    for array in arrays:
        array.flags.writeable = False
    residual = max(float(violation.max()), 0.0) / lam
    return InverseCost(*arrays, eps * value, eps * lower, gap, residual, steps, status)


def _objective(point: _Point, B: FloatArray, T: FloatArray, lam: float) -> tuple[float, float]:
    """The objective, and the size of its terms."""
    linear, penalty = float(np.sum(B * T)), lam * float(np.abs(B).sum())
    return point.value - linear + penalty, abs(point.value) + abs(linear) + penalty


def _quadratic(H: FloatArray, gradient: FloatArray, z: FloatArray, lam: float) -> FloatArray:
    """Minimise gradient' (w - z) + (w - z)' H (w - z) / 2 + lam |w|_1: by coordinates until the
    signs are right, then exactly."""
    w = z
    for _ in range(_ROUNDS):
        w = _sweep(H, gradient, z, w, lam, _SWEEPS)
        on, exact = w != 0, np.zeros_like(w)
        part = np.ix_(on, on)
        right = H[on] @ z - gradient[on] - lam * np.sign(w[on])
        exact[on] = np.linalg.solve(H[part], right)
        slope = gradient + H @ (exact - z)
        if (np.sign(exact) == np.sign(w)).all() and (abs(slope[~on]) <= lam).all():
            return exact
    return w


@compiled
def _sweep(
    H: FloatArray, gradient: FloatArray, z: FloatArray, w: FloatArray, lam: float, sweeps: int
) -> FloatArray:
    w, slope = w.copy(), gradient + H @ (w - z)
    for _ in range(sweeps):
        for k in range(w.size):
            free = H[k, k] * w[k] - slope[k]
            new = np.sign(free) * max(abs(free) - lam, 0.0) / H[k, k]
            if new != w[k]:
                slope += (new - w[k]) * H[k]
                w[k] = new
    return w
