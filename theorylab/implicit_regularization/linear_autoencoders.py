r"""Linear autoencoders of low rank: which of their cosine similarities mean something.

Data X, shape (n, p), with singular values $\sigma_1\ge\sigma_2\ge\dots$ and right singular
vectors V, are fitted by factors A, B of shape (p, k). The penalty of the *product*,

$$\|X-XAB^\top\|_F^2+\lambda\|AB^\top\|_F^2,$$

has the minimisers $AB^\top=V_kSV_k^\top$, $S=\operatorname{diag}(1/(1+\lambda/
\sigma_i^2))$, and does not see $(A,B)\to(AD,BD^{-1})$: with the rows of B the cosines change.
Over all positive diagonal D the cosine of rows x and y of B

- fills (-1, 1), if the products $x_ly_l$ take both signs,
- fills the interval from $2\sqrt{mM}/(m+M)$ to 1 if they take only the positive one, m and M
  the least and largest of the quotients $|x_l/y_l|$ (0 and infinity count, and then it
  starts at 0); minus that, if only the negative one; it is 0 if all products vanish,

for $(y_l-cx_l)(c'x_l-y_l)\ge0$ with the extreme quotients c, c' bounds it, and two entries
attain it. (Invertible maps that are not diagonal reach every value for any two rows that are not
parallel.) The penalty of the *factors*,

$$\|X-XAB^\top\|_F^2+\lambda(\|XA\|_F^2+\|B\|_F^2),$$

is that of the nuclear norm of the fit: $XAB^\top=U_k(\Sigma_k-\lambda)_+V_k^\top$, with
$B=V_k(\Sigma_k-\lambda)_+^{1/2}Q$, $A=V_k\Sigma_k^{-1}(\Sigma_k-\lambda)_+^{1/2}Q$
and Q orthogonal. Its cosines are unique, and made by $\lambda$.

Paper: steck2024-cosine (the exact range is derived here)."""

from __future__ import annotations

import math
import warnings
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    one_of,
    refuses_overflow,
)
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "AutoencoderStatus",
    "LinearAutoencoder",
    "autoencoder_minimiser",
    "autoencoder_objective",
    "cosine_range",
    "cosine_similarities",
    "train_autoencoder",
]

PENALTIES = ("product", "factors")
_ROUNDING = 1e-13


class AutoencoderStatus(StrEnum):
    """Where factors come from."""

    CLOSED_FORM = "computed from singular vectors"
    CONVERGED = "a sweep changed the result by tol, relatively, or less"
    NOT_CONVERGED = "took all the sweeps before the result settled; raise sweeps"
    STOPPED = "stopped by the callback, with the factors of the last sweep"


@result
class LinearAutoencoder:
    """Factors of a linear autoencoder.

    Attributes
    ----------
    A, B
        (p, k): encoder and decoder, X being mapped to X A B'.
    value
        Of the objective.
    change
        Relative change in the last sweep, of A B' or (with their penalty) of the factors; 0 for a
        closed form.
    status
        Where they come from.
    """

    A: FloatArray
    B: FloatArray
    value: float
    change: float
    status: AutoencoderStatus


@refuses_overflow("X", "A", "B", "ridge")
def autoencoder_objective(
    X: ArrayLike, A: ArrayLike, B: ArrayLike, *, ridge: float, penalty: str = "product"
) -> float:
    r"""Return the objective at factors A and B.

    Parameters
    ----------
    X, A, B
        (n, p), (p, k) and (p, k).
    ridge
        $\lambda$.
    penalty
        ``"product"``, of $\|AB^\top\|^2$, or ``"factors"``, of
        $\|XA\|^2+\|B\|^2$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import autoencoder_objective
    >>> autoencoder_objective([[2.0, 0.0]], [[1.0], [0.0]], [[0.5], [0.0]], ridge=4.0)
    2.0
    """
    data = as_array(X, "X", ndim=2)
    a = as_array(A, "A", shape=(data.shape[1], None))
    b = as_array(B, "B", shape=a.shape)
    lam = as_real(ridge, "ridge", minimum=0.0)
    product = one_of(penalty, "penalty", PENALTIES) == "product"
    code = data @ a
    price = np.sum((a @ b.T) ** 2) if product else np.sum(code**2) + np.sum(b**2)
    return float(np.sum((data - code @ b.T) ** 2) + lam * price)


@refuses_overflow("X", "ridge")
def autoencoder_minimiser(
    X: ArrayLike, *, ridge: float, search_rank: int, penalty: str = "product"
) -> LinearAutoencoder:
    r"""Return minimising factors in closed form, those with D = I or Q = I.

    Parameters
    ----------
    X
        (n, p); singular values of 1e-13 of the largest or less count as 0.
    ridge
        $\lambda>0$.
    search_rank
        k, at most p.
    penalty
        As in :func:`autoencoder_objective`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import autoencoder_minimiser
    >>> found = autoencoder_minimiser([[2.0, 0.0]], ridge=4.0, search_rank=1)
    >>> (found.A @ found.B.T).round(12), round(found.value, 12)
    (array([[0.5, 0. ],
           [0. , 0. ]]), 2.0)
    """
    data, lam, e, k, product = _problem(X, ridge, search_rank, penalty)
    # All right singular vectors: with more factors than data some of the columns are 0.
    _, found, right = np.linalg.svd(data, full_matrices=data.shape[0] < data.shape[1])
    found[found <= _ROUNDING * found[0]] = 0.0
    values = np.concatenate([found, np.zeros(data.shape[1])])[:k]
    V = right[:k].T
    if product:
        shrunk = values**2 / (values**2 + lam)
        A = B = V * np.sqrt(shrunk)
    else:
        kept = np.sqrt(np.maximum(values - lam, 0.0))
        B, A = V * kept, V * (kept / np.where(values > lam, values, 1.0))
    return _in_units(data, A, B, lam, e, product, 0.0, AutoencoderStatus.CLOSED_FORM)


@refuses_overflow("X", "ridge")
def train_autoencoder(
    X: ArrayLike,
    *,
    ridge: float,
    search_rank: int,
    penalty: str = "product",
    seed: int = 0,
    sweeps: int = 20_000,
    tol: float = 1e-13,
    callback: Callback | None = None,
) -> LinearAutoencoder:
    r"""Minimise by turns over A and over B, from random factors.

    With the penalty of the factors the balance of A and B settles only at a rate of the order of
    $\lambda/\sigma_1$: for a tiny ridge take :func:`autoencoder_minimiser`.

    Parameters
    ----------
    X, ridge, search_rank, penalty
        As in :func:`autoencoder_minimiser`.
    seed
        Of the first B, Gaussian.
    sweeps, tol
        At most so many sweeps, until one changes the result relatively by ``tol``.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each sweep: the objective,
        and the relative change; where it returns True, the sweeps stop.

    Examples
    --------
    >>> from theorylab.implicit_regularization import train_autoencoder
    >>> parameters = {"ridge": 1.0, "search_rank": 1, "penalty": "factors"}
    >>> found = train_autoencoder([[5.0, 0.0], [0.0, 3.0]], **parameters)
    >>> abs(found.B @ found.B.T).round(9)
    array([[4., 0.],
           [0., 0.]])
    """
    data, lam, e, k, product = _problem(X, ridge, search_rank, penalty)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    budget, target = as_count(sweeps, "sweeps"), as_real(tol, "tol", minimum=0.0)
    start = rng.standard_normal((data.shape[1], k))
    # Factors of least norm are spanned by the rows of the data; more columns than those stay 0.
    basis = _row_space(data)
    rank, used = basis.shape[1], min(basis.shape[1], k)
    reduced = data @ basis
    gram, stacked = reduced.T @ reduced, np.vstack([reduced, math.sqrt(lam) * np.eye(rank)])
    ridge_map, eye = np.linalg.solve(gram + lam * np.eye(rank), gram), np.eye(used)
    A: FloatArray = np.zeros((rank, used))
    B: FloatArray = basis.T @ start[:, :used]
    change, told = math.inf if rank else 0.0, False
    stops = watcher(callback)

    def value(A: FloatArray, B: FloatArray) -> float:
        return math.ldexp(autoencoder_objective(reduced, A, B, ridge=lam, penalty=penalty), 2 * e)

    for sweep in range(1, (budget if rank else 0) + 1):
        before = (A @ B.T,) if product else (A, B)
        if product:
            # The penalty of the product does not see which basis of its columns B is.
            A = ridge_map @ np.linalg.qr(B)[0]
            inverse = np.linalg.pinv(stacked @ A, rcond=1e-11)
            B = reduced.T @ inverse[:, : len(reduced)].T
        else:
            A = np.asarray(np.linalg.solve(B.T @ B + lam * eye, B.T).T, np.float64)
            B = np.asarray(np.linalg.solve(A.T @ gram @ A + lam * eye, A.T @ gram).T, np.float64)
        after = (A @ B.T,) if product else (A, B)
        change = max(map(_change, after, before))
        if callback and (told := stops(sweep, value(A, B), change)):
            break
        if change <= target:
            break
    status = AutoencoderStatus.CONVERGED if change <= target else AutoencoderStatus.NOT_CONVERGED
    if told:
        status = AutoencoderStatus.STOPPED
    if told or (target > 0 and status is AutoencoderStatus.NOT_CONVERGED):
        warnings.warn(f"linear autoencoder: {status.value}", RuntimeWarning, stacklevel=3)
    A, B = (np.pad(basis @ factor, ((0, 0), (0, k - used))) for factor in (A, B))
    return _in_units(data, A, B, lam, e, product, change, status)


@refuses_overflow("rows")
def cosine_similarities(rows: ArrayLike) -> FloatArray:
    r"""Return the cosines of the angles between the rows of a matrix, shape (p, p).

    Parameters
    ----------
    rows
        (p, k), none of them 0.

    Examples
    --------
    >>> from theorylab.implicit_regularization import cosine_similarities
    >>> cosine_similarities([[3.0, 4.0], [-5.0, 0.0]])
    array([[ 1. , -0.6],
           [-0.6,  1. ]])
    """
    B = as_array(rows, "rows", ndim=2)
    largest = np.abs(B).max(axis=1, keepdims=True)
    if not largest.all():
        raise ValueError("rows: expected none without a nonzero entry")
    unit = B / largest
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.asarray(np.clip(unit @ unit.T, -1.0, 1.0))


@refuses_overflow("first", "second")
def cosine_range(first: ArrayLike, second: ArrayLike) -> tuple[float, float]:
    r"""Return infimum and supremum of the cosine of two rows over all positive scalings of the
    columns.

    Parameters
    ----------
    first, second
        (k,), neither of them 0: rows of a factor; entries that are 0 in theory must be 0.

    Examples
    --------
    >>> from theorylab.implicit_regularization import cosine_range
    >>> cosine_range([1.0, 4.0], [1.0, 1.0]), cosine_range([1.0, 2.0], [1.0, -1.0])
    ((0.8, 1.0), (-1.0, 1.0))
    """
    x = as_array(first, "first", ndim=1)
    y = as_array(second, "second", shape=x.shape)
    for row, name in ((x, "first"), (y, "second")):
        if not row.any():
            raise ValueError(f"{name}: expected an entry other than 0")
    low, high = _least_cosine(x, y), -_least_cosine(x, -y)
    return low, high


def _least_cosine(x: FloatArray, y: FloatArray) -> float:
    signs = np.sign(x) * np.sign(y)
    if (signs < 0).any():
        return -1.0
    counted = (x != 0) | (y != 0)
    if (signs[counted] == 0).any():
        return 0.0
    logs = np.log(np.abs(x[counted])) - np.log(np.abs(y[counted]))
    return float(1 / np.cosh(np.ptp(logs) / 2))


def _row_space(data: FloatArray) -> FloatArray:
    """Return an orthonormal basis of the rows, in the columns, by a factorisation with pivots."""
    Q, R, _ = qr(data.T, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(R))
    return np.asarray(Q[:, : np.count_nonzero(sizes > _ROUNDING * sizes[0])], np.float64)


def _problem(
    X: ArrayLike, ridge: float, search_rank: int, penalty: str
) -> tuple[FloatArray, float, int, int, bool]:
    """Return data of unit size, the ridge in their units, and the even exponent of the unit."""
    data = as_array(X, "X", ndim=2)
    product = one_of(penalty, "penalty", PENALTIES) == "product"
    k = as_count(search_rank, "search_rank", maximum=data.shape[1])
    e = binary_exponent(data)
    e += e % 2
    lam = math.ldexp(as_real(ridge, "ridge", above=0.0), -e * (1 + product))
    if lam == 0.0:
        raise ArithmeticError
    return np.ldexp(data, -e), lam, e, k, product


def _in_units(
    data: FloatArray,
    A: FloatArray,
    B: FloatArray,
    lam: float,
    e: int,
    product: bool,
    change: float,
    status: AutoencoderStatus,
) -> LinearAutoencoder:
    penalty = PENALTIES[not product]
    value = math.ldexp(autoencoder_objective(data, A, B, ridge=lam, penalty=penalty), 2 * e)
    half = 0 if product else e // 2
    return LinearAutoencoder(np.ldexp(A, -half), np.ldexp(B, half), value, change, status)


def _change(new: FloatArray, old: FloatArray) -> float:
    size = float(np.linalg.norm(new))
    return float(np.linalg.norm(new - old)) / size if size > 0 else float(old.any())
