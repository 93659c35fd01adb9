r"""The row space of the data, and one row for every line that its rows span.

Rows may be nearly dependent: with any matrix B of norm at most $1+\delta$ and any $\hat
X$, $h_v(u)\le(1+\delta)\max\hat h_v+\sum_i|v_i|\,\|x_i-B^\top\hat x_i\|$, so a rank-deficient
problem is decided in its row space and the remainder is added to the bound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import fsum

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
    first, twin, power
        Rows of which no other is exactly a power of two times them, or its negative, shape (k,),
        and ``data[i] = power[i] * data[first[twin[i]]]``, without an error.
    """

    data: FloatArray
    basis: FloatArray
    remainder: FloatArray
    excess: float
    lines: FloatArray
    index: NDArray[np.intp]
    ratio: FloatArray
    first: NDArray[np.intp]
    twin: NDArray[np.intp]
    power: FloatArray

    @cached_property
    def norms(self) -> FloatArray:
        """Of the rows of ``data``."""
        result: FloatArray = np.linalg.norm(self.data, axis=1)
        return result

    @cached_property
    def line_norms(self) -> FloatArray:
        """Of the rows of ``lines``."""
        result: FloatArray = np.linalg.norm(self.lines, axis=1)
        return result

    @cached_property
    def _lossless(self) -> bool:
        return len(self.lines) == len(self.data) and not self.remainder.any()

    def condense(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return V and l with ``h_v(u) = V @ relu(lines @ u) + l @ u``, by ``relu(-z) = relu(z) -
        z``.

        A kink that is convex in one row and concave in another of the same line is one kink of
        their sum."""
        if len(self.lines) == len(v):
            return v, np.zeros(self.lines.shape[1])
        weight, linear = self._merged(v)
        ratio, index = self.ratio[self.first], self.index[self.first]
        weight, linear = weight * np.abs(ratio), linear * ratio
        total, opposite = np.zeros(len(self.lines)), np.zeros(len(self.lines))
        np.add.at(total, index, weight)
        np.add.at(opposite, index, linear + np.where(ratio < 0.0, -weight, 0.0))
        return total, opposite @ self.lines

    def _merged(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return W and l with ``h_v(u) = sum_k W_k relu(x_k @ u) + l_k x_k @ u`` over the first
        rows of their kind; every sum is rounded once, however much cancels."""
        if len(self.first) == len(v):
            return v, np.zeros(len(v))
        total: list[list[float]] = [[] for _ in self.first]
        opposite: list[list[float]] = [[] for _ in self.first]
        for k, w, c in zip(self.twin, v * np.abs(self.power), self.power, strict=True):
            total[k].append(w)
            if c < 0.0:
                opposite[k].append(-w)
        return np.array([fsum(t) for t in total]), np.array([fsum(t) for t in opposite])

    def loss(self, v: FloatArray) -> float:
        """Bound the difference of the full and the reduced h on unit vectors."""
        if self._lossless:
            return 0.0
        n, d = self.remainder.size, self.basis.shape[1]
        size = sum(np.abs(part) for part in self._merged(v))
        result = float(size @ self.remainder[self.first])
        if len(self.lines) < n:
            # Rounding of the condensed sums.
            result += 4.0 * (n + d) * _EPS * float(size @ self.norms[self.first])
        return float(result * (1.0 + (n + d) * _EPS))

    def crude(self, v: FloatArray) -> float:
        """Bound the full maximum by the sum of the lines' terms."""
        return self.enlarge(v, self._terms(v))

    def cancels(self, v: FloatArray) -> bool:
        """Whether the terms of every line add up to what evaluating them may round by; relative
        changes of the data or of v by as much make them zero."""
        n, d = self.data.shape
        size = float(np.abs(v) @ self.norms)
        return bool(self._terms(v) <= 4.0 * (n + d + 4) * _EPS * size)

    def _terms(self, v: FloatArray) -> float:
        point, linear = self.condense(v)
        terms = np.abs(point) @ self.line_norms + np.sqrt(linear @ linear)
        return float(terms * (1.0 + 2.0 * (len(v) + self.data.shape[1]) * _EPS))

    def enlarge(self, v: FloatArray, norm: float) -> float:
        """Return what the full maximum is at most if the reduced one is at most ``norm``."""
        return float((norm * (1.0 + self.excess) + self.loss(v)) * (1.0 + 4.0 * _EPS))

    def rounded(self, v: FloatArray, norm: float) -> float:
        """Return what the maximum of a multiple of v is at most, in units of the multiple, whose
        entries are rounded one by one: where terms cancel, that is not small beside ``norm``."""
        return norm + _EPS * float(np.abs(v) @ self.norms)

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
    first, twin, power = _group_twins(X)
    # Twins differ by their power alone, in every digit.
    if rank < d:
        data = np.ascontiguousarray(power[:, None] * data[first][twin])
        remainder = np.abs(power) * remainder[first][twin]
    index, ratio, error = _group_lines(data[first])
    lines, index = np.unique(index, return_inverse=True)
    return Reduction(
        data,
        basis,
        remainder + np.abs(power) * error[twin],
        excess,
        np.ascontiguousarray(data[first][lines]),
        index[twin],
        power * ratio[twin],
        first,
        twin,
        power,
    )


def _group_twins(
    X: FloatArray,
) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """Return the first row of every kind, the kind of every row, and the power of two, or its
    negative, by which it is multiplied; zeros are of one kind."""
    size = np.abs(X).max(axis=1)
    leading = np.take_along_axis(X, (X != 0.0).argmax(axis=1)[:, None], axis=1)[:, 0]
    unit = np.copysign(2.0 ** np.floor(np.log2(np.where(size > 0.0, size, 1.0))), leading)
    # No quotient underflows, nor does one of two units overflow.
    exact = np.all(X / unit[:, None] * unit[:, None] == X, axis=1)
    unit[~exact | (np.abs(np.log2(np.abs(unit))) > 500.0)] = 1.0
    # Adding zero removes its sign.
    keys = [row.tobytes() for row in X / unit[:, None] + 0.0]
    kinds = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    twin = np.array([kinds[key] for key in keys])
    _, first = np.unique(twin, return_index=True)
    return first, twin, unit / unit[first][twin]


def _group_lines(data: FloatArray) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Return, for every row, a row on its line, their ratio, and a bound of the difference."""
    n, d = data.shape
    index, ratio, error = np.arange(n), np.ones(n), np.zeros(n)
    lengths = np.linalg.norm(data, axis=1)
    nonzero = np.flatnonzero(lengths)
    # Of lengths that underflow.
    zero = np.flatnonzero(lengths == 0.0)
    error[zero] = np.abs(data[zero]).sum(axis=1)
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
    index[zero], ratio[zero] = index[nonzero[0]], 0.0
    return index, ratio, error
