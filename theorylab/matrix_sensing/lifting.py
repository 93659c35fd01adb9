r"""Lifting a rank-one sensing problem to tensors, and the order at which a spurious minimum becomes
a saddle.

Sensing: $f(x)=\sum_i(\langle A_i,xx^\top\rangle-b_i)^2$ with symmetric $A_i$ and $b_i=\langle
A_i,zz^\top\rangle$. Its lift of order $l$ replaces $x$ by a tensor $w\in(\mathbb R^n)^{\otimes l}$
and $A_i$ by all products: $$h_l(w)=\sum_{i_1\dots i_l}\Big(\langle A_{i_1}\otimes\dots\otimes
A_{i_l},ww^\top\rangle-\prod_jb_{i_j}\Big)^2.$$ With $K_u=\sum_i\langle A_i,uu^\top\rangle A_i$ and
$S_x=\sum_iA_ixx^\top A_i$ the mixed-product rule gives, at every $x$, $$\nabla h_l(x^{\otimes
l})=4\big((K_xx)^{\otimes l}-(K_zx)^{\otimes l}\big),\qquad \nabla^2h_l(x^{\otimes
l})=4(K_x^{\otimes l}-K_z^{\otimes l})+8S_x^{\otimes l},$$ so a stationary $x$ stays stationary, and
its Hessian is three Kronecker powers of $n\times n$ matrices (`lifted_hessian`). The example is
`perturbed_completion`. (ma2023-over: the lift and stationarity; the rest is derived here.)"""

from __future__ import annotations

from functools import reduce

import numpy as np
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
    "escape_ratio",
    "isometry_bounds",
    "lifted_gradient",
    "lifted_hessian",
    "lifted_loss",
    "lifting_ratio",
    "saddle_bound",
]


_EPS = float(np.finfo(np.float64).eps)


_DENSE = (
    800  # up to this dimension all eigenvalues of the formed matrix are cheaper than a Lanczos run
)


_ROWS = 10_000  # of a dense Hessian
_LANCZOS = 8_000_000  # entries of a vector, of which an iteration keeps some sixty
_IMAGES = 2 * 10**8  # numbers A_I w

_KRYLOV = 60  # vectors kept by it: eigenvalues that are products of small ones cluster at 0


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
        """The Hessian as a dense array, shape ``(n**l, n**l)``, of at most 10,000 rows."""
        self._within(_ROWS, "a dense array")
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
        ``ArpackNoConvergence`` if they do not get there. The dimension is at most 8 million."""
        if self.dimension <= _DENSE:
            return float(np.linalg.eigvalsh(self.matrix)[0])
        self._within(_LANCZOS, "Lanczos iterations")
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
        flat = as_array(w, "w", shape=(self.dimension,))
        shape = (self.point_matrix.shape[0],) * self.order
        total = np.zeros(shape)
        for c, K in self._terms:
            tensor = flat.reshape(shape)
            for mode in range(self.order):
                tensor = np.moveaxis(np.tensordot(K, tensor, axes=(1, mode)), 0, mode)
            total += c * tensor
        return total.reshape(-1)

    def curvature(self, direction: ArrayLike) -> float:
        r"""Return the curvature along $u^{\otimes l}$, from three numbers $u^\top Ku$;
        ``direction`` is $u$, shape ``(n,)``."""
        u = as_array(direction, "direction", shape=self.point_matrix.shape[:1])
        return float(sum(c * (u @ K @ u) ** self.order for c, K in self._terms))

    def _within(self, most: int, what: str) -> None:
        if self.dimension > most:
            raise ValueError(
                f"order: expected a dimension of at most {most} for {what}, got "
                f"{self.point_matrix.shape[0]}^{self.order}"
            )

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
        If an argument is invalid, a matrix is not symmetric, or $(mn)^l$ exceeds 2e8.

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
    if len(A) < rows.size:  # some matrix is not seen
        return 0.0, float(np.linalg.eigvalsh(packed @ packed.T)[-1])
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
    if (len(A) * n) ** tensor.ndim > _IMAGES:
        raise ValueError(
            f"w: expected (m n)^l of at most {_IMAGES:.0e}, got ({len(A)} * {n})^{tensor.ndim}"
        )
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
