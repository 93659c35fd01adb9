r"""Pruning trained ReLU layers by convex programs.

A trained layer maps samples X (P x N) to ``Y = relu(X W)``. It is replaced by the matrix of least
entrywise l1 norm that reproduces Y:

    min ||U||_1   subject to   ||(X U - Y)_on||_F <= eps,   (X U)_off <= 0,      on = {Y > 0}, off =
    {Y = 0},

which gives ``||relu(X U) - Y||_F <= eps``. If all layers of a network are pruned this way in
parallel, errors propagate as ``sum_l eps_l prod_{k > l} ||U_k||_2``, at most ``sum_l eps_l`` for
layers of l1 norm at most 1.

For ``eps = 0`` a neuron w is recovered from generic samples exactly when basis pursuit recovers it
from its active samples alone: the inactive inequalities are strict at w. With Gaussian inputs the
active rows have the kernel of a Gaussian matrix with Bin(P, 1/2) rows, so that recovery sets in at
twice the statistical dimension of the descent cone of the l1 norm. Net-Trim: aghasi2018-fast; the
paper's text was not consulted, and the sharpened forms are derived here."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import brentq, linprog
from scipy.sparse import csr_array, hstack, issparse
from scipy.special import erfc, wofz
from scipy.stats import binom, norm

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.bounds import power_of_two, relative_gap
from theorylab.numerics.results import result

__all__ = [
    "PrunedLayer",
    "PrunedNetwork",
    "PruningStatus",
    "basis_pursuit",
    "error_propagation_bound",
    "layer_outputs",
    "mixed_recovery_probability",
    "normalize_layers",
    "prune_layer",
    "prune_network",
    "recover_neuron",
    "recover_neurons",
    "recovery_probabilities",
    "samples_for_recovery",
    "statistical_dimension",
]


class PruningStatus(StrEnum):
    """How the pruning of a layer ended."""

    SOLVED = "solved: relative duality gap and constraint violation are within tol"
    MAX_ITER = (
        "stopped after max_iter iterations above tol; raise max_iter, or eps is too "
        "small for this method"
    )


@result
class PrunedLayer:
    """Sparse weights that reproduce the outputs of a layer.

    Attributes
    ----------
    weights
        (N, M) pruned weights, exact zeros included.
    objective
        Their entrywise l1 norm.
    dual_objective
        Lower bound of the least l1 norm, from a feasible dual point.
    output_error
        ``||relu(X U) - Y||_F``.
    violation
        Distance of ``X U`` from the constraints, relative to ``||Y||_F``.
    n_iter
        Iterations used.
    status
        How the solver ended.
    """

    weights: FloatArray
    objective: float
    dual_objective: float
    output_error: float
    violation: float
    n_iter: int
    status: PruningStatus

    @property
    def gap(self) -> float:
        """Relative duality gap; the objective may lie below the bound by as much as the constraints
        are violated."""
        return relative_gap(
            self.objective,
            self.dual_objective,
            rounding=(1e-9 + 10.0 * self.violation) * max(self.objective, self.dual_objective),
        )

    @property
    def density(self) -> float:
        """Fraction of the weights that are not zero."""
        return float(np.mean(self.weights != 0))


@result
class PrunedNetwork:
    """A network all of whose layers were pruned in parallel, each against its own trained inputs
    and outputs.

    Attributes
    ----------
    layers
        The pruned layers.
    errors
        (L,) distance of the outputs of every layer of the pruned network from those of the trained
        one.
    """

    layers: tuple[PrunedLayer, ...]
    errors: FloatArray

    @cached_property
    def weights(self) -> tuple[FloatArray, ...]:
        """Pruned weights of all layers."""
        return tuple(layer.weights for layer in self.layers)

    @cached_property
    def bounds(self) -> FloatArray:
        """(L,) bounds of ``errors`` by :func:`error_propagation_bound` from the layers' own output
        errors."""
        return error_propagation_bound(self.weights, [layer.output_error for layer in self.layers])


@refuses_overflow("X", "W")
def prune_layer(
    X: ArrayLike,
    W: ArrayLike,
    eps: float,
    *,
    tol: float = 1e-5,
    max_iter: int = 20000,
    check_every: int = 25,
    start: ArrayLike | None = None,
) -> PrunedLayer:
    r"""Prune one trained layer (the Net-Trim program) by the alternating direction method of
    multipliers.

    Splits ``U`` (soft threshold) and ``Z = X U`` (projection on a ball and an orthant) off a
    least-squares step with a factor computed once. The dual value of a multiplier ``Lambda``,
    non-positive off the support of Y and scaled to ``||X^T Lambda||_inf <= 1``, is ``<Lambda, Y> -
    eps ||Lambda_on||_F``.

    Parameters
    ----------
    X
        (P, N) inputs of the layer.
    W
        (N, M) trained weights.
    eps
        Allowed Frobenius error on the active outputs, positive; for 0 see :func:`recover_neuron`.
    tol
        Largest relative duality gap and relative constraint violation.
    max_iter
        Largest number of iterations.
    check_every
        Iterations between two checks of the stopping rule and of the balance of the two residuals.
    start
        (N, M) weights to start from; the trained ones by default.

    Returns
    -------
    PrunedLayer
        Sparse weights, both objectives and the achieved error.

    Notes
    -----
    aghasi2018-fast.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import prune_layer
    >>> X, W = np.eye(3), np.diag([1.0, 0.1, 0.0])
    >>> np.round(prune_layer(X, W, 0.5).weights, 2)
    array([[0.51, 0.  , 0.  ],
           [0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  ]])
    """
    X = as_array(X, "X", ndim=2)
    W = as_array(W, "W", shape=(X.shape[1], None))
    eps = as_real(eps, "eps", above=0)
    tol = as_real(tol, "tol", above=0)
    max_iter = as_count(max_iter, "max_iter")
    check_every = as_count(check_every, "check_every")
    first = W if start is None else as_array(start, "start", shape=W.shape)
    Y = np.maximum(X @ W, 0)
    on = Y > 0
    size = float(np.linalg.norm(Y))
    if size <= eps:
        zero = np.zeros_like(W)
        return PrunedLayer(zero, 0.0, 0.0, size, 0.0, 0, PruningStatus.SOLVED)
    # Measured: ten times the weight that makes the two splits equal in spectral norm halves or
    # quarters the iterations.
    scale = 10 / float(np.linalg.norm(X, 2))
    inputs: FloatArray = scale * X
    target: FloatArray = scale * Y
    radius = scale * eps
    factor = cho_factor(np.eye(X.shape[1]) + inputs.T @ inputs)
    U = first.copy()
    Z = target.copy() if start is None else inputs @ first
    dual_U, dual_Z = np.zeros_like(U), np.zeros_like(Z)
    penalty = 1 / float(np.abs(W).mean())
    status, n_iter = PruningStatus.MAX_ITER, max_iter
    relaxation = 1.6
    for iteration in range(1, max_iter + 1):
        joint = cho_solve(factor, U - dual_U + inputs.T @ (Z - dual_Z))
        U_last, Z_last = U, Z
        mixed_U = relaxation * joint + (1 - relaxation) * U
        mixed_Z = relaxation * (inputs @ joint) + (1 - relaxation) * Z
        dual_U += mixed_U
        U = np.sign(dual_U) * np.maximum(np.abs(dual_U) - 1 / penalty, 0)
        dual_U -= U
        dual_Z += mixed_Z
        Z = _project(dual_Z, target, on, radius)
        dual_Z -= Z
        if iteration % check_every and iteration < max_iter:
            continue
        product = inputs @ U
        violation = float(np.linalg.norm(product - _project(product, target, on, radius))) / (
            scale * size
        )
        objective = float(np.abs(U).sum())
        dual_objective = _dual_value(-penalty * scale * dual_Z, X, Y, on, eps)
        if violation <= tol and abs(objective - dual_objective) <= tol * objective:
            status, n_iter = PruningStatus.SOLVED, iteration
            break
        primal = _length(joint - U, inputs @ joint - Z) / _length(U, Z)
        dual = _length(U - U_last, Z - Z_last) / _length(dual_U, dual_Z)
        if iteration <= max_iter // 2 and (primal > 5 * dual or dual > 5 * primal):
            change = 2.0 if primal > dual else 0.5
            penalty *= change
            dual_U /= change
            dual_Z /= change
    if status is PruningStatus.MAX_ITER:
        warn(status.value, RuntimeWarning, stacklevel=2)
    error = float(np.linalg.norm(np.maximum(X @ U, 0) - Y))
    return PrunedLayer(U, objective, dual_objective, error, violation, n_iter, status)


def recover_neuron(X: ArrayLike, w: ArrayLike) -> FloatArray:
    """Return the vector of least l1 norm that gives the same ReLU outputs as ``w`` on all samples
    (``eps = 0``).

    Parameters
    ----------
    X
        (P, N) samples.
    w
        (N,) trained weights of one neuron.

    Returns
    -------
    numpy.ndarray
        (N,) a solution of the linear program, by HiGHS.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import recover_neuron
    >>> X = np.random.default_rng(0).normal(size=(20, 4))
    >>> np.round(recover_neuron(X, [1.0, 0.0, 0.0, 0.0]), 6) + 0.0
    array([1., 0., 0., 0.])
    """
    X = as_array(X, "X", ndim=2)
    w = as_array(w, "w", shape=(X.shape[1],))
    outputs = X @ w
    on = outputs > 0
    return _least_l1(X[on], outputs[on], X[~on])


def recover_neurons(X: ArrayLike, W: ArrayLike) -> FloatArray:
    """Return :func:`recover_neuron` of many neurons, each on samples of its own, by one linear
    program: it is separable.

    Parameters
    ----------
    X
        (T, P, N) samples of every neuron.
    W
        (T, N) trained weights.

    Returns
    -------
    numpy.ndarray
        (T, N) solutions. For many small neurons this is far faster than one program for each.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import recover_neurons
    >>> X = np.random.default_rng(0).normal(size=(2, 20, 3))
    >>> np.round(recover_neurons(X, [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]), 6) + 0.0
    array([[ 1.,  0.,  0.],
           [ 0.,  0., -1.]])
    """
    X = as_array(X, "X", ndim=3)
    W = as_array(W, "W", shape=(X.shape[0], X.shape[2]))
    T, _, N = X.shape
    outputs = np.einsum("tpn,tn->tp", X, W)
    on = outputs > 0

    def rows(chosen: NDArray[np.bool_]) -> Any:
        neuron = np.nonzero(chosen)[0]
        places = neuron[:, None] * N + np.arange(N)
        return csr_array(
            (X[chosen].ravel(), places.ravel(), np.arange(0, places.size + 1, N)),
            shape=(neuron.size, T * N),
        )

    return _least_l1(rows(on), outputs[on], rows(~on)).reshape(T, N)


def basis_pursuit(A: ArrayLike, b: ArrayLike) -> FloatArray:
    """Return a vector of least l1 norm with ``A u = b``.

    Parameters
    ----------
    A
        (m, N) measurements.
    b
        (m,) values, in the range of A.

    Raises
    ------
    ValueError
        On bad input, and when b is not in the range of A.

    Examples
    --------
    >>> from theorylab.convex_relu import basis_pursuit
    >>> basis_pursuit([[1.0, 2.0]], [2.0]) + 0.0
    array([0., 1.])
    """
    A = as_array(A, "A", ndim=2)
    b = as_array(b, "b", shape=(A.shape[0],))
    return _least_l1(A, b, A[:0])


def statistical_dimension(n_inputs: int, sparsity: int) -> float:
    r"""Return the (asymptotic) statistical dimension of the descent cone of the l1 norm at a sparse
    vector.

    ``min_t s (1 + t^2) + (N - s) E (|g| - t)_+^2`` for standard normal g; basis pursuit with
    Gaussian measurements succeeds from about this many on.

    Parameters
    ----------
    n_inputs
        Dimension N.
    sparsity
        Number s of non-zero entries, at most N.

    Notes
    -----
    The minimum over multiples of the subdifferential exceeds the true statistical dimension by at
    most ``2 sqrt(N / s)`` (Amelunxen, Lotz, McCoy and Tropp). Its stationarity condition ``s t = (N
    - s) E (|g| - t)_+`` is solved by bracketing.

    Examples
    --------
    >>> from theorylab.convex_relu import statistical_dimension
    >>> round(statistical_dimension(100, 10), 1)
    32.9
    """
    n_inputs = as_count(n_inputs, "n_inputs")
    sparsity = as_count(sparsity, "sparsity", maximum=n_inputs)
    rest = n_inputs - sparsity
    if rest == 0:
        return float(n_inputs)

    def slope(t: float) -> float:
        return float(sparsity * t - 2 * rest * (norm.pdf(t) - t * norm.sf(t)))

    t = float(brentq(slope, 0.0, 1.0 + rest / sparsity, xtol=1e-14))
    return float(sparsity * (1 + t**2) + 2 * rest * ((1 + t**2) * norm.sf(t) - t * norm.pdf(t)))


def mixed_recovery_probability(recovery: ArrayLike, *, active: float = 0.5) -> float:
    r"""Return ``E p(m)`` for ``m ~ Bin(P, active)``: the law of neuron recovery from P Gaussian
    samples.

    Parameters
    ----------
    recovery
        (P + 1,) probabilities that basis pursuit recovers the neuron from ``m = 0, ..., P``
        Gaussian measurements.
    active
        Probability that a sample is active; 1/2 where inputs are centred.

    Notes
    -----
    Derived: given that m samples are active, their rows span a space with the law of m Gaussian
    rows, since flipping the sign of a row restores the symmetry that conditioning on activity
    broke.

    Examples
    --------
    >>> from theorylab.convex_relu import mixed_recovery_probability
    >>> mixed_recovery_probability([0.0, 0.0, 1.0], active=0.5)
    0.25
    """
    recovery = as_array(recovery, "recovery", ndim=1, nonnegative=True)
    active = as_real(active, "active", minimum=0, maximum=1)
    if recovery.max() > 1:
        raise ValueError(f"recovery: expected probabilities, got {recovery.max()}")
    n_samples = recovery.size - 1
    return float(binom.pmf(np.arange(n_samples + 1), n_samples, active) @ recovery)


def layer_outputs(X: ArrayLike, weights: Sequence[ArrayLike]) -> tuple[FloatArray, ...]:
    """Return the outputs of every layer of a network with ReLU after each layer.

    Parameters
    ----------
    X
        (P, N) samples.
    weights
        Weight matrices of the layers, of matching shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import layer_outputs
    >>> layer_outputs([[1.0, -2.0]], [np.eye(2), np.ones((2, 1))])
    (array([[1., 0.]]), array([[1.]]))
    """
    X = as_array(X, "X", ndim=2)
    outputs = []
    hidden = X
    for W in _as_layers(weights, X.shape[1]):
        hidden = np.maximum(hidden @ W, 0)
        outputs.append(hidden)
    return tuple(outputs)


@refuses_overflow("X", "weights")
def prune_network(
    X: ArrayLike,
    weights: Sequence[ArrayLike],
    eps: Sequence[float],
    *,
    tol: float = 1e-5,
    max_iter: int = 20000,
) -> PrunedNetwork:
    """Prune all layers of a ReLU network in parallel, each on the inputs and outputs of the trained
    network.

    Parameters
    ----------
    X
        (P, N) samples.
    weights
        Trained weight matrices.
    eps
        (L,) allowed error of each layer, positive.
    tol, max_iter
        As in :func:`prune_layer`.

    Returns
    -------
    PrunedNetwork
        The pruned layers, and the errors of the pruned network's layers against the trained ones.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import prune_network
    >>> X = np.random.default_rng(0).normal(size=(12, 3))
    >>> weights = [np.diag([1.0, 0.1, -1.0]), np.ones((3, 1))]
    >>> pruned = prune_network(X, weights, [0.5, 0.5])
    >>> len(pruned.layers)
    2
    """
    X = as_array(X, "X", ndim=2)
    layers = _as_layers(weights, X.shape[1])
    allowed = as_array(eps, "eps", shape=(len(layers),), positive=True)
    tol = as_real(tol, "tol", above=0)
    max_iter = as_count(max_iter, "max_iter")
    trained = layer_outputs(X, layers)
    inputs = (X, *trained[:-1])
    pruned = tuple(
        prune_layer(hidden, W, float(e), tol=tol, max_iter=max_iter)
        for hidden, W, e in zip(inputs, layers, allowed, strict=True)
    )
    outputs = layer_outputs(X, [layer.weights for layer in pruned])
    errors = np.array([np.linalg.norm(a - b) for a, b in zip(outputs, trained, strict=True)])
    return PrunedNetwork(pruned, errors)


def error_propagation_bound(weights: Sequence[ArrayLike], layer_errors: ArrayLike) -> FloatArray:
    r"""Return the (L,) bounds ``e_l <= sum_{k <= l} eps_k prod_{k < j <= l} ||U_j||_2`` of the
    errors after each pruned layer.

    Parameters
    ----------
    weights
        Pruned weight matrices.
    layer_errors
        (L,) error of each layer alone, on the trained network's inputs.

    Notes
    -----
    aghasi2018-fast states ``sum eps_l`` for layers of entrywise l1 norm at most 1; the product form
    follows from the ReLU being 1-Lipschitz.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import error_propagation_bound
    >>> error_propagation_bound([np.eye(2), 3 * np.eye(2)], [0.5, 0.1])
    array([0.5, 1.6])
    """
    layers = _as_layers(weights, None)
    errors = as_array(layer_errors, "layer_errors", shape=(len(layers),), nonnegative=True)
    bounds = np.empty(len(layers))
    total = 0.0
    for index, (W, error) in enumerate(zip(layers, errors, strict=True)):
        total = total * float(np.linalg.norm(W, 2)) + float(error)
        bounds[index] = total
    return bounds


def normalize_layers(weights: Sequence[ArrayLike]) -> tuple[FloatArray, ...]:
    """Divide every layer by its entrywise l1 norm, which rescales the outputs of a ReLU network by
    a positive factor.

    Parameters
    ----------
    weights
        Weight matrices, none of them zero.

    Examples
    --------
    >>> from theorylab.convex_relu import normalize_layers
    >>> normalize_layers([[[1.0, -3.0]]])
    (array([[ 0.25, -0.75]]),)
    """
    layers = _as_layers(weights, None)
    sizes = [float(np.abs(W).sum()) for W in layers]
    if min(sizes) == 0:
        raise ValueError(f"weights: expected non-zero layers, got l1 norms {sizes}")
    return tuple(W / size for W, size in zip(layers, sizes, strict=True))


def _as_layers(weights: Sequence[ArrayLike], width: int | None) -> tuple[FloatArray, ...]:
    if not isinstance(weights, list | tuple) or not weights:
        raise ValueError(
            f"weights: expected a non-empty sequence of matrices, got {type(weights).__name__}"
        )
    layers = []
    for index, W in enumerate(weights):
        layers.append(as_array(W, f"weights[{index}]", shape=(width, None)))
        width = layers[-1].shape[1]
    return tuple(layers)


def _project(Z: FloatArray, Y: FloatArray, on: NDArray[np.bool_], radius: float) -> FloatArray:
    """Project on the outputs within ``radius`` of Y where it is active, and non-positive
    elsewhere."""
    deviation = np.where(on, Z - Y, 0)
    length = float(np.linalg.norm(deviation))
    if length > radius:
        deviation *= radius / length
    projected: FloatArray = np.where(on, Y + deviation, np.minimum(Z, 0))
    return projected


def _length(*parts: FloatArray) -> float:
    return float(np.sqrt(sum(np.vdot(part, part) for part in parts)))


def _dual_value(
    multiplier: FloatArray, X: FloatArray, Y: FloatArray, on: NDArray[np.bool_], eps: float
) -> float:
    feasible = np.where(on, multiplier, np.minimum(multiplier, 0))
    value = float(np.sum(feasible * Y)) - eps * float(np.linalg.norm(feasible[on]))
    return max(0.0, value / max(1.0, float(np.abs(X.T @ feasible).max())))


def _least_l1(A: Any, b: FloatArray, C: Any) -> FloatArray:
    """Minimize ``||u||_1`` subject to ``A u = b`` and ``C u <= 0``, both matrices dense or both
    sparse."""
    n = A.shape[1]
    join = hstack if issparse(A) else np.hstack
    # Exact divisions: the solver's tolerances are absolute.
    unit = power_of_two(max(_largest(A), _largest(C)))
    scale = power_of_two(b)
    A, C, target = A / unit, C / unit, b / scale
    solution = linprog(
        np.ones(2 * n),
        A_ub=join([C, -C]),
        b_ub=np.zeros(C.shape[0]),
        A_eq=join([A, -A]),
        b_eq=target,
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if solution.x is None:
        raise ValueError(f"b: expected a vector in the range of A, got none ({solution.message})")
    u: FloatArray = solution.x[:n] - solution.x[n:]
    missed = float(np.abs(A @ u - target).max(initial=0.0))
    if missed > 1e-8:
        raise ArithmeticError(f"the linear program was solved up to {missed:.1e} only")
    result: FloatArray = (scale / unit) * u
    return result


def _largest(matrix: Any) -> float:
    return float(abs(matrix).max()) if min(matrix.shape) > 0 else 0.0


def recovery_probabilities(n_inputs: int, sparsity: int) -> FloatArray:
    r"""Return the exact probabilities that basis pursuit recovers a sparse vector from m = 0, ...,
    N Gaussian measurements.

    Parameters
    ----------
    n_inputs
        Dimension N, at most 400.
    sparsity
        Number s of non-zero entries, from 1 to N; their values do not matter.

    Returns
    -------
    numpy.ndarray
        (N + 1,) probabilities, up to about 1e-8 (1e-12 for N below 100).

    Examples
    --------
    >>> from theorylab.convex_relu import recovery_probabilities
    >>> recovery_probabilities(3, 1).round(4).tolist()
    [0.0, 0.3333, 0.7837, 1.0]

    Notes
    -----
    Derived. A random kernel of dimension N - m meets the descent cone with probability ``2 (v_{m+1}
    + v_{m+3} + ...)``, v its conic intrinsic volumes (the kinematic formula; Amelunxen, Lotz, McCoy
    and Tropp). They are those of its polar ``{t (1_s, [-1, 1]^{N-s})}`` backwards: the law of the
    dimension of the face on which the projection of a Gaussian vector g lies. It lies at ``t > 0``
    with exactly the entries A of the last N - s saturated iff ``s t = sum_S g_i + sum_A (|g_i| -
    t)`` and ``|g_i| > t`` on A alone: v is the integral over t of the density of that sum at s t,
    times s + |A|. The density is the Fourier transform of a power of the characteristic function of
    one excess, a value of the Faddeeva function; the sum over the frequencies is exact up to the
    tails beyond nine standard deviations."""
    n_inputs = as_count(n_inputs, "n_inputs", maximum=400)
    sparsity = as_count(sparsity, "sparsity", maximum=n_inputs)
    rest = n_inputs - sparsity
    top = np.sqrt(2 * np.log(n_inputs + 1)) + 7
    nodes, weights = np.polynomial.legendre.leggauss(int(60 + 4 * np.sqrt(n_inputs)))
    t, weights = (nodes + 1) / 2 * top, weights / 2 * top
    span = rest + 6 * np.sqrt(rest) + sparsity * top + 9 * np.sqrt(sparsity) + 10
    half = int(np.ceil(9 / np.sqrt(sparsity) * span / (2 * np.pi)))
    frequency = 2 * np.pi / span * np.arange(-half, half + 1)
    tail = erfc(t / np.sqrt(2))
    # The Faddeeva function keeps what erfc of a complex number would lose by underflow.
    excess = np.exp(-(t**2) / 2)[:, None] * wofz((frequency + 1j * t[:, None]) / np.sqrt(2))
    excess /= tail[:, None]
    kernel = np.exp(-sparsity * (frequency**2 / 2 + 1j * t[:, None] * frequency)) / span
    polar = np.zeros(n_inputs + 1)
    for saturated in range(rest + 1):
        density = binom.pmf(saturated, rest, tail) * kernel.sum(axis=1).real
        polar[1 + rest - saturated] = (sparsity + saturated) * (weights @ density)
        kernel *= excess
    polar[0] = 1 - polar[1:].sum()
    tails = np.zeros(n_inputs + 3)
    for k in range(n_inputs, -1, -1):
        tails[k] = polar[n_inputs - k] + tails[k + 2]
    return np.clip(1 - 2 * tails[1 : n_inputs + 2], 0, 1)


def samples_for_recovery(
    n_inputs: int, sparsity: int, *, level: float = 0.5, active: float = 0.5
) -> int:
    """Return the least number of Gaussian samples from which a sparse neuron is recovered with
    probability ``level``.

    Parameters
    ----------
    n_inputs, sparsity
        As for :func:`recovery_probabilities`.
    level
        Probability, in (0, 1), reached up to 1e-9 (it is often one half exactly).
    active
        Probability that a sample is active, positive.

    Examples
    --------
    >>> from theorylab.convex_relu import samples_for_recovery, statistical_dimension
    >>> samples_for_recovery(40, 4), round(2 * statistical_dimension(40, 4), 1)
    (26, 26.3)

    Notes
    -----
    From the exact law :func:`mixed_recovery_probability`, by bisection.
    """
    level = as_real(level, "level", above=0, below=1)
    active = as_real(active, "active", above=0, maximum=1)
    curve = recovery_probabilities(n_inputs, sparsity)

    def enough(n_samples: int) -> bool:
        padded = np.ones(n_samples + 1)
        padded[: curve.size] = curve[: n_samples + 1]
        return mixed_recovery_probability(padded, active=active) >= level - 1e-9

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
