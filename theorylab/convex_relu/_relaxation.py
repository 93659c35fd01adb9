r"""A bound of the dual norm in any dimension, and a dual point, from semidefinite relaxation.

With $z_+=(z+|z|)/2$, and for unit vectors u

$$|x_i^\top u|\le\tfrac12\big(\sigma_i(x_i^\top u)^2+1/\sigma_i\big),\qquad |x_j^\top u|\ge
\tau_jx_j^\top u+\theta_j(x_j^\top u)^2/\|x_j\|\quad(|\tau_j|+\theta_j\le1),$$

the function $h_v(u)=v^\top(Xu)_+$ lies below a quadratic $u^\top Mu+g^\top u+\kappa$ on
the sphere, whose maximum is at most $\kappa+\mu+\tfrac14g^\top(\mu I-M)^{-1}g$ for every
$\mu>\lambda_{\max}(M)$. Any multipliers give a bound; the best are a semidefinite program.

The bound R(v) of the best multipliers is convex, as the support function of a relaxation of the
set of outputs $(Xu)_+$: $W\succeq uu^\top$ of trace one, $r_i\ge\max(0,x_i^\top
u,(x_i^\top u+x_i^\top Wx_i/\|x_i\|)/2)$, $(2r_i-x_i^\top u)^2\le x_i^\top Wx_i$. Training
over this set and its negative is one semidefinite program, whose dual point satisfies
$R(\pm v)\le\beta$: the best that this relaxation proves."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._conic import cvxpy, solve
from theorylab.convex_relu._weighted import Weighted
from theorylab.convex_relu.losses import Hinge, Logistic, Loss, Squared

_EPS = float(np.finfo(np.float64).eps)
# Above this n d^2 the multipliers that need no semidefinite program are used: half a minute.
_MAX_SIZE = 1e6


def root_bound(X: FloatArray, v: FloatArray) -> float:
    """Bound ``max_{|u| <= 1} |v @ relu(X u)|`` rigorously in polynomial time.

    Parameters
    ----------
    X, v
        Shapes (n, d) and (n,).
    """
    norms = np.linalg.norm(X, axis=1)
    keep = (norms > 0.0) & (v != 0.0)
    if not np.any(keep):
        return 0.0
    X, v, norms = X[keep], v[keep], norms[keep]
    # A power of two, so that scaling is exact.
    size, weight = (2.0 ** np.ceil(np.log2(np.max(a))) for a in (norms, np.abs(v)))
    X, v, norms = X / size, v / weight, norms / size
    result = 0.0
    for w in (v, -v):
        positive = np.maximum(w, 0.0)
        top = float(np.linalg.eigvalsh(X.T @ (positive[:, None] * X))[-1])
        sigma = np.full(len(w), np.sqrt(positive.sum() / top) if top > 0.0 else 1.0)
        none = np.zeros(len(w))
        bound = _quadratic_bound(X, w, norms, sigma, none, none)
        if X.size * X.shape[1] <= _MAX_SIZE:
            # Normalised, so that multiples of v get the same multipliers up to rounding.
            multipliers = _multipliers(X, w / np.abs(w).max(), norms)
            bound = min(bound, _quadratic_bound(X, w, norms, *multipliers))
        result = max(result, bound)
    return float(result * size * weight)


def _quadratic_bound(
    X: FloatArray,
    v: FloatArray,
    norms: FloatArray,
    sigma: FloatArray,
    tau: FloatArray,
    theta: FloatArray,
) -> float:
    """Evaluate the bound of given multipliers, with every rounding error on the safe side."""
    n, d = X.shape
    positive, negative = np.maximum(v, 0.0), np.maximum(-v, 0.0)
    sigma = np.maximum(sigma, 1e-12)
    theta = np.clip(theta, 0.0, 1.0)
    tau = np.clip(tau, theta - 1.0, 1.0 - theta)
    from scipy.optimize import minimize_scalar  # late: half of the import of training

    quadratic = 0.25 * positive * sigma - 0.5 * negative * theta / norms
    slope = 0.5 * (v - negative * tau)
    matrix, g = X.T @ (quadratic[:, None] * X), X.T @ slope
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    # Rounding of the sums, of the coefficients, and backward error of the eigenvalues.
    unit = (n + 64.0 * d + 64.0) * _EPS
    error = unit * float(np.abs(quadratic) @ norms**2) + unit * float(np.abs(slope) @ norms)
    squares = (vectors.T @ g) ** 2
    size = float(np.linalg.norm(g)) + error

    def bound(shift: float) -> float:
        return shift + float(np.sum(squares / (shift - values + values[-1]))) / 4.0

    shift = float(minimize_scalar(bound, bounds=(0.0, size), method="bounded").x)
    shift = max(shift, 1e-9 * size, 1e-300)
    constant = float(np.sum(0.25 * positive / sigma))
    top = float(values[-1])
    return float(
        (constant + top + bound(shift) + 2.0 * error) * (1.0 + unit) + 2.0 * unit * abs(top)
    )


def _multipliers(
    X: FloatArray, v: FloatArray, norms: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return sigma, tau and theta of about the least bound."""
    cp = cvxpy()
    n, d = X.shape
    positive, negative = np.flatnonzero(v > 0.0), np.flatnonzero(v < 0.0)
    sigma, tau, theta = np.ones(n), np.zeros(n), np.zeros(n)
    mu, nu = cp.Variable(), cp.Variable()
    matrix, g, constant = mu * np.eye(d), 0.5 * (X.T @ v), nu + mu
    constraints, s, t, q = [], None, None, None
    if positive.size:
        s = cp.Variable(positive.size, pos=True)
        matrix = matrix - X[positive].T @ cp.diag(cp.multiply(0.25 * v[positive], s)) @ X[positive]
        constant = constant + cp.sum(cp.multiply(0.25 * v[positive], cp.inv_pos(s)))
    if negative.size:
        t, q = cp.Variable(negative.size), cp.Variable(negative.size, nonneg=True)
        w = -v[negative]
        rows = X[negative]
        matrix = matrix + rows.T @ cp.diag(cp.multiply(0.5 * w / norms[negative], q)) @ rows
        g = g - rows.T @ cp.multiply(0.5 * w, t)
        constraints.append(cp.abs(t) + q <= 1.0)
    column = cp.reshape(-0.5 * g, (d, 1), order="F")
    block = cp.bmat([[matrix, column], [column.T, cp.reshape(nu, (1, 1), order="F")]])
    problem = cp.Problem(cp.Minimize(constant), [*constraints, block >> 0])
    solve(problem, 1e-8)
    if s is not None:
        sigma[positive] = s.value
    if t is not None and q is not None:
        tau[negative], theta[negative] = t.value, q.value
    return sigma, tau, theta


def relaxed_dual(
    X: FloatArray, y: FloatArray, beta: float, loss: Loss, linear: FloatArray | None
) -> FloatArray | None:
    """Return about the best dual point that the relaxation proves, None where the loss is unknown.

    Parameters
    ----------
    X, y, beta, loss
        The problem, shapes (n, d) and (n,).
    linear
        Data of the skip connection, shape (n, k), or None.
    """
    cp = cvxpy()
    n, d = X.shape
    size = float(np.linalg.norm(X, axis=1).max(initial=0.0)) or 1.0
    X, beta = X / size, beta / size
    norms = np.maximum(np.linalg.norm(X, axis=1), 1e-300)
    fit, penalty, constraints = cp.Variable(n), 0.0, []
    outputs = 0.0 if linear is None else linear @ cp.Variable(linear.shape[1])
    for sign in (1.0, -1.0):
        block = cp.Variable((d + 1, d + 1), PSD=True)
        W, u, trace, r = block[:d, :d], block[:d, d], cp.trace(block[:d, :d]), cp.Variable(n)
        z, square = X @ u, cp.sum(cp.multiply((X / norms[:, None]) @ W, X / norms[:, None]), axis=1)
        absolute = (2.0 * r - z) / norms
        constraints += [
            block[d, d] == trace,
            r >= 0.0,
            r >= z,
            absolute >= square,
            # absolute^2 <= square * trace
            cp.SOC(square + trace, cp.vstack([2.0 * absolute, square - trace]), axis=0),
        ]
        outputs = outputs + sign * r
        penalty = penalty + trace
    weights = loss.weights if isinstance(loss, Weighted) else np.ones(n)
    if isinstance(loss.base, Squared):
        value = 0.5 * cp.sum_squares(cp.multiply(np.sqrt(weights), fit - y))
    elif isinstance(loss.base, Logistic):
        value = weights @ cp.logistic(-cp.multiply(y, fit))
    elif isinstance(loss.base, Hinge):
        value = weights @ cp.pos(1.0 - cp.multiply(y, fit))
    else:
        return None
    tie = fit == outputs
    problem = cp.Problem(cp.Minimize(value + beta * penalty), [tie, *constraints])
    solve(problem, 1e-8)
    dual = np.asarray(tie.dual_value, dtype=np.float64)
    # The sign convention of the multiplier is the modelling language's.
    gradient = -loss.gradient(np.asarray(fit.value), y)
    return dual if float(dual @ gradient) >= 0.0 else -dual
