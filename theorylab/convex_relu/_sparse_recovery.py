r"""When l1 minimization recovers a sparse neuron from its outputs on random samples.

For ``eps = 0`` a neuron w is recovered from generic samples exactly when basis pursuit recovers it
from its active samples alone: the inactive inequalities are strict at w. With Gaussian inputs the
active rows have the kernel of a Gaussian matrix with Bin(P, 1/2) rows, so that recovery sets in at
twice the statistical dimension of the descent cone of the l1 norm. Derived here, sharper than
aghasi2018-fast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.sparse import csr_array, hstack, issparse
from scipy.special import erfc, wofz
from scipy.stats import binom, norm

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.programs import linprog

__all__ = [
    "basis_pursuit",
    "mixed_recovery_probability",
    "recover_neuron",
    "recover_neurons",
    "recovery_probabilities",
    "samples_for_recovery",
    "statistical_dimension",
]


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
