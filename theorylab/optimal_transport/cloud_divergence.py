r"""The variational divergence of a point cloud from a Gaussian: finite where the divergence is not.

$$\mathrm{KL}(P\|Q)=\sup_h\,1+\mathbb E_Ph-\mathbb E_Qe^h$$

is infinite on a cloud P, but finite on a class of h. For quadratics
$h(x)=c+b^\top x+\frac12x^\top Ax$, $A\prec I$, and $Q=N(0,I)$ it is
$\mathrm{KL}(N(m_P,\Sigma_P)\|Q)$ if $\Sigma_P\succ0$, and infinite otherwise. In
(b, A) the objective is the conjugate of a log-determinant barrier, so that Newton's decrement
bounds the distance from the supremum.

Particles that move along $-\nabla h=-(Ax+b)$ of the best h have the mean and covariance of
the Gaussian flow, $e^{-t}m$ and $I+e^{-2t}(\Sigma-I)$.

Source: fan2021-variational (the quadratic class is derived)."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_flag,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = ["Witness", "best_witness", "gaussian_divergence", "variational_divergence"]

_ROUNDS = 500


@refuses_overflow("mean", "covariance")
def gaussian_divergence(mean: ArrayLike, covariance: ArrayLike) -> float:
    r"""Return $\mathrm{KL}(N(m,\Sigma)\|N(0,I))$.

    Parameters
    ----------
    mean
        (d,).
    covariance
        (d, d), positive definite.

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_divergence
    >>> gaussian_divergence([2.0], [[1.0]])
    2.0
    """
    mean = as_array(mean, "mean", ndim=1)
    covariance = as_symmetric(covariance, "covariance", size=mean.size)
    values = np.linalg.eigvalsh(covariance)
    if values[0] <= 0:
        raise ValueError(
            f"covariance: expected a positive definite matrix, got eigenvalue {values[0]}"
        )
    return float((mean @ mean + (values - 1 - np.log(values)).sum()) / 2)


@refuses_overflow("X", "curvature", "slope", "offset", infinite=True)
def variational_divergence(
    X: ArrayLike, curvature: ArrayLike, slope: ArrayLike, offset: float
) -> float:
    r"""Return $1+\mathbb E_Ph-\mathbb E_Qe^h$ for the quadratic h, P the cloud and
    $Q=N(0,I)$; -inf where the Gaussian integral diverges.

    Parameters
    ----------
    X
        (n, d) points, of equal weight.
    curvature, slope, offset
        A (d, d), b (d,) and c of h.

    Examples
    --------
    >>> from theorylab.optimal_transport import variational_divergence
    >>> variational_divergence([[2.0], [2.0]], [[0.0]], [2.0], -2.0)  # the divergence of N(2, 1)
    2.0
    """
    X = as_array(X, "X", ndim=2)
    d = X.shape[1]
    A = as_symmetric(curvature, "curvature", size=d)
    b, c = as_array(slope, "slope", shape=(d,)), as_real(offset, "offset")
    values, vectors = np.linalg.eigh(np.eye(d) - A)
    if values[0] <= 0:
        return -np.inf
    exponent = c + ((b @ vectors) ** 2 / values - np.log(values)).sum() / 2
    value = 1 + np.mean(c + X @ b + np.einsum("ij,jk,ik->i", X, A, X) / 2) - np.exp(exponent)
    if not np.isfinite(value):
        raise OverflowError
    return float(value)


@result
class Witness:
    """A function h that nearly attains the supremum over its class.

    Attributes
    ----------
    curvature, slope, offset
        Of h.
    value
        Its objective: no more than the supremum.
    bound
        Proved from Newton's decrement: no less than the supremum, apart from rounding.
    n_iterations
        Newton steps taken.
    """

    curvature: FloatArray
    slope: FloatArray
    offset: float
    value: float
    bound: float
    n_iterations: int

    def __repr__(self) -> str:
        return (
            f"<Witness in dimension {self.slope.size}, value {self.value:.6g} to {self.bound:.6g}>"
        )


@refuses_overflow("X", infinite=True)
def best_witness(X: ArrayLike, *, quadratic: bool = True) -> Witness:
    r"""Maximise the variational divergence of a cloud from N(0, I) over quadratics by damped Newton
    steps, with a bound.

    With R the density $e^hQ$, z the points seen by the whitening of R, of mean m and second
    moments S, the decrement of the (self-concordant) doubled objective is
    $\lambda^2=2|m|^2+\|S-I\|_F^2$, and the supremum is within
    $\frac12(-\lambda-\log(1-\lambda))$.

    Parameters
    ----------
    X
        (n, d) points, whose covariance is positive definite: the supremum is infinite otherwise.
    quadratic
        False for affine h only.

    Examples
    --------
    >>> from theorylab.optimal_transport import best_witness
    >>> best_witness([[1.0], [3.0]])  # mean 2, variance 1
    <Witness in dimension 1, value 2 to 2>
    """
    X = as_array(X, "X", ndim=2)
    n, d = X.shape
    if as_flag(quadratic, "quadratic"):
        spread = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
        if spread[-1] <= 1e-12 * max(spread[0], np.abs(X).max()):
            raise ValueError(
                f"X: expected points whose covariance is positive definite, got {n} points in "
                f"dimension {d} of least deviation {spread[-1] / np.sqrt(n)}"
            )
    centre, identity, rounds, decrement = np.zeros(d), np.eye(d), 0, np.inf
    T = identity * (np.sqrt(np.mean(X**2)) if quadratic else 1.0)  # results in any unit
    while rounds < _ROUNDS:
        Z = np.linalg.solve(T, (X - centre).T)
        m = Z.mean(axis=1)
        E = Z @ Z.T / n - identity if quadratic else np.zeros((d, d))
        before, decrement = decrement, float(np.sqrt(2 * m @ m + np.sum(E * E)))
        if decrement < 1e-14 or (decrement < 1e-9 and decrement >= before):
            break
        # Damped until the quadratic phase; affine functions have a quadratic objective.
        t = 1.0 if decrement < 0.25 or not quadratic else 1 / (1 + decrement)
        M = identity - t * E
        centre = centre + T @ np.linalg.solve(M, t * m)
        T = T @ np.linalg.cholesky(np.linalg.inv(M))
        rounds += 1
    else:
        warnings.warn("best_witness: stopped above rounding after 500 steps", stacklevel=3)
    inverse = np.linalg.inv(T)
    precision = inverse.T @ inverse
    A, b = identity - precision, precision @ centre
    A = (A + A.T) / 2
    c = -float(centre @ b) / 2 - float(np.linalg.slogdet(T)[1])
    value = variational_divergence(X, A, b, c) if np.isfinite(precision).all() else -np.inf
    if value == -np.inf:  # the curvature is 1 up to rounding, or beyond float64
        raise OverflowError
    slack = -decrement - np.log1p(-decrement) if decrement < 1 else np.inf
    return Witness(A, b, c, value, float(value + slack / 2), rounds)
