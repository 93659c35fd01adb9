r"""The row space of the data, and one row for every line that its rows span.

Rows may be nearly dependent: with any matrix B of norm at most $1+\delta$ and any $\hat
X$, $h_v(u)\le(1+\delta)\max\hat h_v+\sum_i|v_i|\,\|x_i-B^\top\hat x_i\|$, so a rank-deficient
problem is decided in its row space and the remainder is added to the bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Reduction:
    """Coordinates of the row space, and what is lost by using them.

    Parameters
    ----------
    data
        Reduced data, shape (n, r).
    basis
        Shape (r, d): a reduced direction s stands for ``basis.T @ s``.
    remainder
        Bounds of ``|x_i - basis.T @ data_i|``, shape (n,).
    excess
        Bound of the basis's norm minus one.
    lines, index, ratio
        One row of ``data`` for every line that its rows span, shape (m, r), and ``data[i] =
        ratio[i] * lines[index[i]]`` up to an error that is part of the remainder.
    """

    data: FloatArray
    basis: FloatArray
    remainder: FloatArray
    excess: float
    lines: FloatArray
    index: NDArray[np.intp]
    ratio: FloatArray

    def condense(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return V and l with ``h_v(u) = V @ relu(lines @ u) + l @ u``, by ``relu(-z) = relu(z) -
        z``.

        A kink that is convex in one row and concave in another of the same line is one kink of
        their sum."""
        if len(self.lines) == len(v):
            return v, np.zeros(self.lines.shape[1])
        weight = v * np.abs(self.ratio)
        total, opposite = np.zeros(len(self.lines)), np.zeros(len(self.lines))
        np.add.at(total, self.index, weight)
        np.add.at(opposite, self.index, np.where(self.ratio < 0.0, -weight, 0.0))
        return total, opposite @ self.lines

    def loss(self, v: FloatArray) -> float:
        """Bound the difference of the full and the reduced h on unit vectors."""
        n, d = self.remainder.size, self.basis.shape[1]
        result = float(np.abs(v) @ self.remainder)
        if len(self.lines) < n:
            # Rounding of the condensed sums.
            result += 4.0 * (n + d) * _EPS * float(np.abs(v) @ np.linalg.norm(self.data, axis=1))
        return float(result * (1.0 + (n + d) * _EPS))

    def enlarge(self, v: FloatArray, norm: float) -> float:
        """Return what the full maximum is at most if the reduced one is at most ``norm``."""
        return float((norm * (1.0 + self.excess) + self.loss(v)) * (1.0 + 4.0 * _EPS))

    def threshold(self, v: FloatArray, beta: float) -> float:
        """Return what the reduced maximum must not exceed so that the full one is at most
        ``beta``."""
        return float((beta - self.loss(v)) / (1.0 + self.excess) * (1.0 - 4.0 * _EPS))


def reduce_rows(X: FloatArray) -> Reduction:
    """Return the row space of X up to rounding; the identity where X has full column rank."""
    n, d = X.shape
    _, s, vt = np.linalg.svd(X, full_matrices=False)
    rank = int(np.sum(s > 4.0 * max(n, d) * _EPS * s[0])) if s[0] > 0.0 else 0
    if rank == d:
        data, basis, remainder, excess = X, np.eye(d), np.zeros(n), 0.0
    else:
        basis = np.ascontiguousarray(vt[:rank])
        data = np.ascontiguousarray(X @ basis.T)
        lengths = np.linalg.norm(X, axis=1) + np.linalg.norm(data, axis=1)
        # Computed differences plus the rounding of the product and of the norms.
        remainder = np.linalg.norm(X - data @ basis, axis=1) + 4.0 * (d + rank) * _EPS * lengths
        excess = (
            float(np.linalg.norm(basis @ basis.T - np.eye(rank))) + 4.0 * (d + rank) ** 2 * _EPS
        )
    index, ratio, error = _group_lines(data)
    lines = np.ascontiguousarray(data[np.unique(index)])
    return Reduction(
        data,
        basis,
        remainder + error,
        excess,
        lines,
        np.searchsorted(np.unique(index), index),
        ratio,
    )


def _group_lines(data: FloatArray) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Return, for every row, a row on its line, their ratio, and a bound of the difference."""
    n, d = data.shape
    index, ratio, error = np.arange(n), np.ones(n), np.zeros(n)
    lengths = np.linalg.norm(data, axis=1)
    nonzero = np.flatnonzero(lengths)
    if d == 0 or nonzero.size == 0:
        return index, ratio, error
    unit = data[nonzero] / lengths[nonzero, None]
    keys = np.abs(unit @ np.random.default_rng(0).standard_normal(d))
    order = np.argsort(keys)
    close = 64.0 * (d + 4) * _EPS
    run: list[int] = []
    for k, previous in zip(order, np.concatenate([[-1], order[:-1]]), strict=True):
        if previous < 0 or keys[k] - keys[previous] > close:
            run = []
        i = int(nonzero[k])
        for j in run:
            c = float(data[i] @ data[j]) / lengths[j] ** 2
            difference = float(np.linalg.norm(data[i] - c * data[j]))
            if difference <= close * lengths[i]:
                index[i], ratio[i] = j, c
                error[i] = difference + 4.0 * (d + 4) * _EPS * lengths[i]
                break
        else:
            run.append(i)
    zero = np.flatnonzero(lengths == 0.0)
    index[zero], ratio[zero] = index[nonzero[0]], 0.0
    return index, ratio, error
