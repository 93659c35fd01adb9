r"""Lifting a rank-one sensing problem to tensors, and the order at which a spurious minimum becomes
a saddle.

Sensing: $f(x)=\sum_i(\langle A_i,xx^\top\rangle-b_i)^2$ with symmetric $A_i$ and $b_i=\langle
A_i,zz^\top\rangle$. Its lift of order $l$ replaces $x$ by a tensor $w\in(\mathbb R^n)^{\otimes l}$
and $A_i$ by all products: $$h_l(w)=\sum_{i_1\dots i_l}\Big(\langle A_{i_1}\otimes\dots\otimes
A_{i_l},ww^\top\rangle-\prod_jb_{i_j}\Big)^2.$$ With $K_u=\sum_i\langle A_i,uu^\top\rangle A_i$ and
$S_x=\sum_iA_ixx^\top A_i$ the mixed-product rule gives, at every $x$, $$\nabla h_l(x^{\otimes
l})=4\big((K_xx)^{\otimes l}-(K_zx)^{\otimes l}\big),\qquad \nabla^2h_l(x^{\otimes
l})=4(K_x^{\otimes l}-K_z^{\otimes l})+8S_x^{\otimes l},$$ so a stationary $x$ stays stationary, and
its Hessian is three Kronecker powers of $n\times n$ matrices (`lifted_hessian`).

Perturbed completion (`perturbed_completion`): on $n=3$ all entries have weight 1 except the pair
(1,3) with $\epsilon$; $z=(1,0,1)$, $\delta=(1-\epsilon^2)/(1+\epsilon^2)$, $\hat
x=\sqrt\delta(1,0,-1)$. The three matrices commute, with eigenvectors $\hat x,e_2,z$ and eigenvalues
$K_{\hat x}=(a,0,\delta a)$, $K_z=(a,0,b)$, $S_{\hat x}=(a,\delta,\delta)$, $b=2/(1+\delta)$,
$a=\delta b$. Every eigenvalue of the lifted Hessian is one term of a Kronecker product of these,
and one is negative iff $2^l(1-\delta^{2l})>2(\delta(1+\delta))^l$. (ma2023-over: the lift and
stationarity; the rest is derived here.)"""

from __future__ import annotations

from fractions import Fraction
from functools import reduce
from math import factorial

import numpy as np
from flint import arb, ctx, fmpq
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, eigsh

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = [
    "LiftedHessian",
    "SensingProblem",
    "completion_spectrum",
    "completion_threshold",
    "escape_ratio",
    "first_saddle_order",
    "isometry_bounds",
    "lifted_gradient",
    "lifted_hessian",
    "lifted_loss",
    "lifting_ratio",
    "perturbed_completion",
    "saddle_bound",
]

_EPS = float(np.finfo(np.float64).eps)
_DENSE = (
    800  # up to this dimension all eigenvalues of the formed matrix are cheaper than a Lanczos run
)
_KRYLOV = 60  # vectors kept by it: eigenvalues that are products of small ones cluster at 0


@result
class SensingProblem:
    r"""A rank-one sensing problem with a known spurious critical point.

    Attributes
    ----------
    matrices
        The symmetric $A_i$, shape ``(m, n, n)``.
    truth
        $z$, shape ``(n,)``.
    spurious
        A critical point $\hat x\ne\pm z$ of $f$, shape ``(n,)``.
    delta
        Restricted isometry constant $\delta$ of the rescaled measurements.
    """

    matrices: FloatArray
    truth: FloatArray
    spurious: FloatArray
    delta: float


@result
class LiftedHessian:
    r"""The Hessian $4(K_x^{\otimes l}-K_z^{\otimes l})+8S_x^{\otimes l}$ of $h_l$ at $x^{\otimes
    l}$, kept as its factors.

    Attributes
    ----------
    point_matrix, truth_matrix, tangent_matrix
        $K_x$, $K_z$ and $S_x$, shape ``(n, n)`` each.
    order
        $l$.
    """

    point_matrix: FloatArray
    truth_matrix: FloatArray
    tangent_matrix: FloatArray
    order: int

    @property
    def dimension(self) -> int:
        """$n^l$."""
        return int(self.point_matrix.shape[0] ** self.order)

    @property
    def matrix(self) -> FloatArray:
        """The Hessian as a dense array, shape ``(n**l, n**l)``."""
        return sum((c * reduce(_kron, [K] * self.order) for c, K in self._terms), np.zeros((1, 1)))

    @property
    def operator(self) -> LinearOperator:
        """The Hessian as a linear operator; a product costs $3l\\,n^{l+1}$ multiplications."""
        return self._shifted(0.0)

    @property
    def smallest_eigenvalue(self) -> float:
        """Smallest eigenvalue; above some hundred dimensions by Lanczos iterations that never form
        the matrix.

        They stop at a residual of 1e-10 times a bound of the norm, and raise SciPy's
        ``ArpackNoConvergence`` if they do not get there."""
        if self.dimension <= _DENSE:
            return float(np.linalg.eigvalsh(self.matrix)[0])
        size = sum(abs(c) * float(np.linalg.norm(K, 2)) ** self.order for c, K in self._terms)
        if size == 0:
            return 0.0
        start = np.random.default_rng(0).standard_normal(self.dimension)
        # ARPACK's test is relative to the eigenvalue: near 0 it is never met, and a wrong one is
        # returned. The shift mends that.
        shifted = self._shifted(size)
        return size + float(
            eigsh(
                shifted,
                k=1,
                which="SA",
                v0=start,
                ncv=_KRYLOV,
                tol=1e-10,
                return_eigenvectors=False,
            )[0]
        )

    def apply(self, w: ArrayLike) -> FloatArray:
        """Return the product with ``w``, shape ``(n**l,)``."""
        flat = as_array(w, "w", ndim=1)
        shape = (self.point_matrix.shape[0],) * self.order
        total = np.zeros(shape)
        for c, K in self._terms:
            tensor = as_array(flat, "w", shape=(self.dimension,)).reshape(shape)
            for mode in range(self.order):
                tensor = np.moveaxis(np.tensordot(K, tensor, axes=(1, mode)), 0, mode)
            total += c * tensor
        return total.reshape(-1)

    def curvature(self, direction: ArrayLike) -> float:
        r"""Return the curvature along $u^{\otimes l}$, from three numbers $u^\top Ku$;
        ``direction`` is $u$, shape ``(n,)``."""
        u = as_array(direction, "direction", shape=self.point_matrix.shape[:1])
        return float(sum(c * (u @ K @ u) ** self.order for c, K in self._terms))

    def _shifted(self, shift: float) -> LinearOperator:
        """Return the Hessian minus ``shift`` times the identity."""

        def product(w: FloatArray) -> FloatArray:
            flat = np.ravel(w)  # SciPy also passes columns
            return self.apply(flat) - shift * flat

        return LinearOperator(
            (self.dimension,) * 2, matvec=product, rmatvec=product, dtype=np.float64
        )

    @property
    def _terms(self) -> tuple[tuple[float, FloatArray], ...]:
        return (4.0, self.point_matrix), (-4.0, self.truth_matrix), (8.0, self.tangent_matrix)


@refuses_overflow("matrices", "truth", "w")
def lifted_loss(matrices: ArrayLike, truth: ArrayLike, w: ArrayLike) -> float:
    r"""Return $h_l(w)$ at any tensor; the order $l$ is the number of axes of $w$.

    Parameters
    ----------
    matrices
        Symmetric $A_i$, shape ``(m, n, n)``.
    truth
        $z$, shape ``(n,)``.
    w
        Shape ``(n,) * l``.

    Returns
    -------
    float
        $h_l(w)$, in $O(m^ln^{l+1})$ operations (for $m\ge2$) and with $(mn)^l$ numbers of memory.

    Raises
    ------
    ValueError
        If an argument is invalid or a matrix is not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import lifted_loss
    >>> A = [np.diag([1.0, 0.0]), np.diag([0.0, 1.0])]
    >>> lifted_loss(A, [1.0, 1.0], np.array([1.0, -1.0]))
    0.0
    """
    A, z, tensor = _problem(matrices, truth, w)
    return float(np.sum(_residuals(A, z, tensor)[0] ** 2))


@refuses_overflow("matrices", "truth", "w")
def lifted_gradient(matrices: ArrayLike, truth: ArrayLike, w: ArrayLike) -> FloatArray:
    r"""Return $\nabla h_l(w)=4\sum_I(\langle A_I,ww^\top\rangle-b_I)A_Iw$ at any tensor,
    $A_I=\bigotimes_jA_{i_j}$.

    Parameters
    ----------
    matrices, truth, w
        As in `lifted_loss`.

    Returns
    -------
    ndarray
        The gradient, shape of ``w``.

    Raises
    ------
    ValueError
        If an argument is invalid or a matrix is not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import lifted_gradient
    >>> A = [np.diag([1.0, 0.0]), np.diag([0.0, 1.0])]
    >>> lifted_gradient(A, [1.0, 1.0], np.array([2.0, 0.0]))
    array([24.,  0.])
    """
    A, z, tensor = _problem(matrices, truth, w)
    residual, images = _residuals(A, z, tensor)
    return 4.0 * np.tensordot(residual, images, axes=residual.ndim)


@refuses_overflow("matrices", "truth", "point")
def lifted_hessian(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, *, order: int
) -> LiftedHessian:
    r"""Return $\nabla^2h_l(x^{\otimes l})$ as three Kronecker powers.

    Parameters
    ----------
    matrices
        Symmetric $A_i$, shape ``(m, n, n)``.
    truth
        $z$, shape ``(n,)``.
    point
        $x$, shape ``(n,)``, stationary or not.
    order
        $l\ge1$; $l=1$ is the Hessian of $f$.

    Returns
    -------
    LiftedHessian
        With the dense matrix, the product with a vector, the smallest eigenvalue and the curvature
        along $u^{\otimes l}$.

    Raises
    ------
    ValueError
        If an argument is invalid or a matrix is not symmetric.

    Examples
    --------
    >>> from theorylab.matrix_sensing import lifted_hessian, perturbed_completion
    >>> problem = perturbed_completion(0.5)
    >>> hessian = lifted_hessian(problem.matrices, problem.truth, [0.0, 1.0, 0.0], order=2)
    >>> hessian
    <LiftedHessian: point_matrix (3, 3), truth_matrix (3, 3), tangent_matrix (3, 3), order 2>
    """
    A = _symmetric(matrices)
    n = A.shape[1]
    z, x = as_array(truth, "truth", shape=(n,)), as_array(point, "point", shape=(n,))
    images = A @ x
    return LiftedHessian(
        np.tensordot(images @ x, A, 1),
        np.tensordot(A @ z @ z, A, 1),
        images.T @ images,
        as_count(order, "order"),
    )


def perturbed_completion(eps: float, *, diagonal: float = 1.0) -> SensingProblem:
    r"""Return the completion problem on $n=3$ in which the pair (1,3) is seen with weight
    $\epsilon$ and all else with 1.

    Parameters
    ----------
    eps
        $\epsilon$ in (0, ``diagonal``).
    diagonal
        Weight $g$ of the three diagonal entries, at most 1. The family has $g=1$.

    Returns
    -------
    SensingProblem
        $z=(1,0,1)$, $\delta=(1-\epsilon^2)/(1+\epsilon^2)$ (attained on the pairs (1,3) and (1,2)),
        and $\hat x=\sqrt{(g^2-\epsilon^2)/(g^2+\epsilon^2)}\,(1,0,-1)$.

    Raises
    ------
    ValueError
        If an argument leaves its range.

    Examples
    --------
    >>> from theorylab.matrix_sensing import perturbed_completion
    >>> problem = perturbed_completion(0.5)
    >>> problem.matrices.shape, problem.truth
    ((6, 3, 3), array([1., 0., 1.]))
    """
    g = as_real(diagonal, "diagonal", above=0.0, maximum=1.0)
    eps = as_real(eps, "eps", above=0.0, below=g)
    matrices = np.array([B for B, _ in _ENTRIES], dtype=float)
    matrices[:3] *= g
    matrices[3:] /= np.sqrt(2)
    matrices[-1] *= eps
    spurious = np.sqrt((g**2 - eps**2) / (g**2 + eps**2)) * np.array([1.0, 0.0, -1.0])
    return SensingProblem(
        matrices, np.array([1.0, 0.0, 1.0]), spurious, (1 - eps**2) / (1 + eps**2)
    )


def completion_spectrum(
    delta: float | Fraction, *, order: int, diagonal: float | Fraction = 1.0
) -> tuple[tuple[Fraction, int], ...]:
    r"""Return the exact spectrum of the lifted Hessian of `perturbed_completion` at the spurious
    point.

    $K_{\hat x}$, $K_z$ and $S_{\hat x}$ are rational in $\delta$; they are summed from the
    measurements in rational arithmetic and applied to $\hat x,e_2,z$, which are found to be
    eigenvectors of all three. The Kronecker products of these are eigenvectors of the lifted
    Hessian, and exhaust it.

    Parameters
    ----------
    delta
        $\delta$ in (0, 1); a float stands for the rational number that it is.
    order
        $l\ge1$.
    diagonal
        Weight $g$ of the diagonal entries, with $\epsilon<g\le1$, as in `perturbed_completion`.

    Returns
    -------
    tuple of (Fraction, int)
        Eigenvalues, increasing, with multiplicities that sum to $3^l$.

    Examples
    --------
    >>> from theorylab.matrix_sensing import completion_spectrum
    >>> completion_spectrum(0.5, order=1)
    ((Fraction(0, 1), 1), (Fraction(4, 1), 1), (Fraction(16, 3), 1))
    """
    d, order = _rational(delta), as_count(order, "order")
    g = _rational(diagonal, "diagonal", allow_one=True)
    if g**2 * (1 + d) <= 1 - d:
        raise ValueError(
            f"diagonal: expected more than the weight eps that belongs to delta, got {float(g)}"
        )
    point, truth, tangent = (_eigenvalues(K) for K in _exact_factors(d, g))
    counts: dict[Fraction, int] = {}
    for i in range(order + 1):
        for j in range(order + 1 - i):
            powers = (i, j, order - i - j)
            p, t, s = (_product(values, powers) for values in (point, truth, tangent))
            value = 4 * (p - t) + 8 * s
            counts[value] = counts.get(value, 0) + factorial(order) // (
                factorial(i) * factorial(j) * factorial(powers[2])
            )
    return tuple(sorted(counts.items()))


def completion_threshold(order: int, *, bits: int = 60) -> tuple[Fraction, Fraction]:
    r"""Enclose the $\delta_l$ below which the spurious point of `perturbed_completion` is a strict
    saddle of $h_l$.

    The two sides of $2^l(1-\delta^{2l})=2(\delta(1+\delta))^l$ are strictly monotone on (0, 1) in
    opposite directions, so the root is unique and a bisection in exact rational arithmetic encloses
    it: $1/2$, $.71202$, $.79856$, $.84521$, $.87435,\dots$, with $l(1-\delta_l)\to2\log v=.6663$,
    $v^4=2v+1$.

    Parameters
    ----------
    order
        $l\ge1$.
    bits
        The enclosure is $2^{-\text{bits}}$ wide.

    Returns
    -------
    lower, upper
        Rational; the point is a strict saddle at the lower end and (as far as second order tells) a
        minimum at the upper.

    Examples
    --------
    >>> from theorylab.matrix_sensing import completion_threshold
    >>> lower, upper = completion_threshold(2, bits=20)
    >>> float(lower), float(upper)
    (0.7120211486614717, 0.7120221023348786)
    """
    order, bits = as_count(order, "order"), as_count(bits, "bits")
    # An odd denominator keeps the bisection off the root 1/2 of order 1, where neither end would be
    # strict.
    cells = 2**bits + 1
    low, high = 0, cells
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _is_saddle(Fraction(middle, cells), order) else (low, middle)
    return Fraction(low, cells), Fraction(high, cells)


def first_saddle_order(delta: float | Fraction) -> int:
    r"""Return the smallest $l$ with $2^l(1-\delta^{2l})>2(\delta(1+\delta))^l$, about
    $.666/(1-\delta)$ near $\delta=1$.

    Parameters
    ----------
    delta
        $\delta$ in (0, 1); a float stands for the rational number that it is.

    Returns
    -------
    int
        The order from which on the spurious point of `perturbed_completion` is a strict saddle: the
        ratio of the two sides grows with $l$.

    Raises
    ------
    ValueError
        If ``delta`` is not in (0, 1).

    Examples
    --------
    >>> from theorylab.matrix_sensing import first_saddle_order
    >>> [first_saddle_order(delta) for delta in (0.5, 0.9, 0.99)]
    [2, 7, 67]
    """
    d = _rational(delta)
    high = 1
    while not _is_saddle(d, high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_saddle(d, middle) else (middle, high)
    return high


@refuses_overflow("matrices", "truth", "point", "direction")
def escape_ratio(
    matrices: ArrayLike, truth: ArrayLike, point: ArrayLike, direction: ArrayLike
) -> float:
    r"""Return $\rho=\max(|u^\top K_xu|,u^\top S_xu)/u^\top K_zu$ for a direction $u$.

    The curvature of $h_l$ at $x^{\otimes l}$ along $u^{\otimes l}$ is at most
    $4(3\rho^l-1)(u^\top K_zu)^l$: a stationary $x$ with $\rho<1$ becomes a strict saddle at every
    order $l>\log3/\log(1/\rho)$. On `perturbed_completion`, with $u=z$, $\rho=\delta(1+\delta)/2$.
    (Derived here.)

    Parameters
    ----------
    matrices
        Symmetric $A_i$, shape ``(m, n, n)``.
    truth, point, direction
        $z$, $x$ and $u$ with $u^\top K_zu>0$, shape ``(n,)``.

    Examples
    --------
    >>> from theorylab.matrix_sensing import perturbed_completion, escape_ratio
    >>> problem = perturbed_completion(0.5)
    >>> round(escape_ratio(problem.matrices, problem.truth, problem.spurious, problem.truth), 12)
    0.48
    """
    hessian = lifted_hessian(matrices, truth, point, order=1)
    u = as_array(direction, "direction", shape=hessian.point_matrix.shape[:1])
    at_point, at_truth, tangent = (
        float(u @ K @ u)
        for K in (hessian.point_matrix, hessian.truth_matrix, hessian.tangent_matrix)
    )
    if at_truth <= 0:
        raise ValueError(f"direction: expected u with u'K_zu > 0, got {at_truth}")
    return max(abs(at_point), tangent) / at_truth


@refuses_overflow("matrices")
def isometry_bounds(matrices: ArrayLike) -> tuple[float, float]:
    r"""Return the extreme ratios $\sum_i\langle A_i,M\rangle^2/\|M\|_F^2$ over symmetric $M$ of any
    rank.

    They are valid restricted strong convexity and smoothness constants $\alpha$ and $L$ for every
    rank.

    Parameters
    ----------
    matrices
        Symmetric $A_i$, shape ``(m, n, n)``.

    Returns
    -------
    lower, upper
        $\alpha\ge0$ and $L$.

    Raises
    ------
    ValueError
        If a matrix is not symmetric.

    Examples
    --------
    >>> from theorylab.matrix_sensing import isometry_bounds, perturbed_completion
    >>> isometry_bounds(perturbed_completion(0.5).matrices)
    (0.25, 1.0)
    """
    A = _symmetric(matrices)
    rows, columns = np.triu_indices(A.shape[1])
    packed = A[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2))
    values = np.linalg.eigvalsh(packed.T @ packed)
    return max(float(values[0]), 0.0), float(values[-1])


@refuses_overflow("truth", "point")
def lifting_ratio(truth: ArrayLike, point: ArrayLike, *, lower: float, upper: float) -> float:
    r"""Return $\beta=L\|z\|^2\|x\|^2/(\alpha\|xx^\top-zz^\top\|_F^2)$.

    The sufficient condition for lifting (ma2023-over, recalled; the paper's text was not consulted)
    is $\beta<1$ and odd $l>1/(1-\log_2(2\beta))$, which says $\beta^l<1/2$.

    Parameters
    ----------
    truth, point
        $z$ and $x\ne\pm z$, shape ``(n,)``.
    lower, upper
        $\alpha>0$ and $L\ge\alpha$, as from `isometry_bounds`.

    Raises
    ------
    ValueError
        If an argument is invalid or ``point`` is the truth.

    Examples
    --------
    >>> from theorylab.matrix_sensing import lifting_ratio
    >>> lifting_ratio([1.0, 0.0], [0.0, 0.5], lower=1.0, upper=2.0)
    0.47058823529411764
    """
    size, distance = _sizes(truth, point)
    alpha, smooth = as_real(lower, "lower", above=0.0), as_real(upper, "upper", above=0.0)
    if smooth < alpha:
        raise ValueError(f"upper: expected at least lower = {alpha}, got {smooth}")
    if distance <= 8 * _EPS * max(size) ** 2:
        raise ValueError("point: expected another point than the truth and its negative")
    return smooth * size[0] * size[1] / (alpha * distance)


@refuses_overflow("truth", "point")
def saddle_bound(truth: ArrayLike, point: ArrayLike, *, lower: float, upper: float) -> float:
    r"""Bound $\lambda_{\min}(\nabla^2f(x))$ at a critical point $x\ne\pm z$ of $f$ by
    $-4\alpha\|D\|_F^2(1-\beta)/\|z\|^2$.

    With $D=xx^\top-zz^\top$ and $G=K_x-K_z$, stationarity is $Gx=0$, so
    $z^\top Gz=-\sum_i\langle A_i,D\rangle^2\le-\alpha\|D\|_F^2$. The lowest unit eigenvector $u$ of
    $G$ has $u^\top Gu\le-\alpha\|D\|_F^2/\|z\|^2<0$, hence $u\perp x$ and $u^\top
    S_xu=\sum_i\langle A_i,\frac12(xu^\top+ux^\top)\rangle^2\le\frac12L\|x\|^2$. Thus $\beta<1$
    (`lifting_ratio`) makes $x$ a strict saddle before any lifting. (Derived here.)

    Parameters
    ----------
    truth, point, lower, upper
        As in `lifting_ratio`; ``point`` is a critical point of $f$.

    Returns
    -------
    float
        An upper bound of $\lambda_{\min}(\nabla^2f(x))$; negative iff $\beta<1$.

    Raises
    ------
    ValueError
        If an argument is invalid or ``point`` is the truth.

    Examples
    --------
    >>> from theorylab.matrix_sensing import saddle_bound
    >>> saddle_bound([1.0, 0.0], [0.0, 0.5], lower=1.0, upper=2.0)
    -2.25
    """
    beta = lifting_ratio(truth, point, lower=lower, upper=upper)
    size, distance = _sizes(truth, point)
    return -4 * float(lower) * distance / size[0] * (1 - beta)


def _sizes(truth: ArrayLike, point: ArrayLike) -> tuple[tuple[float, float], float]:
    z = as_array(truth, "truth", ndim=1)
    x = as_array(point, "point", shape=z.shape)
    if not z.any():
        raise ValueError("truth: expected a vector other than 0")
    return (float(z @ z), float(x @ x)), float(np.sum((np.outer(x, x) - np.outer(z, z)) ** 2))


def _symmetric(matrices: ArrayLike) -> FloatArray:
    A = as_symmetric(matrices, "matrices", ndim=3)
    return (A + A.transpose(0, 2, 1)) / 2


def _problem(
    matrices: ArrayLike, truth: ArrayLike, w: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    A = _symmetric(matrices)
    n = A.shape[1]
    tensor = as_array(w, "w")
    if tensor.ndim == 0 or set(tensor.shape) != {n}:
        raise ValueError(f"w: expected every axis to have length n = {n}, got shape {tensor.shape}")
    return A, as_array(truth, "truth", shape=(n,)), tensor


def _residuals(A: FloatArray, z: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the residuals over all index tuples, shape (m,) * l, and the images A_I w, shape (m,)
    * l + (n,) * l."""
    order, images = w.ndim, w
    for mode in range(
        order
    ):  # axes (i_1..i_mode, j_mode+1..j_l, k_1..k_mode) -> one measurement index more
        images = np.moveaxis(np.tensordot(images, A, axes=(mode, 2)), -2, mode)
    b = A @ z @ z
    return np.tensordot(images, w, axes=order) - reduce(np.multiply.outer, [b] * order), images


def _kron(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.kron(left, right), dtype=np.float64)


def _is_saddle(delta: Fraction, order: int) -> bool:
    r"""Whether $2^l(1-\delta^{2l})>2(\delta(1+\delta))^l$; large orders by logarithms in balls."""
    d, before = fmpq(delta.numerator, delta.denominator), ctx.prec
    try:
        for bits in (2**k for k in range(7, 12)) if order > 64 else ():
            ctx.prec = bits
            excess = order * (arb(2) / (d * (1 + d))).log() - arb(2).log()
            excess += (1 - (2 * order * arb(d).log()).exp()).log()
            if excess > 0 or excess < 0:
                return bool(excess > 0)
    finally:
        ctx.prec = before
    return bool(2**order * (1 - delta ** (2 * order)) > 2 * (delta * (1 + delta)) ** order)


def _rational(
    number: float | Fraction, name: str = "delta", *, allow_one: bool = False
) -> Fraction:
    value = as_real(
        float(number) if isinstance(number, Fraction) else number, name, minimum=0.0, maximum=1.0
    )
    exact = number if isinstance(number, Fraction) else Fraction(value)
    if not (0 < exact < 1 or (allow_one and exact == 1)):
        raise ValueError(
            f"{name}: expected a number strictly between 0 and 1{' or 1' * allow_one}, got {value}"
        )
    return exact


def _entry(i: int, j: int) -> list[list[int]]:
    return [[int((r, c) in ((i, j), (j, i))) for c in range(3)] for r in range(3)]


# Each entry or pair with its position in (diagonal, full pair, perturbed pair); the last is the
# pair (1, 3).
_ENTRIES = [(_entry(i, i), 0) for i in range(3)] + [
    (_entry(0, 1), 1),
    (_entry(1, 2), 1),
    (_entry(0, 2), 2),
]
_BASIS = ((1, 0, -1), (0, 1, 0), (1, 0, 1))

_Exact = list[list[Fraction]]


def _exact_factors(delta: Fraction, diagonal: Fraction) -> list[_Exact]:
    """Return K_x, K_z and S_x of the perturbed completion, summed over its six measurements."""
    eps_squared = (1 - delta) / (1 + delta)
    size = (diagonal**2 - eps_squared) / (
        diagonal**2 + eps_squared
    )  # the square of each non-zero entry of x
    weights = (diagonal**2, Fraction(1, 2), eps_squared / 2)  # squared weights of the measurements
    factors = [[[Fraction(0)] * 3 for _ in range(3)] for _ in range(3)]
    for B, kind in _ENTRIES:
        images = [
            [sum(B[r][c] * v[c] for c in range(3)) for r in range(3)]
            for v in (_BASIS[0], _BASIS[2])
        ]
        seen = [
            sum(a * v for a, v in zip(image, u, strict=True))
            for image, u in zip(images, (_BASIS[0], _BASIS[2]), strict=True)
        ]
        for r in range(3):
            for c in range(3):
                factors[0][r][c] += weights[kind] * size * seen[0] * B[r][c]
                factors[1][r][c] += weights[kind] * seen[1] * B[r][c]
                factors[2][r][c] += weights[kind] * size * images[0][r] * images[0][c]
    return factors


def _eigenvalues(K: _Exact) -> list[Fraction]:
    """Return the eigenvalues of K on the common eigenvectors, which are verified."""
    values = []
    for v in _BASIS:
        image = [sum(K[r][c] * v[c] for c in range(3)) for r in range(3)]
        first = next(r for r in range(3) if v[r])
        value = Fraction(image[first]) / v[first]
        if any(image[r] != value * v[r] for r in range(3)):
            raise AssertionError("the common eigenvectors are proved in the module docstring")
        values.append(value)
    return values


def _product(values: list[Fraction], powers: tuple[int, int, int]) -> Fraction:
    return values[0] ** powers[0] * values[1] ** powers[1] * values[2] ** powers[2]
