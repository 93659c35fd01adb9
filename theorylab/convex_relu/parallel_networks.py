r"""Duality gaps of deep networks of minimal norm, standard and parallel.

A network with ``m`` parallel branches of depth ``L`` fits the data exactly,

    f(X) = sum_j relu(... relu(X W_1j) ...) W_Lj = Y        (no relu in the linear case),

at the least weight penalty, either ``1/2 sum_jl ||W_jl||_F^2`` ("squared") or ``1/2 sum_jl
||W_jl||_F^L`` ("power"). Every branch may be rescaled so that its layers have equal norm, and what
is left is a gauge of Y whose dual is

    gamma(Y) = max <Lambda, Y>   subject to   |<Lambda, f_j(X)>| <= prod_l ||W_jl||_F   for every
    single branch f_j,

so that the dual value is ``L/2 gamma^(2/L)`` (squared; the dual is taken at fixed scale of the
layers) or ``L/2 gamma`` (power). The gap is zero exactly where splitting the fit over parallel
branches costs no more than the convex gauge. For linear networks gamma is the nuclear norm of ``X^+
Y``, while one branch costs its Schatten-2/L quasi-norm. Theorems: wang2021-parallel; every constant
below is derived here, the paper's text was not consulted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real, one_of, refuses_overflow
from theorylab.convex_relu._parallel import PENALTIES, Branches, network_cost
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.results import result

__all__ = ["MinimumNorm", "linear_minimum_norm", "rank_one_relu_minimum_norm"]

_ARCHITECTURES = ("standard", "parallel")


@result
class MinimumNorm:
    """Exact fit of least weight penalty, with the dual point that bounds it from below.

    Attributes
    ----------
    primal
        Least penalty of an exact fit by the architecture.
    dual
        Value of the dual problem.
    branches
        ``branches[j][l]`` is the weight matrix of layer ``l`` in branch ``j``; together they attain
        ``primal``.
    dual_point
        (n, k) multiplier of the constraint ``f(X) = Y`` that attains ``dual``.
    """

    primal: float
    dual: float
    branches: Branches
    dual_point: FloatArray

    @property
    def gap(self) -> float:
        """Relative duality gap; 0 for the zero network."""
        return relative_gap(self.primal, self.dual)


def linear_minimum_norm(
    X: ArrayLike,
    Y: ArrayLike,
    depth: int,
    *,
    architecture: str = "standard",
    penalty: str = "squared",
) -> MinimumNorm:
    r"""Return the deep linear network of least norm with ``X W_1 ... W_L = Y``, and its dual.

    With ``s`` the singular values of ``X^+ Y`` (widths at least its rank, and at least that many
    branches if parallel):

    ============  =======  =============================  ======================
    architecture  penalty  primal                         dual
    ============  =======  =============================  ======================
    standard      squared  ``L/2 sum s^(2/L)``            ``L/2 (sum s)^(2/L)``
    standard      power    ``L/2 (sum s^(2/L))^(L/2)``    ``L/2 sum s``
    parallel      squared  ``L/2 sum s^(2/L)``            ``L/2 (sum s)^(2/L)``
    parallel      power    ``L/2 sum s``                  ``L/2 sum s``
    ============  =======  =============================  ======================

    Parameters
    ----------
    X
        (n, d) inputs.
    Y
        (n, k) outputs, in the range of X.
    depth
        Number of layers ``L >= 2``.
    architecture
        ``"standard"`` (one branch) or ``"parallel"`` (as many as help).
    penalty
        ``"squared"`` or ``"power"``, see the module docstring.

    Returns
    -------
    MinimumNorm
        Values, balanced weights that attain the primal one, and the dual point ``(X^+)^T U V^T``.

    Raises
    ------
    ValueError
        On bad input, and when Y is not in the range of X.

    Notes
    -----
    wang2021-parallel, theorems on standard and parallel deep linear networks; constants re-derived.
    Singular values below the rounding error of ``X^+ Y`` count as zero, since ``s^(2/L)`` would
    inflate them.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import linear_minimum_norm
    >>> round(linear_minimum_norm(np.eye(2), np.diag([8.0, 1.0]), 3).primal, 9)
    7.5
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(X.shape[0], None))
    depth = as_count(depth, "depth", minimum=2)
    architecture = one_of(architecture, "architecture", _ARCHITECTURES)
    penalty = one_of(penalty, "penalty", PENALTIES)
    inverse = np.linalg.pinv(X)
    W = inverse @ Y
    condition = np.linalg.norm(X, 2) * np.linalg.norm(inverse, 2)
    rounding = np.finfo(float).eps * max(X.shape) * max(condition, 1.0)
    residual = float(np.linalg.norm(X @ W - Y))
    if residual > 10 * rounding * np.linalg.norm(Y):
        raise ValueError(
            f"Y: expected a matrix in the range of X, got one at distance {residual:.3g} from it"
        )
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    rank = max(1, int((s > rounding * s[0]).sum()))
    U, s, Vt = U[:, :rank], s[:rank], Vt[:rank]
    root = s ** (1 / depth)
    n_branches = rank if (architecture, penalty) == ("parallel", "power") else 1
    pieces = np.array_split(np.arange(rank), n_branches)
    branches = tuple(
        (U[:, p] * root[p], *(np.diag(root[p]) for _ in range(depth - 2)), root[p, None] * Vt[p])
        for p in pieces
    )
    return MinimumNorm(
        primal=network_cost(branches, penalty=penalty),
        dual=_value(float(s.sum()), depth, penalty),
        branches=branches,
        dual_point=inverse.T @ (U @ Vt),
    )


@refuses_overflow("c", "a")
def rank_one_relu_minimum_norm(
    c: ArrayLike,
    a: ArrayLike,
    *,
    alpha: float,
    gamma: float,
    architecture: str = "standard",
    penalty: str = "squared",
) -> MinimumNorm:
    r"""Return the three-layer ReLU network of least norm on rank-one data, and its dual.

    Data ``X = c a^T`` and target ``y = alpha max(c, 0) + gamma max(-c, 0)``, the only targets such
    a network can fit. With ``s = (|alpha| + |gamma|) / ||a||`` the dual value is ``3/2 s^(2/3)``
    (squared) or ``3/2 s`` (power). One branch attains it if ``alpha gamma >= 0``. If ``alpha gamma
    < 0`` the units of the last hidden layer split by the sign of their output weight, each half
    serves one half line of the data, and the arithmetic-geometric mean on each half gives the
    larger primal value

        3/2 (|alpha|^(2/3) + |gamma|^(2/3)) ||a||^(-2/3)        (squared; attained at width 2).

    Parallel branches under the power penalty attain the dual value for all signs.

    Parameters
    ----------
    c
        (n,) positions of the samples on the line, with entries of both signs.
    a
        (d,) direction of the line, not zero.
    alpha, gamma
        Slopes of the target on the positive and on the negative half line.
    architecture
        ``"standard"`` (one branch) or ``"parallel"``.
    penalty
        ``"squared"`` or ``"power"``.

    Returns
    -------
    MinimumNorm
        Weights of width at most 2 that attain the primal value, and a dual point in the span of
        ``max(c, 0)``, ``max(-c, 0)``.

    Raises
    ------
    ValueError
        On bad input, and when c has only one sign or a is zero.

    Notes
    -----
    wang2021-parallel states strong duality for three-layer ReLU networks with rank-one data; for
    scalar outputs and whole-network weight decay it needs ``alpha gamma >= 0`` (derived here).

    Examples
    --------
    >>> from theorylab.convex_relu import rank_one_relu_minimum_norm
    >>> best = rank_one_relu_minimum_norm([1.0, -1.0], [1.0], alpha=1.0, gamma=-1.0)
    >>> round(best.primal, 4), round(best.dual, 4)
    (3.0, 2.3811)
    """
    c = as_array(c, "c", ndim=1)
    a = as_array(a, "a", ndim=1)
    alpha = as_real(alpha, "alpha")
    gamma = as_real(gamma, "gamma")
    architecture = one_of(architecture, "architecture", _ARCHITECTURES)
    penalty = one_of(penalty, "penalty", PENALTIES)
    if c.min() >= 0 or c.max() <= 0:
        raise ValueError(f"c: expected entries of both signs, got values in [{c.min()}, {c.max()}]")
    length = float(np.linalg.norm(a))
    if length == 0:
        raise ValueError("a: expected a non-zero direction, got the zero vector")
    direction = (a / length)[:, None]
    halves = np.array([alpha, gamma])
    scaled = np.abs(halves) / length
    signs = np.sign(halves)
    first = np.hstack([direction, -direction])
    if signs[0] * signs[1] < 0:  # the product of the slopes may underflow
        rho = np.cbrt(scaled)
        paths = [
            (first[:, [h]] * rho[h], rho[h].reshape(1, 1), (signs[h] * rho[h]).reshape(1, 1))
            for h in range(2)
        ]
        joint = (first * rho, np.diag(rho), (signs * rho)[:, None])
        branches: Branches = (
            tuple(paths) if (architecture, penalty) == ("parallel", "power") else (joint,)
        )
    else:
        # Both half lines share the one last hidden unit, whose output weight is the cube root of
        # the total.
        output = np.cbrt(scaled.sum())
        inner = np.sqrt(scaled / output) if output else scaled
        branches = (
            (first * inner, inner[:, None], (np.sign(alpha + gamma) * output).reshape(1, 1)),
        )
    positive, negative = np.maximum(c, 0), np.maximum(-c, 0)
    multiplier = (
        signs[0] * positive / (positive @ positive) + signs[1] * negative / (negative @ negative)
    ) / length
    return MinimumNorm(
        primal=network_cost(branches, penalty=penalty),
        dual=_value(float(scaled.sum()), 3, penalty),
        branches=branches,
        dual_point=multiplier[:, None],
    )


def _value(gauge: float, depth: int, penalty: str) -> float:
    return depth / 2 * (gauge ** (2 / depth) if penalty == "squared" else gauge)
