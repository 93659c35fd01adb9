"""What the certificates of this theme prove in rationals and balls: definiteness, bounds, roots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from flint import arb, ctx, fmpq, fmpq_mat

from theorylab.numerics.balls import rational

BITS = 128


@contextmanager
def precision(bits: int = BITS) -> Iterator[None]:
    """Evaluate balls with this many bits inside the context."""
    before, ctx.prec = ctx.prec, bits
    try:
        yield
    finally:
        ctx.prec = before


def log_sum_exp(values: Sequence[arb]) -> arb:
    """Enclose ``log(sum(exp(values)))``."""
    shift = max(float(v.mid()) for v in values)
    total = arb(0)
    for v in values:
        total += (v - shift).exp()
    return total.log() + shift


def is_positive_definite(matrix: fmpq_mat) -> bool:
    """Whether elimination in ball arithmetic proves the symmetric matrix positive definite."""
    size = matrix.nrows()
    rows = [[arb(matrix[i, j]) for j in range(size)] for i in range(size)]
    for pivot in range(size):
        if not rows[pivot][pivot] > 0:
            return False
        for i in range(pivot + 1, size):
            ratio = rows[i][pivot] / rows[pivot][pivot]
            for j in range(pivot + 1, size):
                rows[i][j] -= ratio * rows[pivot][j]
    return True


def feasible_scale(matrix: fmpq_mat, weights: Sequence[int], bound: fmpq) -> fmpq:
    """Return a scale t <= 1, close to the largest, with ``t^2 matrix diag(weights) matrix^T <
    bound`` proved.

    ``bound`` is that of the squared spectral norm, positive.
    """
    size, columns = matrix.nrows(), matrix.ncols()
    weighted = fmpq_mat(
        size, columns, [matrix[i, k] * weights[k] for i in range(size) for k in range(columns)]
    )
    gram = weighted * matrix.transpose()
    entries = np.array([[float(arb(gram[i, j]).mid()) for j in range(size)] for i in range(size)])
    largest = float(np.linalg.eigvalsh(entries)[-1])
    limit = float(arb(bound).mid())
    identity = fmpq_mat(size, size, [fmpq(int(i == j)) for i in range(size) for j in range(size)])
    slack = 1e-15
    while True:
        t = rational(min(1.0, np.sqrt(limit / max(largest, np.finfo(float).tiny)) * (1 - slack)))
        if is_positive_definite(identity * bound - gram * (t * t)):
            return t
        slack *= 4


def power(base: arb, numerator: int, denominator: int) -> arb:
    """Enclose ``base^(numerator/denominator)`` for a base that is not negative; zero stays zero."""
    return arb(0) if base == 0 else (base**numerator).root(denominator)


def proves_bound(
    convex: Callable[[arb], tuple[arb, arb]],
    concave: Callable[[arb], arb],
    stop: float,
    bound: arb,
    most: int = 20000,
) -> bool:
    """Whether bisection proves ``convex(x)[0] + concave(x) >= bound`` for every x in [0, stop].

    On an interval the convex part lies above its tangent at the middle (``convex`` returns value
    and slope) and the concave part above its chord, so that their sum is least at an end."""
    intervals = [(0.0, stop)]
    for _ in range(most):
        if not intervals:
            return True
        left, right = intervals.pop()
        middle = (left + right) / 2
        value, slope = convex(arb(middle))
        if all(value + slope * (arb(x) - middle) + concave(arb(x)) >= bound for x in (left, right)):
            continue
        if middle in (left, right):
            return False
        intervals += [(left, middle), (middle, right)]
    return False


def eigenvalues_from_below(matrix: fmpq_mat) -> list[fmpq]:
    """Return rational lower bounds of the eigenvalues, in descending order, of a symmetric positive
    semidefinite matrix.

    By Sylvester's law of inertia: elimination of ``matrix - x`` in ball arithmetic counts the
    eigenvalues above x."""
    size = matrix.nrows()
    entries = np.array([[float(arb(matrix[i, j]).mid()) for j in range(size)] for i in range(size)])
    bounds = []
    for rank, estimate in enumerate(np.linalg.eigvalsh(entries)[::-1], start=1):
        slack = 1e-14 * float(np.abs(entries).max())
        while (x := float(estimate) - slack) > 0 and _eigenvalues_above(matrix, rational(x)) < rank:
            slack *= 3
        bounds.append(rational(max(x, 0.0)))
    return bounds


def _eigenvalues_above(matrix: fmpq_mat, x: fmpq) -> int:
    """Count the eigenvalues above x by the positive pivots; 0, a lower bound, where the sign of a
    pivot is not decided."""
    size = matrix.nrows()
    rows = [[arb(matrix[i, j] - (x if i == j else 0)) for j in range(size)] for i in range(size)]
    positive = 0
    for pivot in range(size):
        if not (rows[pivot][pivot] > 0 or rows[pivot][pivot] < 0):
            return 0
        positive += bool(rows[pivot][pivot] > 0)
        for i in range(pivot + 1, size):
            ratio = rows[i][pivot] / rows[pivot][pivot]
            for j in range(pivot + 1, size):
                rows[i][j] -= ratio * rows[pivot][j]
    return positive
