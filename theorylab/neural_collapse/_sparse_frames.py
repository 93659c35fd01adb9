"""Simplex frames with fixed supports: where one exists, and where none can."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from theorylab._validation import FloatArray, as_count, as_instance, as_real
from theorylab.neural_collapse._frames import simplex_etf
from theorylab.neural_collapse._spread_centres import as_rows
from theorylab.numerics.results import result

__all__ = [
    "SparseEtf",
    "SparseStatus",
    "disjoint_pairs",
    "random_supports",
    "sparse_etf",
]


class SparseStatus(StrEnum):
    """What was found out about a simplex frame with fixed supports."""

    EXISTS = "a frame exists: Newton's method converges from the weights found (Kantorovich's test)"
    DISJOINT = (
        "there is none: two supports are disjoint, so that the Gram matrix errs by 1/(K-1) at least"
    )
    UNDECIDED = "no frame was found, and no two supports are disjoint"


@result
class SparseEtf:
    """The best simplex frame found for fixed supports.

    Attributes
    ----------
    weights
        (K, d), zero off the supports.
    error
        Largest deviation of an entry of the Gram matrix from that of a simplex frame.
    kantorovich
        Twice the residual over the squared smallest singular value of the Jacobian; below 1/2 an
        exact solution lies nearby. With disjoint supports, of the equations of all other pairs.
    pairs
        (P, 2) pairs of classes with disjoint supports.
    status
        What that means.
    """

    weights: FloatArray
    error: float
    kantorovich: float
    pairs: NDArray[np.int64]
    status: SparseStatus


def random_supports(
    n_classes: int, dimension: int, *, sparsity: float, rng: np.random.Generator
) -> FloatArray:
    """Return (K, d) masks of 0 and 1 with ``round((1 - sparsity) d)`` ones at random places in each
    row, at least one.

    Parameters
    ----------
    n_classes, dimension
        K >= 2 rows of d >= 1 entries.
    sparsity
        Share of zeros, from 0 to 1 (excluded).
    rng
        For the places.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import random_supports
    >>> random_supports(3, 4, sparsity=0.5, rng=np.random.default_rng(0)).sum(axis=1)
    array([2., 2., 2.])
    """
    K, d = as_count(n_classes, "n_classes", minimum=2), as_count(dimension, "dimension")
    share = as_real(sparsity, "sparsity", minimum=0.0, below=1.0)
    as_instance(rng, "rng", np.random.Generator)
    size = max(1, round((1 - share) * d))
    return (rng.random((K, d)).argsort(axis=1) < size).astype(float)


def disjoint_pairs(supports: ArrayLike) -> NDArray[np.int64]:
    """Return the (P, 2) pairs of rows whose supports are disjoint; one pair rules out a simplex
    frame.

    Parameters
    ----------
    supports
        (K, d) masks, non-zero where a weight may be.

    Examples
    --------
    >>> from theorylab.neural_collapse import disjoint_pairs
    >>> disjoint_pairs([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    array([[0, 1]])
    """
    mask = as_rows(supports, "supports") != 0
    return np.argwhere(np.triu(mask.astype(int) @ mask.T.astype(int) == 0, 1))


def sparse_etf(supports: ArrayLike, *, rng: np.random.Generator, restarts: int = 5) -> SparseEtf:
    r"""Look for a simplex frame with fixed supports (xiao2024-fedloge's static sparse classifier).

    A frame's rows sum to zero, so the unknowns are taken in that subspace and the equations are the
    off-diagonal entries of the Gram matrix: they determine the diagonal, and their Jacobian is
    regular in general. With disjoint pairs those are left out and the diagonal is added; the best
    error of any weights is then 1/(K-1) where the other equations can be solved.

    Parameters
    ----------
    supports
        (K, d) masks, non-zero where a weight may be.
    rng
        For the starts.
    restarts
        Largest number of starts of Gauss and Newton's method with a trust region.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import sparse_etf
    >>> found = sparse_etf(np.ones((3, 3)), rng=np.random.default_rng(0))
    >>> found.status.name, bool(found.error < 1e-12)
    ('EXISTS', True)
    """
    mask = as_rows(supports, "supports") != 0
    as_instance(rng, "rng", np.random.Generator)
    K, d = mask.shape
    pairs = disjoint_pairs(mask)
    target = simplex_etf(K, K) @ simplex_etf(K, K).T
    met = mask.astype(int) @ mask.T.astype(int) > 0
    basis = _unknowns(mask, balanced=len(pairs) == 0)
    i, j = np.nonzero(np.triu(met, 1 if len(pairs) == 0 else 0))
    best, least = np.zeros((K, d)), np.inf
    kantorovich = np.inf
    rows = basis.shape[1]
    for _ in range(as_count(restarts, "restarts")):
        if rows == 0:
            break

        def residual(z: FloatArray) -> FloatArray:
            W = (basis @ z).reshape(K, d)
            values: FloatArray = np.sum(W[i] * W[j], axis=1) - target[i, j]
            return values

        def jacobian(z: FloatArray) -> FloatArray:
            W = (basis @ z).reshape(K, d)
            full = np.zeros((i.size, K, d))
            equation = np.arange(i.size)
            full[equation, i] += W[j]
            full[equation, j] += W[i]
            slopes: FloatArray = full.reshape(i.size, -1) @ basis
            return slopes

        z0 = rng.standard_normal(rows) / np.sqrt(max(1.0, mask.sum() / K))
        # Towards a zero of the residual every step gains more than ftol; an end elsewhere need not
        # be exact.
        z = least_squares(
            residual, z0, jac=jacobian, xtol=1e-15, ftol=1e-8, gtol=1e-15, max_nfev=300
        ).x
        W = (basis @ z).reshape(K, d)
        error = float(np.abs(W @ W.T - target).max())
        if error < least:
            best, least = W, error
            # The Jacobian of W W^T is Lipschitz with constant 2, and the basis is orthonormal.
            singular = np.linalg.svd(jacobian(z), compute_uv=False)
            regular = rows >= i.size and singular[-1] > 0
            kantorovich = (
                float(2 * np.linalg.norm(residual(z)) / singular[-1] ** 2) if regular else np.inf
            )
        if kantorovich < 0.5:
            break
    least = least if np.isfinite(least) else float(np.abs(target).max())
    status = (
        SparseStatus.DISJOINT
        if len(pairs)
        else SparseStatus.EXISTS
        if kantorovich < 0.5
        else SparseStatus.UNDECIDED
    )
    return SparseEtf(best, least, kantorovich, pairs, status)


def _unknowns(mask: NDArray[np.bool_], *, balanced: bool) -> FloatArray:
    """Return an orthonormal basis, (K d, p), of the weights with these supports, with rows that sum
    to zero if balanced."""
    K, d = mask.shape
    columns = []
    for c in range(d):
        classes = np.flatnonzero(mask[:, c])
        block = np.eye(classes.size)
        if balanced:
            block = (
                simplex_etf(classes.size, classes.size - 1) * np.sqrt(1 - 1 / classes.size)
                if classes.size > 1
                else block[:, :0]
            )
        for v in block.T:
            column = np.zeros((K, d))
            column[classes, c] = v
            columns.append(column.ravel())
    return np.array(columns).T if columns else np.zeros((K * d, 0))
