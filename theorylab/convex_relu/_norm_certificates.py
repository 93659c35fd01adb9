"""Rigorous bounds of the least weight penalty of a network's own outputs.

The outputs are formed in exact rational arithmetic, so that the network fits them without any
rounding; a multiplier bounds every network that fits them once the spectral norm it is divided by
is bounded by a proof of definiteness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flint import arb, ctx, fmpq, fmpq_mat
from numpy.typing import ArrayLike

from theorylab._validation import as_array, one_of, refuses_overflow
from theorylab.convex_relu._parallel import PENALTIES, Branches, as_branches
from theorylab.numerics.balls import above, below, rational, rational_matrix
from theorylab.numerics.bounds import Bounds

__all__ = ["certify_linear", "certify_rank_one_relu"]

_BITS = 256


@refuses_overflow("X", "dual_point")
def certify_linear(
    X: ArrayLike,
    branches: Sequence[Sequence[ArrayLike]],
    dual_point: ArrayLike,
    *,
    penalty: str = "squared",
) -> Bounds:
    r"""Bound the least penalty of the outputs of a deep linear network rigorously from both sides.

    The target is the network's own output on X, formed in exact rational arithmetic, so that the
    network fits it without any rounding. The dual point, scaled to ``||X^T Lambda||_2 <= 1`` with a
    spectral norm bounded by an LDL^T factorization in ball arithmetic, gives the lower bound.

    Parameters
    ----------
    X
        (n, d) inputs.
    branches
        ``branches[j][l]`` is the weight matrix of layer ``l`` in branch ``j``.
    dual_point
        (n, k) multiplier; any matrix gives a valid bound.
    penalty
        ``"squared"`` or ``"power"``.

    Examples
    --------
    >>> from theorylab.convex_relu import certify_linear
    >>> bounds = certify_linear([[1.0]], [([[1.0]], [[1.0]])], [[1.0]])
    >>> bounds.lower <= bounds.upper
    True
    """
    X = as_array(X, "X", ndim=2)
    checked = as_branches(branches, n_inputs=X.shape[1])
    dual_point = as_array(dual_point, "dual_point", shape=(X.shape[0], checked[0][-1].shape[1]))
    penalty = one_of(penalty, "penalty", PENALTIES)
    inputs, multiplier = rational_matrix(X), rational_matrix(dual_point)
    return _certificate(
        _exact_output(inputs, checked, relu=False), checked, multiplier, [inputs], penalty
    )


@refuses_overflow("c", "a", "dual_point")
def certify_rank_one_relu(
    c: ArrayLike,
    a: ArrayLike,
    branches: Sequence[Sequence[ArrayLike]],
    dual_point: ArrayLike,
    *,
    penalty: str = "squared",
) -> Bounds:
    r"""Bound the least penalty of the outputs of a three-layer ReLU network on ``X = c a^T``
    rigorously from both sides.

    As :func:`certify_linear`; a branch sees either the rows with ``c > 0`` or those with ``c < 0``,
    so that the dual point has to satisfy ``|lambda^T max(c, 0)| ||a|| <= 1`` and the same for
    ``max(-c, 0)``.

    Parameters
    ----------
    c
        (n,) positions of the samples on the line.
    a
        (d,) direction of the line.
    branches
        Weights of every branch: three layers, one output.
    dual_point
        (n, 1) multiplier; any vector gives a valid bound.
    penalty
        ``"squared"`` or ``"power"``.

    Examples
    --------
    >>> from theorylab.convex_relu import certify_rank_one_relu
    >>> branch = ([[1.0]], [[1.0]], [[1.0]])
    >>> bounds = certify_rank_one_relu([1.0], [1.0], [branch], [[1.0]])
    >>> bounds.lower <= bounds.upper
    True
    """
    c = as_array(c, "c", ndim=1)
    a = as_array(a, "a", ndim=1)
    checked = as_branches(branches, n_inputs=a.size)
    if len(checked[0]) != 3 or checked[0][-1].shape[1] != 1:
        raise ValueError(
            "branches: expected three layers and one output, got shapes "
            f"{[W.shape for W in checked[0]]}"
        )
    dual_point = as_array(dual_point, "dual_point", shape=(c.size, 1))
    penalty = one_of(penalty, "penalty", PENALTIES)
    direction = rational_matrix(a[None, :])
    halves = [rational_matrix(np.maximum(sign * c, 0)[:, None]) * direction for sign in (1, -1)]
    target = _exact_output(rational_matrix(c[:, None]) * direction, checked, relu=True)
    return _certificate(target, checked, rational_matrix(dual_point), halves, penalty)


def _exact_output(inputs: fmpq_mat, branches: Branches, *, relu: bool) -> fmpq_mat:
    total = fmpq_mat(inputs.nrows(), branches[0][-1].shape[1])
    for branch in branches:
        hidden = inputs
        for W in branch[:-1]:
            hidden = hidden * rational_matrix(W)
            if relu:
                entries = [max(entry, fmpq(0)) for entry in hidden.entries()]
                hidden = fmpq_mat(hidden.nrows(), hidden.ncols(), entries)
        total += hidden * rational_matrix(branch[-1])
    return total


def _certificate(
    target: fmpq_mat, branches: Branches, multiplier: fmpq_mat, inputs: list[fmpq_mat], penalty: str
) -> Bounds:
    depth = len(branches[0])
    inner = sum(
        (p * q for p, q in zip(multiplier.entries(), target.entries(), strict=True)), fmpq(0)
    )
    norm = max(_squared_norm_bound(part.transpose() * multiplier) for part in inputs)
    with ctx.workprec(_BITS):
        cost = arb(0)
        for branch in branches:
            for W in branch:
                square = arb(sum((w * w for w in rational_matrix(W).entries()), fmpq(0)))
                cost += square if penalty == "squared" else square ** (arb(depth) / 2)
        lower = 0.0
        if inner > 0:  # then the multiplier does not vanish on the inputs
            gauge = (arb(inner) ** 2 / arb(norm)).sqrt()
            gauge = gauge ** (arb(2) / depth) if penalty == "squared" else gauge
            lower = max(lower, below(gauge * depth / 2))
        return Bounds(upper=above(cost / 2) if cost != 0 else 0.0, lower=lower)


def _squared_norm_bound(matrix: fmpq_mat) -> fmpq:
    """Return a rational not below the squared spectral norm: ``bound I - matrix^T matrix`` has
    positive pivots."""
    if matrix.ncols() > matrix.nrows():
        matrix = matrix.transpose()
    gram = matrix.transpose() * matrix
    size = gram.nrows()
    trace = sum((gram[i, i] for i in range(size)), fmpq(0))
    if trace == 0:
        return trace
    # Shares of the trace neither underflow nor overflow.
    gram /= trace
    entries = [int(q.p) / int(q.q) for q in gram.entries()]
    estimate = float(np.linalg.eigvalsh(np.reshape(entries, (size, size)))[-1])
    slack = 1e-16
    while not _is_positive_definite(bound := rational(estimate * (1 + slack)), gram):
        slack *= 4
    return bound * trace


def _is_positive_definite(shift: fmpq, gram: fmpq_mat) -> bool:
    """Whether elimination in ball arithmetic proves ``shift I - gram`` positive definite."""
    size = gram.nrows()
    with ctx.workprec(_BITS):
        rows = [
            [arb((shift if i == j else fmpq(0)) - gram[i, j]) for j in range(size)]
            for i in range(size)
        ]
        for pivot in range(size):
            if not rows[pivot][pivot] > 0:
                return False
            for i in range(pivot + 1, size):
                ratio = rows[i][pivot] / rows[pivot][pivot]
                for j in range(pivot + 1, size):
                    rows[i][j] -= ratio * rows[pivot][j]
    return True
