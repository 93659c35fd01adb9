r"""Sharpness-aware minimisation: a descent step along the gradient at a point that is uphill.

$$x_{k+1}=x_k-\eta\nabla f\Big(x_k+\rho\frac{\nabla f(x_k)}{\|\nabla f(x_k)\|}\Big)$$

(SAM), or without the normalisation (USAM), along the gradients of random losses
$f_\gamma$. With $\rho=c\sqrt\eta$ it follows to order $\eta$, in time
$t=k\eta$, the gradient flow of

$$f+\rho\,\mathbb E\|\nabla f_\gamma\|\ \text{(SAM)},\qquad
f+\tfrac\rho2\,\mathbb E\|\nabla f_\gamma\|^2\ \text{(USAM)},$$

with noise of covariance $\eta(\Sigma+\rho(\tilde\Sigma+\tilde\Sigma^\top))$ for USAM,
$\Sigma=\operatorname{Cov}\nabla f_\gamma$,
$\tilde\Sigma=\operatorname{Cov}(\nabla f_\gamma,\nabla^2f_\gamma\nabla f_\gamma)$; the plain
gradient flow of f only to order $\sqrt\eta$. The penalty turns saddles into attractors: that
of a quadratic with Hessian H attracts the flow of USAM where $\rho|\lambda|>1$ for every
negative eigenvalue, and that of SAM within $\|HX\|\le\rho|\lambda|$.

Paper: compagnoni2023-modeling."""

from __future__ import annotations

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
    as_symmetric,
    refuses_overflow,
)
from theorylab.implicit_regularization.modified_equations import covariance_operator
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.budgets import check_record
from theorylab.numerics.flows import integrate
from theorylab.numerics.results import result

__all__ = [
    "StationaryVariance",
    "ascent_covariance",
    "saddle_growth",
    "saddle_radius",
    "sam_corrections",
    "sam_flow",
    "sam_modified_gradient",
    "sharpness_aware_descent",
    "usam_corrections",
    "usam_stationary_variance",
]

Field = Callable[[FloatArray], ArrayLike]
Product = Callable[[FloatArray, FloatArray], ArrayLike]


@result
class StationaryVariance:
    """Variances along the eigenvectors of a quadratic, arrays of shape (d,).

    Attributes
    ----------
    chain
        Of the iterates.
    diffusion
        Of the stochastic differential equation: their limit for small steps, relative to the step.
    """

    chain: FloatArray
    diffusion: FloatArray


@refuses_overflow("gradient", "start", "radius", "step_size")
def sharpness_aware_descent(
    gradient: Field,
    start: ArrayLike,
    *,
    radius: float,
    step_size: float,
    steps: int,
    normalised: bool = True,
) -> FloatArray:
    """Return the iterates of SAM or USAM, shape (steps + 1, d).

    Parameters
    ----------
    gradient
        Function of a point, shape (d,). Where it is 0, SAM stands still.
    start
        Shape (d,).
    radius, step_size, steps
        Length of the ascent (of USAM: relative to the gradient), of the descent, and how many.
    normalised
        SAM, or else USAM.

    Examples
    --------
    >>> from theorylab.implicit_regularization import sharpness_aware_descent
    >>> sharpness_aware_descent(lambda x: x, [1.0], radius=0.5, step_size=0.5, steps=2).ravel()
    array([ 1.   ,  0.25 , -0.125])
    """
    as_function(gradient, "gradient")
    x = as_array(start, "start", ndim=1)
    rho = as_real(radius, "radius", minimum=0.0)
    eta = as_real(step_size, "step_size", minimum=0.0)
    count = as_count(steps, "steps", minimum=0, maximum=10**6)
    unit = as_flag(normalised, "normalised")
    check_record(count, x.size)
    path = np.empty((count + 1, x.size))
    path[0] = x
    as_array(gradient(x), "gradient", shape=x.shape)
    for k in range(count):
        g = np.asarray(gradient(path[k]), dtype=float)
        uphill = path[k] + rho * (_direction(g) if unit else g)
        path[k + 1] = path[k] - eta * np.asarray(gradient(uphill), dtype=float)
    return path


@refuses_overflow("gradient", "hessian_product", "x", "radius")
def sam_modified_gradient(
    gradient: Field,
    hessian_product: Product,
    x: ArrayLike,
    *,
    radius: float,
    normalised: bool = True,
) -> FloatArray:
    r"""Return the gradient of the modified loss, $\nabla f+\rho\nabla^2f\nabla f/\|\nabla
    f\|$ for SAM, $\nabla f+\rho\nabla^2f\nabla f$ for USAM, shape (d,).

    Parameters
    ----------
    gradient, hessian_product
        Functions of a point, and of a point and a direction, shapes (d,).
    x, radius
        The point, shape (d,), and $\rho$.
    normalised
        SAM, whose modified gradient jumps where that of the loss is 0 (there it is 0), or USAM.

    Examples
    --------
    >>> from theorylab.implicit_regularization import sam_modified_gradient
    >>> sam_modified_gradient(lambda x: 2 * x, lambda x, v: 2 * v, [3.0, 4.0], radius=0.5)
    array([6.6, 8.8])
    """
    as_function(gradient, "gradient")
    as_function(hessian_product, "hessian_product")
    at = as_array(x, "x", ndim=1)
    rho = as_real(radius, "radius", minimum=0.0)
    g = as_array(gradient(at), "gradient", shape=at.shape)
    v = _direction(g) if as_flag(normalised, "normalised") else g
    return np.asarray(g + rho * as_array(hessian_product(at, v), "hessian_product", shape=at.shape))


@refuses_overflow("gradient", "hessian_product", "start", "times", "radius")
def sam_flow(
    gradient: Field,
    hessian_product: Product,
    start: ArrayLike,
    times: ArrayLike,
    *,
    radius: float,
    normalised: bool = True,
    rtol: float = 1e-10,
) -> FloatArray:
    """Return the gradient flow of the modified loss at some times, shape (T, d).

    Parameters
    ----------
    gradient, hessian_product, radius, normalised
        As for :func:`sam_modified_gradient`; a flow of SAM ends before it meets a critical point.
    start, times
        Shapes (d,) and (T,), times from 0, increasing.
    rtol
        Tolerance of the solver, relative to the start and to the state.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import sam_flow
    >>> sam_flow(lambda x: x, lambda x, v: v, [1.0], [np.log(2)], radius=0.5).round(9).tolist()
    [[0.25]]
    """
    x = as_array(start, "start", ndim=1)
    t = as_array(times, "times", ndim=1, nonnegative=True)
    if (np.diff(t) <= 0).any():
        raise ValueError("times: expected increasing times")
    tol = as_real(rtol, "rtol", minimum=1e-13, maximum=1e-2)
    rho = as_real(radius, "radius", minimum=0.0)

    sam_modified_gradient(gradient, hessian_product, x, radius=rho, normalised=normalised)

    def velocity(_: float, at: FloatArray) -> FloatArray:
        if not np.isfinite(at).all():
            return at
        g = np.asarray(gradient(at), dtype=float)
        v = _direction(g) if normalised else g
        return -(g + rho * np.asarray(hessian_product(at, v), dtype=float))

    scale = max(float(np.abs(x).max()), 1e-290)
    return integrate(velocity, x, t, rtol=tol, atol=tol * scale)


@refuses_overflow("gradients")
def usam_corrections(gradients: ArrayLike) -> FloatArray:
    r"""Return the $\nabla^2f_j\nabla f_j=H_jG_jz$ by which USAM changes the gradients of
    quadratic losses, relative to $\rho$, shape (k, d, d + 1).

    Parameters
    ----------
    gradients
        Matrices $G_j$ that multiply $z=(x,1)$, shape (k, d, d + 1): their first d
        columns are the Hessians $H_j$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import usam_corrections
    >>> usam_corrections([[[2.0, 1.0]]])
    array([[[4., 2.]]])
    """
    G = _affine_gradients(gradients)
    return np.asarray(G[:, :, :-1] @ G)


@refuses_overflow("features")
def sam_corrections(features: ArrayLike, signs: ArrayLike) -> FloatArray:
    r"""Return the $\nabla^2f_j\nabla f_j/\|\nabla f_j\|=s_j|a_j|a_j$ by which SAM changes
    the gradients of the squared losses of single samples, $f_j(x)=\frac12(a_j^\top
    x-y_j)^2$, as long as the residuals keep their signs $s_j$; shape (k, d, d + 1).

    Parameters
    ----------
    features, signs
        The $a_j$, shape (k, d), and the $s_j$, 1 or -1, shape (k,).

    Examples
    --------
    >>> from theorylab.implicit_regularization import sam_corrections
    >>> sam_corrections([[3.0, 4.0]], [-1.0]).tolist()
    [[[0.0, 0.0, -15.0], [0.0, 0.0, -20.0]]]
    """
    A = as_array(features, "features", ndim=2)
    s = as_array(signs, "signs", shape=(len(A),))
    if (np.abs(s) != 1).any():
        raise ValueError("signs: expected 1 and -1")
    V = np.zeros((*A.shape, A.shape[1] + 1))
    unit = power_of_two(A)
    V[:, :, -1] = (s * np.linalg.norm(A / unit, axis=1) * unit)[:, None] * A
    return V


@refuses_overflow("gradients", "corrections", "probabilities", "radius")
def ascent_covariance(
    gradients: ArrayLike, corrections: ArrayLike, probabilities: ArrayLike, *, radius: float
) -> FloatArray:
    r"""Return the operator of $\Sigma+\rho(\tilde\Sigma+\tilde\Sigma^\top)$, the noise of
    SAM or USAM to first order in $\rho$, shape (d^2, (d + 1)^2), for
    :func:`~theorylab.implicit_regularization.diffusion_moments`.

    Parameters
    ----------
    gradients, corrections
        Matrices that multiply $(x,1)$, shape (k, d, d + 1): of the gradients, and as by
        :func:`usam_corrections` or :func:`sam_corrections`.
    probabilities, radius
        The law of the losses, shape (k,), and $\rho$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import ascent_covariance
    >>> gradients = [[[1, 2]], [[1, -2]]]
    >>> ascent_covariance(gradients, gradients, [0.5, 0.5], radius=0.25)
    array([[0., 0., 0., 6.]])
    """
    G = _affine_gradients(gradients)
    V = as_array(corrections, "corrections", shape=G.shape)
    rho = as_real(radius, "radius", minimum=0.0)
    mixed = covariance_operator(G, V, probabilities) + covariance_operator(V, G, probabilities)
    return np.asarray(covariance_operator(G, G, probabilities) + rho * mixed)


def saddle_radius(hessian: ArrayLike) -> float:
    r"""Return the $\rho=1/\min_{\lambda<0}|\lambda|$ above which a saddle attracts the flow
    of USAM; 0 for a minimum.

    Parameters
    ----------
    hessian
        Shape (d, d), symmetric and not singular.

    Examples
    --------
    >>> from theorylab.implicit_regularization import saddle_radius
    >>> saddle_radius([[1.0, 0.0], [0.0, -0.5]])
    2.0
    """
    H = as_symmetric(hessian, "hessian")
    unit = power_of_two(H)
    values = np.linalg.eigvalsh(H / unit)
    if np.abs(values).min() < 1e-14 * len(H):
        raise ValueError("hessian: expected one that is not singular")
    negative = values[values < 0]
    if not negative.size:
        return 0.0
    if unit * -negative.max() < 1e-300:
        raise ValueError("hessian: expected a negative eigenvalue whose inverse is in float64")
    return float(1 / -negative.max() / unit)


@refuses_overflow("hessian", "radius", "norm")
def saddle_growth(hessian: ArrayLike, *, radius: float, norm: float) -> float:
    r"""Return the largest rate $\frac d{dt}\log\|HX\|$ of the flow of SAM on
    $\frac12x^\top Hx$ where $\|HX\|=r$: the largest of
    $-\lambda_i(1+\rho\lambda_i/r)$.

    Parameters
    ----------
    hessian
        Shape (d, d), symmetric.
    radius, norm
        $\rho$ and r, positive.

    Examples
    --------
    >>> from theorylab.implicit_regularization import saddle_growth
    >>> saddle_growth([[1.0, 0.0], [0.0, -0.5]], radius=0.5, norm=0.5)
    0.25
    """
    values = np.linalg.eigvalsh(as_symmetric(hessian, "hessian"))
    ratio = as_real(radius, "radius", minimum=0.0) / as_real(norm, "norm", minimum=1e-300)
    return float(np.max(-values * (1 + ratio * values)))


@refuses_overflow("eigenvalues", "radius", "step_size", "noise_variance")
def usam_stationary_variance(
    eigenvalues: ArrayLike, *, radius: float, step_size: float, noise_variance: float
) -> StationaryVariance:
    r"""Return the stationary variances of USAM on a quadratic with additive gradient noise
    $\sigma^2I$, the same in ascent and descent,

    $$\frac{\eta\sigma^2(1+\rho\lambda)}{\lambda(2-\eta\lambda(1+\rho\lambda))},\qquad
    \frac{\eta\sigma^2(1+\rho\lambda)}{2\lambda}.$$

    Parameters
    ----------
    eigenvalues
        Of the Hessian, shape (d,), positive.
    radius, step_size, noise_variance
        $\rho$, $\eta$ with $\eta\lambda(1+\rho\lambda)<2$, and $\sigma^2$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import usam_stationary_variance
    >>> found = usam_stationary_variance([2.0], radius=0.5, step_size=0.25, noise_variance=1.0)
    >>> found.chain, found.diffusion
    (array([0.25]), array([0.125]))
    """
    lam = as_array(eigenvalues, "eigenvalues", ndim=1, positive=True)
    rho = as_real(radius, "radius", minimum=0.0)
    eta = as_real(step_size, "step_size", minimum=0.0)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    rate = eta * lam * (1 + rho * lam)
    if not (rate < 2).all():
        raise ValueError("step_size: expected one for which the iteration has a stationary law")
    diffusion = eta * noise * (1 + rho * lam) / lam / 2
    return StationaryVariance(diffusion / (1 - rate / 2), diffusion)


def _direction(gradient: FloatArray) -> FloatArray:
    """Return a vector of length 1, or 0."""
    g = gradient / power_of_two(gradient)
    length = float(np.linalg.norm(g))
    return g / length if length else g


def _affine_gradients(gradients: ArrayLike) -> FloatArray:
    G = as_array(gradients, "gradients", ndim=3)
    if G.shape[2] != G.shape[1] + 1:
        raise ValueError(f"gradients: expected shape (k, d, d + 1), got {G.shape}")
    return G
