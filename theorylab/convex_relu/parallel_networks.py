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

from collections.abc import Sequence
from itertools import pairwise, product
from math import inf, nextafter
from typing import Any

import numpy as np
from flint import arb, ctx, fmpq, fmpq_mat
from numpy.typing import ArrayLike
from scipy.linalg import block_diag
from scipy.optimize import minimize

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_real,
    one_of,
    refuses_overflow,
)
from theorylab.convex_relu.arrangements import enumerate_arrangements
from theorylab.numerics.balls import rational, rational_matrix
from theorylab.numerics.bounds import Bounds, relative_gap
from theorylab.numerics.results import result

__all__ = [
    "FactoredFit",
    "MinimumNorm",
    "NormSearch",
    "ShrinkageJump",
    "branch_dual_norm",
    "certify_linear",
    "certify_rank_one_relu",
    "fit_factored",
    "linear_minimum_norm",
    "network_cost",
    "network_output",
    "parallel_relu_minimum_norm",
    "rank_one_relu_minimum_norm",
    "search_minimum_norm",
    "shrink_singular_values",
    "shrinkage_jump",
]

Branches = tuple[tuple[FloatArray, ...], ...]
Layout = list[list[tuple[slice, tuple[int, int]]]]

_PENALTIES = ("squared", "power")
_ARCHITECTURES = ("standard", "parallel")
_CERTIFICATE_BITS = 256
# A soft start would let the penalty pull the product of three or more layers to the stationary
# point zero.
_FIRST_STIFFNESS = 300.0
_LAST_STIFFNESS = 1e8


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


@result
class NormSearch:
    """Best exact fit found by local search.

    Attributes
    ----------
    primal
        Its penalty; infinite where no start ended at an exact fit.
    branches
        Its weights; empty where no start ended at an exact fit.
    ends
        Penalty at the end of every start that was made, infinite where the fit is not exact; shape
        (n_starts,), or shorter where a target ended the search.
    """

    primal: float
    branches: Branches
    ends: FloatArray


@result
class FactoredFit:
    """Best end of descent on the layers of one network with weight decay.

    Attributes
    ----------
    objective
        Its value.
    layers
        Its weights.
    outputs
        (n, k) its outputs.
    ends
        Value at the end of every start.
    """

    objective: float
    layers: tuple[FloatArray, ...]
    outputs: FloatArray
    ends: FloatArray


@result
class ShrinkageJump:
    """Where weight decay sends a singular value to zero, and how far it jumps.

    Attributes
    ----------
    threshold
        Singular values of the data up to here are fitted by zero.
    height
        Fitted value just above the threshold; 0 if shrinkage is continuous.
    """

    threshold: float
    height: float


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
    penalty = one_of(penalty, "penalty", _PENALTIES)
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
    penalty = one_of(penalty, "penalty", _PENALTIES)
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
    if alpha * gamma < 0:
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


def network_cost(branches: Sequence[Sequence[ArrayLike]], *, penalty: str = "squared") -> float:
    """Return ``1/2 sum ||W||_F^2`` (squared) or ``1/2 sum ||W||_F^L`` (power) over all layers of
    all branches.

    Parameters
    ----------
    branches
        ``branches[j][l]`` is the weight matrix of layer ``l`` in branch ``j``.
    penalty
        ``"squared"`` or ``"power"``.

    Examples
    --------
    >>> from theorylab.convex_relu import network_cost
    >>> network_cost([([[2.0]], [[1.0]])])
    2.5
    """
    checked = _as_branches(branches)
    penalty = one_of(penalty, "penalty", _PENALTIES)
    exponent = 2 if penalty == "squared" else len(checked[0])
    return 0.5 * float(sum(np.linalg.norm(W) ** exponent for branch in checked for W in branch))


def network_output(
    X: ArrayLike, branches: Sequence[Sequence[ArrayLike]], *, activation: str = "linear"
) -> FloatArray:
    """Return the (n, k) outputs of a parallel network.

    Parameters
    ----------
    X
        (n, d) inputs.
    branches
        ``branches[j][l]`` is the weight matrix of layer ``l`` in branch ``j``.
    activation
        ``"linear"`` or ``"relu"`` (after every layer but the last).

    Examples
    --------
    >>> from theorylab.convex_relu import network_output
    >>> network_output([[1.0], [-1.0]], [([[2.0]], [[1.0]])])
    array([[ 2.],
           [-2.]])
    """
    X = as_array(X, "X", ndim=2)
    checked = _as_branches(branches, n_inputs=X.shape[1])
    activation = one_of(activation, "activation", ("linear", "relu"))
    total = np.zeros((X.shape[0], checked[0][-1].shape[1]))
    for branch in checked:
        hidden = X
        for W in branch[:-1]:
            hidden = hidden @ W
            if activation == "relu":
                hidden = np.maximum(hidden, 0)
        total += hidden @ branch[-1]
    return total


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
    checked = _as_branches(branches, n_inputs=X.shape[1])
    dual_point = as_array(dual_point, "dual_point", shape=(X.shape[0], checked[0][-1].shape[1]))
    penalty = one_of(penalty, "penalty", _PENALTIES)
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
    checked = _as_branches(branches, n_inputs=a.size)
    if len(checked[0]) != 3 or checked[0][-1].shape[1] != 1:
        raise ValueError(
            "branches: expected three layers and one output, got shapes "
            f"{[W.shape for W in checked[0]]}"
        )
    dual_point = as_array(dual_point, "dual_point", shape=(c.size, 1))
    penalty = one_of(penalty, "penalty", _PENALTIES)
    direction = rational_matrix(a[None, :])
    halves = [rational_matrix(np.maximum(sign * c, 0)[:, None]) * direction for sign in (1, -1)]
    target = _exact_output(rational_matrix(c[:, None]) * direction, checked, relu=True)
    return _certificate(target, checked, rational_matrix(dual_point), halves, penalty)


def search_minimum_norm(
    X: ArrayLike,
    Y: ArrayLike,
    widths: Sequence[int],
    *,
    n_branches: int = 1,
    activation: str = "linear",
    penalty: str = "squared",
    n_starts: int = 10,
    target: float | None = None,
    tol: float = 1e-9,
    seed: int = 0,
) -> NormSearch:
    """Look for the network of least norm that fits Y, by an augmented Lagrangian from random
    starts.

    Makes no use of the closed forms above, and works for architectures without one. What it returns
    bounds the least penalty from above only, up to the residual.

    Parameters
    ----------
    X
        (n, d) inputs.
    Y
        (n, k) outputs.
    widths
        Widths of the hidden layers of a branch, at least one.
    n_branches
        Number of parallel branches of these widths.
    activation
        ``"linear"`` or ``"relu"``.
    penalty
        ``"squared"`` or ``"power"``.
    n_starts
        Number of standard Gaussian initializations.
    target
        Value at which the search is over: once a start ends there or below, no further one is made.
        A certified lower bound, up to the accuracy wanted, is such a value.
    tol
        Largest residual ``||f(X) - Y||_F``, relative to ``||Y||_F``, of an exact fit.
    seed
        Seed of the initializations.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import search_minimum_norm
    >>> found = search_minimum_norm(np.eye(1), [[4.0]], [1], n_starts=1, seed=0)
    >>> round(found.primal, 4)
    4.0
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(X.shape[0], None))
    if not isinstance(widths, list | tuple) or not widths:
        raise ValueError(f"widths: expected a non-empty sequence of integers, got {widths!r}")
    sizes = [X.shape[1], *(as_count(width, "widths") for width in widths), Y.shape[1]]
    n_branches = as_count(n_branches, "n_branches")
    relu = one_of(activation, "activation", ("linear", "relu")) == "relu"
    penalty = one_of(penalty, "penalty", _PENALTIES)
    n_starts = as_count(n_starts, "n_starts")
    enough = -inf if target is None else as_real(target, "target")
    tol = as_real(tol, "tol", above=0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    shapes = list(pairwise(sizes))
    exponent = 2 if penalty == "squared" else len(shapes)
    layout = _layout(shapes, n_branches)
    ends: list[float] = []
    best: Branches = ()
    while len(ends) < n_starts and not (ends and ends[-1] <= enough):
        ends.append(inf)
        weights = rng.normal(size=n_branches * sum(rows * columns for rows, columns in shapes))
        multiplier, stiffness, last = np.zeros_like(Y), _FIRST_STIFFNESS, inf
        while stiffness <= _LAST_STIFFNESS:
            weights = minimize(
                _augmented_lagrangian,
                weights,
                args=(X, Y, layout, relu, exponent, multiplier, stiffness),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9},
            ).x
            branches = _split(weights, layout)
            residual = network_output(X, branches, activation=activation) - Y
            miss = float(np.linalg.norm(residual))
            if miss <= tol * np.linalg.norm(Y):
                ends[-1] = network_cost(branches, penalty=penalty)
                if ends[-1] == min(ends):
                    best = branches
                break
            multiplier = multiplier + stiffness * residual
            if miss > last / 4:
                stiffness *= 4
            last = miss
    return NormSearch(primal=min(ends), branches=best, ends=np.array(ends))


def shrink_singular_values(sigma: ArrayLike, beta: float, *, depth: int) -> FloatArray:
    r"""Return the minimizer of ``1/2 (s - sigma)^2 + beta L/2 s^(2/L)`` over ``s >= 0``, entrywise.

    This is what weight decay ``beta/2 sum ||W_l||_F^2`` does to each singular value of ``X^T Y``
    when a linear network of depth L is fitted with squared loss and ``X^T X = I``.

    Parameters
    ----------
    sigma
        (r,) singular values, in any order.
    beta
        Weight decay, ``>= 0``.
    depth
        Number of layers ``L >= 2``; soft thresholding at ``beta`` for 2, a jump
        (:func:`shrinkage_jump`) from 3 on.

    Returns
    -------
    numpy.ndarray
        (r,) fitted singular values; exactly at the threshold the smaller minimizer, 0.

    Notes
    -----
    Derived. Above the threshold the minimizer is the largest root of ``s - sigma + beta s^(2/L -
    1)``, a convex function, to which Newton's method from ``s = sigma`` descends monotonically.

    Examples
    --------
    >>> from theorylab.convex_relu import shrink_singular_values
    >>> shrink_singular_values([0.5, 3.0], 1.0, depth=2)
    array([0., 2.])
    """
    sigma = as_array(sigma, "sigma", ndim=1, nonnegative=True)
    beta = as_real(beta, "beta", minimum=0)
    depth = as_count(depth, "depth", minimum=2)
    if depth == 2:
        return np.maximum(sigma - beta, 0.0)
    kept = sigma > shrinkage_jump(beta, depth=depth).threshold
    target = sigma[kept]
    s = target.copy()
    power = 2 / depth - 1
    while s.size:
        decay = beta * s**power
        step = (s - target + decay) / (1 + power * decay / s)
        s -= step
        if np.all(step <= 16 * np.finfo(float).eps * s):  # what rounding leaves of the residual
            break
    shrunk = np.zeros_like(sigma)
    shrunk[kept] = s
    return shrunk


def shrinkage_jump(beta: float, *, depth: int) -> ShrinkageJump:
    r"""Return the threshold of :func:`shrink_singular_values` and the height of its jump.

    ``height = (beta (L - 2))^(L / (2 L - 2))`` and ``threshold = height (L - 1) / (L - 2)`` for ``L
    >= 3``: there zero and the largest stationary point have equal value. Soft thresholding
    (threshold ``beta``, height 0) for ``L = 2``.

    Parameters
    ----------
    beta
        Weight decay, ``>= 0``.
    depth
        Number of layers ``L >= 2``.

    Examples
    --------
    >>> from theorylab.convex_relu import shrinkage_jump
    >>> shrinkage_jump(1.0, depth=2)
    <ShrinkageJump: threshold 1, height 0>
    """
    beta = as_real(beta, "beta", minimum=0)
    depth = as_count(depth, "depth", minimum=2)
    if depth == 2:
        return ShrinkageJump(threshold=beta, height=0.0)
    height = (beta * (depth - 2)) ** (depth / (2 * depth - 2))
    return ShrinkageJump(threshold=height * (depth - 1) / (depth - 2), height=height)


def _value(gauge: float, depth: int, penalty: str) -> float:
    return depth / 2 * (gauge ** (2 / depth) if penalty == "squared" else gauge)


def _layout(shapes: list[tuple[int, int]], n_branches: int) -> Layout:
    """Return where the weight matrices of every branch lie in one vector, and their shapes."""
    ends = np.cumsum([0, *(rows * columns for rows, columns in shapes * n_branches)]).tolist()
    places = [
        (slice(*end), shape) for end, shape in zip(pairwise(ends), shapes * n_branches, strict=True)
    ]
    depth = len(shapes)
    return [places[j * depth : (j + 1) * depth] for j in range(n_branches)]


def _split(weights: FloatArray, layout: Layout) -> Branches:
    return tuple(
        tuple(weights[place].reshape(shape) for place, shape in branch) for branch in layout
    )


def _augmented_lagrangian(
    weights: FloatArray,
    X: FloatArray,
    Y: FloatArray,
    layout: Layout,
    relu: bool,
    exponent: int,
    multiplier: FloatArray,
    stiffness: float,
) -> tuple[float, FloatArray]:
    gradient = np.empty_like(weights)
    branches = _split(weights, layout)
    residual = -Y
    activations = []
    for branch in branches:
        hidden = [X]
        for W in branch[:-1]:
            product = hidden[-1] @ W
            hidden.append(np.maximum(product, 0) if relu else product)
        activations.append(hidden)
        residual = residual + hidden[-1] @ branch[-1]
    value = float((multiplier * residual).sum() + stiffness / 2 * (residual**2).sum())
    # The parts of the gradient are views, so that writing them fills the vector.
    for branch, hidden, parts in zip(branches, activations, _split(gradient, layout), strict=True):
        back = multiplier + stiffness * residual
        for W, inputs, part in zip(
            reversed(branch), reversed(hidden), reversed(parts), strict=True
        ):
            square = float((W**2).sum())
            value += 0.5 * square ** (exponent / 2)
            part[:] = inputs.T @ back + exponent / 2 * square ** (exponent / 2 - 1) * W
            back = back @ W.T
            if relu:
                back = back * (inputs > 0)
    return value, gradient


def _as_branches(branches: Sequence[Sequence[ArrayLike]], n_inputs: int | None = None) -> Branches:
    if not isinstance(branches, list | tuple) or not branches:
        raise ValueError(
            f"branches: expected a non-empty sequence of branches, got {type(branches).__name__}"
        )
    checked = []
    for j, branch in enumerate(branches):
        if not isinstance(branch, list | tuple) or len(branch) < 2:
            raise ValueError(
                f"branches[{j}]: expected a sequence of at least two weight matrices, "
                f"got {branch!r}"
            )
        layers: list[FloatArray] = []
        width = n_inputs
        for layer, weights in enumerate(branch):
            layers.append(as_array(weights, f"branches[{j}][{layer}]", shape=(width, None)))
            width = layers[-1].shape[1]
        checked.append(tuple(layers))
    shapes = {(len(branch), branch[0].shape[0], branch[-1].shape[1]) for branch in checked}
    if len(shapes) > 1:
        raise ValueError(
            "branches: expected equal depth, inputs and outputs in all branches, got "
            f"{sorted(shapes)}"
        )
    return tuple(checked)


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
    norm = max(
        (_squared_norm_bound(part.transpose() * multiplier) for part in inputs), default=fmpq(0)
    )
    precision, ctx.prec = ctx.prec, _CERTIFICATE_BITS
    try:
        cost = arb(0)
        for branch in branches:
            for W in branch:
                square = sum((w * w for w in rational_matrix(W).entries()), fmpq(0))
                cost += arb(square) if penalty == "squared" else arb(square) ** (arb(depth) / 2)
        gauge = (arb(inner) ** 2 / arb(norm)).sqrt() if inner > 0 and norm > 0 else arb(0)
        if penalty == "squared" and inner > 0:
            gauge = gauge ** (arb(2) / depth)
        bound = gauge * depth / 2
        return Bounds(
            upper=nextafter(float((cost / 2).upper()), inf) if cost != 0 else 0.0,
            lower=max(0.0, nextafter(float(bound.lower()), -inf)),
        )
    finally:
        ctx.prec = precision


def _squared_norm_bound(matrix: fmpq_mat) -> fmpq:
    """Return a rational not below the squared spectral norm: ``bound I - matrix^T matrix`` has
    positive pivots."""
    gram = matrix.transpose() * matrix
    if gram.nrows() > (matrix * matrix.transpose()).nrows():
        gram = matrix * matrix.transpose()
    size = gram.nrows()
    approximate = np.array(
        [[int(gram[i, j].p) / int(gram[i, j].q) for j in range(size)] for i in range(size)]
    )
    estimate = float(np.linalg.eigvalsh(approximate)[-1])
    if estimate <= 0:
        return sum((gram[i, i] for i in range(size)), fmpq(0))
    slack = 1e-14
    while True:
        bound = rational(estimate * (1 + slack))
        if _is_positive_definite(bound, gram):
            return bound
        slack *= 4


def _is_positive_definite(shift: fmpq, gram: fmpq_mat) -> bool:
    """Whether elimination in ball arithmetic proves ``shift I - gram`` positive definite."""
    size = gram.nrows()
    precision, ctx.prec = ctx.prec, _CERTIFICATE_BITS
    try:
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
    finally:
        ctx.prec = precision


def fit_factored(
    X: ArrayLike,
    Y: ArrayLike,
    beta: float,
    *,
    depth: int,
    width: int | None = None,
    relu: bool = False,
    n_random: int = 2,
    seed: int = 0,
) -> FactoredFit:
    r"""Look for the least ``1/2 ||f(X) - Y||^2 + beta/2 sum ||W_l||_F^2`` by descent on the layers.

    Weight decay from three layers on has many local minima: zero is one in every singular
    direction. Descent (L-BFGS) therefore starts from balanced layers of each product that keeps
    some of the singular directions of the least-squares solution (up to eight directions, the
    largest), and from random layers. Makes no use of the closed forms above.

    Parameters
    ----------
    X
        (n, d) inputs.
    Y
        (n, k) outputs.
    beta
        Weight decay, ``> 0``.
    depth
        Number of layers ``L >= 2``.
    width
        Width of the hidden layers; ``min(d, k)`` by default.
    relu
        Whether a ReLU follows every layer but the last.
    n_random
        Number of standard Gaussian starts.
    seed
        Seed of the starts.

    Returns
    -------
    FactoredFit
        The best end, and the value of every one.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import fit_factored
    >>> fit = fit_factored(np.eye(1), [[2.0]], 0.5, depth=2)
    >>> round(fit.objective, 6), round(float(fit.outputs[0, 0]), 4)
    (0.875, 1.5)
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(X.shape[0], None))
    beta = as_real(beta, "beta", above=0)
    depth = as_count(depth, "depth", minimum=2)
    hidden = min(X.shape[1], Y.shape[1]) if width is None else as_count(width, "width")
    relu = as_flag(relu, "relu")
    n_random = as_count(n_random, "n_random", minimum=0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    sizes = [X.shape[1], *[hidden] * (depth - 1), Y.shape[1]]
    layout = _layout(list(pairwise(sizes)), 1)
    (places,) = layout
    total = places[-1][0].stop
    U, s, Vt = np.linalg.svd(np.linalg.pinv(X) @ Y, full_matrices=False)
    rank = min(hidden, s.size, 8)
    starts: list[FloatArray] = [rng.normal(size=(total,)) for _ in range(n_random)]
    for kept in product((0.0, 1.0), repeat=rank):
        root = (s[:rank] * kept) ** (1 / depth)
        start: FloatArray = 1e-3 * rng.normal(size=(total,))
        for layer, (place, shape) in enumerate(places):
            block = np.zeros(shape)
            if layer == 0:
                block[:, :rank] = U[:, :rank] * root
            elif layer == depth - 1:
                block[:rank] = root[:, None] * Vt[:rank]
            else:
                block[:rank, :rank] = np.diag(root)
            start[place] += block.ravel()
        starts.append(start)

    def objective(scaled: FloatArray, unit: float) -> tuple[float, FloatArray]:
        value, gradient = _augmented_lagrangian(
            unit * scaled, X, Y, layout, relu, 2, np.zeros_like(Y), 1 / beta
        )
        return beta * value, beta * unit * gradient

    # The first step of L-BFGS has length 1: it must not leave the valley of its start.
    options: Any = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-11}
    units = [0.02 * float(np.linalg.norm(w)) for w in starts]
    ends: list[Any] = [
        minimize(objective, w / u, args=(u,), jac=True, method="L-BFGS-B", options=options)
        for w, u in zip(starts, units, strict=True)
    ]
    best = min(range(len(ends)), key=lambda j: float(ends[j].fun))
    branches = _split(units[best] * ends[best].x, layout)
    outputs = network_output(X, branches, activation="relu" if relu else "linear")
    values = np.array([float(end.fun) for end in ends])
    return FactoredFit(float(values.min()), branches[0], outputs, values)


def parallel_relu_minimum_norm(X: ArrayLike, y: ArrayLike) -> MinimumNorm:
    r"""Return the parallel three-layer ReLU network of least power penalty that fits y exactly.

    ``f(X) = sum_j relu(relu(X W_1j) W_2j) w_3j`` at the least ``1/2 sum ||W_lj||_F^3`` is a convex
    program: ``3/2 min sum ||v_{S,o,i,s}||`` over patterns S of the second layer, signs o and s and
    patterns ``D_i`` of the first, subject to ``(2 D_i - I) X v >= 0``, ``(2 S - I) sum_is s D_i X v
    >= 0`` for every (S, o), and ``sum o S s D_i X v = y``. A branch needs one unit in its second
    layer, which is (S, o), and one in its first for each (i, s).

    Parameters
    ----------
    X
        (n, d) inputs; the program has ``2^n`` blocks, so that n is at most 6.
    y
        (n,) outputs.

    Returns
    -------
    MinimumNorm
        The program's value, the branches (blocks below 1e-7 of the whole are dropped), the (n, 1)
        multiplier, of :func:`branch_dual_norm` 1, and its value.

    Examples
    --------
    >>> from theorylab.convex_relu import parallel_relu_minimum_norm
    >>> fit = parallel_relu_minimum_norm([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0])
    >>> round(fit.primal, 4)
    2.1213

    Notes
    -----
    wang2021-parallel; the program is re-derived. Its accuracy is that of the cone solver, about
    1e-7.
    """
    X = as_array(X, "X", ndim=2)
    y = as_array(y, "y", shape=(X.shape[0],))
    size, length = float(np.abs(y).max()), float(np.linalg.norm(X, 2))
    if size == 0:
        raise ValueError("y: expected a non-zero output, got zeros")
    program = _ConeProgram(X)
    value, weights, multiplier = program.fit(y / size)
    sizes = np.linalg.norm(weights, axis=2)
    weights, sizes = weights * (size / length), sizes * (size / length)
    branches = []
    for (_, sign), w, a in zip(program.outer, weights, sizes, strict=True):
        kept = a > 1e-7 * sizes.sum()
        if kept.any():
            # Layers of equal norm: a unit of the first layer takes the share of its weight.
            output = float(np.cbrt(a[kept].sum()))
            share = np.sqrt(a[kept] / output)
            first = (w[kept] / a[kept, None] * share[:, None]).T
            second = (program.signs[kept] * share)[:, None]
            branches.append((first, second, np.array([[sign * output]])))
    multiplier = multiplier / length
    multiplier = multiplier / branch_dual_norm(X, multiplier)
    return MinimumNorm(
        primal=1.5 * value * size / length,
        dual=1.5 * float(multiplier @ y),
        branches=tuple(branches),
        dual_point=multiplier[:, None],
    )


def branch_dual_norm(X: ArrayLike, dual_point: ArrayLike) -> float:
    r"""Return ``max |lambda^T f(X)|`` over three-layer ReLU branches with layers of norm at most 1.

    The branch has one output, and its maximum is the largest value of ``2^(n+1) - 2`` cone
    programs, one for each pattern and sign of a single unit in its second layer.

    Parameters
    ----------
    X
        (n, d) inputs, n at most 6.
    dual_point
        (n,) multiplier lambda.

    Returns
    -------
    float
        The norm; the accuracy is that of the cone solver, about 1e-7.

    Examples
    --------
    >>> from theorylab.convex_relu import branch_dual_norm
    >>> round(branch_dual_norm([[1.0, 0.0], [0.0, 2.0]], [1.0, 0.0]), 5)
    1.0
    """
    X = as_array(X, "X", ndim=2)
    dual_point = as_array(dual_point, "dual_point", shape=(X.shape[0],))
    size = float(np.abs(dual_point).max()) * float(np.linalg.norm(X, 2))
    if size == 0:
        return 0.0
    return size * _ConeProgram(X).norm(dual_point / np.abs(dual_point).max())


def _cvxpy() -> Any:
    """Import cvxpy when it is used; its names are made at run time, unknown to type checkers."""
    import cvxpy

    return cvxpy


class _ConeProgram:
    """Cone programs over the patterns of both hidden layers, for inputs of spectral norm 1.

    ``outer`` lists (S, o), ``signs`` the s of every pair (i, s) of a pattern of the first layer.
    """

    def __init__(self, X: FloatArray) -> None:
        n, d = X.shape
        if n > 6:
            raise ValueError(f"X: expected at most 6 rows (the program has 2^n blocks), got {n}")
        if not X.any():
            raise ValueError("X: expected a non-zero entry, got zeros")
        X = X / np.linalg.norm(X, 2)
        patterns = enumerate_arrangements(X).astype(float)
        self.outer = [
            (np.array(S), o) for S in product((0.0, 1.0), repeat=n) if any(S) for o in (1.0, -1.0)
        ]
        self.signs = np.repeat([1.0, -1.0], len(patterns))
        doubled = np.vstack([patterns, patterns])
        self._hidden = np.hstack(
            [s * D[:, None] * X for s, D in zip(self.signs, doubled, strict=True)]
        )
        self._cones = block_diag(*((2 * D - 1)[:, None] * X for D in doubled))
        self._shape = (len(self.outer), self.signs.size, d)

    def _variables(self) -> tuple[Any, Any, Any, list[Any]]:
        """Return the weights, the norms of the blocks, their signed outputs, and the cones."""
        cp = _cvxpy()
        blocks, units, d = self._shape
        weights = cp.Variable((blocks, units * d))
        rows = cp.reshape(weights, (blocks * units, d), order="C")
        norms = cp.sum(cp.reshape(cp.norm(rows, 2, axis=1), (blocks, units), order="C"), axis=1)
        hidden = weights @ self._hidden.T
        S = np.array([S for S, _ in self.outer])
        signed = np.array([S * o for S, o in self.outer])
        cones = [weights @ self._cones.T >= 0, cp.multiply(2 * S - 1, hidden) >= 0]
        return weights, norms, cp.multiply(signed, hidden), cones

    def fit(self, y: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return the least norm, weights (blocks, units, d) that fit y, and the multiplier."""
        cp = _cvxpy()
        weights, norms, outputs, cones = self._variables()
        fits = cp.sum(outputs, axis=0) == y
        cp.Problem(cp.Minimize(cp.sum(norms)), [*cones, fits]).solve(solver="CLARABEL")
        if weights.value is None:
            raise ValueError("y: expected outputs of some network on X, got none that fits them")
        multiplier = np.asarray(fits.dual_value)
        multiplier = multiplier if multiplier @ y > 0 else -multiplier
        blocks = np.asarray(weights.value).reshape(self._shape)
        return float(norms.value.sum()), blocks, multiplier

    def norm(self, multiplier: FloatArray) -> float:
        """Return the largest value of the multiplier on a block of norm 1."""
        cp = _cvxpy()
        _, norms, outputs, cones = self._variables()
        values = outputs @ multiplier
        cp.Problem(cp.Maximize(cp.sum(values)), [*cones, norms <= 1]).solve(solver="CLARABEL")
        return float(values.value.max())
