r"""The inner maxima of the sparse semi-dual: columns of a plan at one potential, and how they move.

A column of mass b maximises, over $t\ge0$ with $1^\top t=b$ and scores s,

$$\langle s,t\rangle-\frac\gamma2\|t\|_k^2-\frac\delta2\|t\|^2,\qquad
\|t\|_k^2=\min\Big\{\sum_i\frac{t_i^2}{z_i}:0\le z\le1,\;1^\top z\le k\Big\}.$$

Sorted by score, the first r entries have z = 1 and t = (s - nu) / (gamma + delta), those up to e
have 0 < z = t / tau < 1 and t = (s - nu - gamma tau) / delta, and the others are zero. So the
column is piecewise linear in the scores; its Jacobian is a diagonal less two squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.sparse.linalg import splu

from theorylab._validation import FloatArray
from theorylab.numerics.compiled import compiled

__all__ = ["Columns", "Curvature", "support_norms"]

IntArray = NDArray[np.int64]

_FILLED = 12  # pairs of entries a row, beyond which a matrix is factored as a dense one
_CROWDED = 0.02  # part of all pairs, beyond which a matrix product adds them faster


class Columns:
    """The columns at one potential, the entries of each sorted by score: of them the first ``full``
    have z = 1 and the others 0 < z < 1 in the k-support norm."""

    def __init__(self, scores: FloatArray, b: FloatArray, gamma: float, k: int):
        self.scores = np.array(scores, order="C")
        self.b, self.gamma, self.k = b, gamma, k
        m, self.n = self.scores.shape
        self.start = np.zeros(m + 1, np.int64)
        self.full = np.zeros(m, np.int64)
        self.nu, self.value = np.zeros(m), np.zeros(m)
        self.sums: FloatArray = np.zeros(self.n)
        self._scratch = np.empty(self.n), np.empty(self.n, np.int64), np.empty(self.n)
        self._row, self._mass = np.empty(8 * (self.n + m), np.int64), np.empty(8 * (self.n + m))

    @property
    def cols(self) -> IntArray:
        """Column of each entry."""
        return np.repeat(np.arange(self.b.size), np.diff(self.start))

    @property
    def mixed(self) -> NDArray[np.bool_]:
        """Whether z < 1, for each entry."""
        return np.arange(self.mass.size) >= (self.start[:-1] + self.full)[self.cols]

    def project(self, f: FloatArray, delta: float) -> float:
        """Move to f; return the sum of the inner maxima."""
        problem = f, self.scores, self.b, self.k, self.gamma, delta
        while True:
            self.sums = np.zeros(self.n)
            state = self.start, self.full, self.nu, self.value, self.sums
            _project(*problem, *self._scratch, *state, self._row, self._mass)
            end = self.start[-1]
            if end <= self._row.size:
                break
            self._row, self._mass = np.empty(2 * end, np.int64), np.empty(2 * end)
        self.rows, self.mass = self._row[:end], self._mass[:end]
        return float(self.value.sum())

    def semidual(self, f: FloatArray, a: FloatArray, delta: float) -> tuple[float, FloatArray]:
        """Move to f; return the value and the gradient of the proximal semi-dual."""
        total = self.project(f, delta)
        return float(f @ a) - total, a - self.sums

    def entries(self, share: float) -> tuple[IntArray, IntArray, FloatArray]:
        """Return rows, columns and masses of more than that share of their column."""
        cols = self.cols
        kept = self.mass > share * self.b[cols]
        return self.rows[kept], cols[kept], self.mass[kept]

    def curvature(self, delta: float) -> Curvature:
        """Sum the Jacobians of the columns: diag(p, 1/delta) - v v^T / (1^T v) - block, with v = p
        on the full entries and w on the mixed ones, the block constant on the latter."""
        p, q = 1 / (self.gamma + delta), 1 / delta if delta > 0 else 0.0  # no mixed entries then
        size, spare = np.diff(self.start), self.k - self.full
        mixed = size - self.full
        some = mixed > 0
        h = np.where(some, mixed * self.gamma + delta * spare, 1.0)
        w: FloatArray = np.where(some, spare / h, 0.0)
        weights: FloatArray = 1 / (self.full * p + mixed * w)
        block: FloatArray = np.where(some, self.gamma * q / h, 0.0)
        cols, inner = self.cols, self.mixed
        v: FloatArray = np.where(inner, w[cols], p)
        diagonal = np.bincount(self.rows, np.where(inner, q, p), self.n)
        if size @ size > _FILLED * self.n:
            matrix: FloatArray = np.diag(diagonal)
            matrix -= self._square(v * np.sqrt(weights)[cols])
            if some.any():
                matrix -= self._square(np.where(inner, np.sqrt(block)[cols], 0.0))
            return Curvature(matrix)
        # All pairs of entries of a column.
        column = np.repeat(np.arange(size.size), size**2)
        pair = np.arange(column.size) - (np.cumsum(size**2) - size**2)[column]
        c, d = (self.start[column] + part for part in np.divmod(pair, size[column]))
        values = -weights[column] * v[c] * v[d] - block[column] * (inner[c] & inner[d])
        ends = (np.concatenate([np.arange(self.n), self.rows[e]]).astype(np.int32) for e in (c, d))
        data = np.concatenate([diagonal, values])
        entries = sparse.coo_array((data, tuple(ends)), shape=(self.n, self.n))
        return Curvature(entries.tocsc())

    def _square(self, values: FloatArray) -> FloatArray:
        """Return the sum of the squares of columns with these values at the entries."""
        root = sparse.csc_array((values, self.rows, self.start), (self.n, self.b.size))
        if root.nnz > 0.2 * self.n * self.b.size:
            dense: FloatArray = root.toarray()
            return dense @ dense.T
        product: FloatArray = (root @ root.T).toarray()
        return product


@dataclass(frozen=True, eq=False)
class Curvature:
    """Minus the Hessian of the semi-dual, positive semidefinite, dense or sparse with its whole
    diagonal."""

    matrix: FloatArray | sparse.csc_array

    def solve(self, slope: FloatArray, damping: float) -> FloatArray:
        """Return a regularised Newton step; what rounding leaves singular is damped more."""
        diagonal = self.matrix.diagonal()
        floor = np.finfo(np.float64).eps * float(diagonal.max())
        while True:
            shifted = self.matrix.copy()
            if isinstance(shifted, np.ndarray):
                shifted.flat[:: slope.size + 1] += damping
                factor, singular = dpotrf(shifted.T, lower=1, overwrite_a=1, clean=0)
                if not singular:
                    step: FloatArray = dpotrs(factor, slope, lower=1)[0]
                    return step
            else:
                column = np.repeat(np.arange(slope.size), np.diff(shifted.indptr))
                shifted.data[shifted.indices == column] = diagonal + damping
                try:
                    return splu(
                        shifted,
                        "MMD_AT_PLUS_A",
                        diag_pivot_thresh=0.0,
                        options={"SymmetricMode": True},
                    ).solve(slope)
                except RuntimeError:
                    pass
            damping = max(16 * damping, floor)


def support_norms(cols: IntArray, mass: FloatArray, k: int, m: int) -> float:
    """Sum over m columns of their squared k-support norms, for entries in any order."""
    counts = np.bincount(cols, minlength=m)
    full = np.flatnonzero(counts > k)
    total = float(mass @ mass)
    if full.size == 0:
        return total
    order = np.lexsort((-mass, cols))
    cols, mass, start = cols[order], mass[order], np.cumsum(counts) - counts
    top, beyond = mass[start[full, None] + np.arange(k)], np.arange(mass.size) >= (start + k)[cols]

    def rest(power: int) -> FloatArray:
        """Sums of powers from each of the k largest on."""
        tail = np.bincount(cols, np.where(beyond, mass**power, 0.0), m)[full, None]
        sums: FloatArray = np.cumsum(top[:, ::-1] ** power, axis=1)[:, ::-1] + tail
        return sums

    # The first entries have z = 1, as long as they exceed the level of the others.
    level = rest(1) / np.arange(k, 0, -1)
    first = np.argmax(top <= level * (1 + 1e-15), axis=1)[:, None]
    mixed = rest(1) * level - rest(2)
    return total + float(np.take_along_axis(mixed, first, axis=1).sum())


@compiled
def _top(
    f: FloatArray,
    scores: FloatArray,
    reach: float,
    best: FloatArray,
    row: IntArray,
    score: FloatArray,
) -> int:
    """Collect the rows whose score is within reach of the largest, sorted descending (Shell): as
    an entry is at most b, no other has mass. ``best`` takes the largest of every eighth score."""
    n = f.size
    part = -(-n // 8)
    for i in range(part):
        best[i] = f[i] - scores[i]
    for first in range(part, n, part):
        for i in range(min(part, n - first)):
            x = f[first + i] - scores[first + i]
            best[i] = x if x > best[i] else best[i]
    top = -np.inf
    for i in range(part):
        top = max(top, best[i])
    least = top - reach
    size = 0
    for first in range(part):
        if best[first] >= least:
            for i in range(first, n, part):
                x = f[i] - scores[i]
                if x >= least:
                    row[size], score[size] = i, x
                    size += 1
    gap = size // 2
    while gap > 0:
        for c in range(gap, size):
            x, i = score[c], row[c]
            d = c
            while d >= gap and score[d - gap] < x:
                score[d], row[d] = score[d - gap], row[d - gap]
                d -= gap
            score[d], row[d] = x, i
        gap = gap * 5 // 11 if gap > 2 else gap - 1
    return size


@compiled
def _levels(
    score: FloatArray, size: int, k: int, gamma: float, delta: float, b: float
) -> tuple[int, int, float, float]:
    """Solve one column with sorted scores: return (r, e, nu, tau). Entries t of the first r are
    (s - nu) / (gamma + delta) >= tau, those up to e (s - nu - gamma tau) / delta in (0, tau),
    so that tau > 0 needs no test."""
    G = gamma + delta
    total, active, nu = 0.0, 0, 0.0
    for c in range(min(size, k)):
        if c > 0 and score[c] * c - total + G * b <= 0:
            break
        total += score[c]
        active = c + 1
        nu = (total - G * b) / active
    # The k largest keep all mass if some level tau separates them from the next score.
    if active < k or size == k or delta == 0 or G * (score[k] - nu) <= gamma * (score[k - 1] - nu):
        return active, active, nu, 0.0
    best, answer = np.inf, (active, active, nu, 0.0)
    upto = total
    for e in range(k + 1, size + 1):
        upto += score[e - 1]
        top = total
        for r in range(k - 1, -1, -1):
            top -= score[r]
            h = (e - r) * gamma + delta * (k - r)
            w = (k - r) / h
            nu = (top / G + w * (upto - top) - b) / (r / G + w * (e - r))
            tau = (upto - top - (e - r) * nu) / h
            off = max(score[r] - nu - G * tau, gamma * tau - score[e - 1] + nu)
            if r > 0:
                off = max(off, G * tau - score[r - 1] + nu)
            if e < size:
                off = max(off, score[e] - nu - gamma * tau)
            if off < best:
                best, answer = off, (r, e, nu, tau)
            if off <= 0:
                return answer
    return answer


@compiled
def _project(
    f: FloatArray,
    scores: FloatArray,
    b: FloatArray,
    k: int,
    gamma: float,
    delta: float,
    best: FloatArray,
    row: IntArray,
    score: FloatArray,
    start: IntArray,
    full: IntArray,
    nu: FloatArray,
    value: FloatArray,
    sums: FloatArray,
    rows: IntArray,
    mass: FloatArray,
) -> None:
    """Project every column; where the room for entries is too small, only count them."""
    G = gamma + delta
    for j in range(b.size):
        size = _top(f, scores[j], G * b[j], best, row, score)
        r, end, nu[j], tau = _levels(score, size, k, gamma, delta, b[j])
        full[j], start[j + 1], value[j] = r, start[j] + end, 0.0
        if start[j + 1] > rows.size:
            continue
        for c in range(end):
            if c < r:
                t = max(score[c] - nu[j], 0.0) / G
                cost = G * t
            else:
                t = max(score[c] - nu[j] - gamma * tau, 0.0) / delta
                cost = gamma * tau + delta * t
            rows[start[j] + c], mass[start[j] + c] = row[c], t
            value[j] += t * (score[c] - cost / 2)
            sums[row[c]] += t
