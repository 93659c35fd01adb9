r"""Perturbed completion: a spurious minimum, and the order of its lift at which it is a saddle.

On $n=3$ all entries have weight 1 except the pair (1,3) with $\epsilon$; $z=(1,0,1)$,
$\delta=(1-\epsilon^2)/(1+\epsilon^2)$, $\hat x=\sqrt\delta(1,0,-1)$. The three matrices of
`lifted_hessian` commute, with eigenvectors $\hat x,e_2,z$ and eigenvalues $K_{\hat
x}=(a,0,\delta a)$, $K_z=(a,0,b)$, $S_{\hat x}=(a,\delta,\delta)$, $b=2/(1+\delta)$, $a=\delta b$.
Every eigenvalue of the lifted Hessian is one term of a Kronecker product of these, and one is
negative iff $2^l(1-\delta^{2l})>2(\delta(1+\delta))^l$. (Derived here.)"""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
from flint import arb, ctx, fmpq

from theorylab._validation import FloatArray, as_count, as_real
from theorylab.numerics.results import result

__all__ = [
    "SensingProblem",
    "completion_spectrum",
    "completion_threshold",
    "first_saddle_order",
    "perturbed_completion",
]


@result
class SensingProblem:
    r"""A rank-one sensing problem with a known spurious critical point.

    Attributes
    ----------
    matrices
        The symmetric $A_i$, shape ``(m, n, n)``.
    truth
        $z$, shape ``(n,)``.
    spurious
        A critical point $\hat x\ne\pm z$ of $f$, shape ``(n,)``.
    delta
        Restricted isometry constant $\delta$ of the rescaled measurements.
    """

    matrices: FloatArray
    truth: FloatArray
    spurious: FloatArray
    delta: float


def perturbed_completion(eps: float, *, diagonal: float = 1.0) -> SensingProblem:
    r"""Return the completion problem on $n=3$ in which the pair (1,3) is seen with weight
    $\epsilon$ and all else with 1.

    Parameters
    ----------
    eps
        $\epsilon$ in (0, ``diagonal``).
    diagonal
        Weight $g$ of the three diagonal entries, at most 1. The family has $g=1$.

    Returns
    -------
    SensingProblem
        $z=(1,0,1)$, $\delta=(1-\epsilon^2)/(1+\epsilon^2)$ (attained on the pairs (1,3) and (1,2)),
        and $\hat x=\sqrt{(g^2-\epsilon^2)/(g^2+\epsilon^2)}\,(1,0,-1)$.

    Raises
    ------
    ValueError
        If an argument leaves its range.

    Examples
    --------
    >>> from theorylab.matrix_sensing import perturbed_completion
    >>> problem = perturbed_completion(0.5)
    >>> problem.matrices.shape, problem.truth
    ((6, 3, 3), array([1., 0., 1.]))
    """
    g = as_real(diagonal, "diagonal", above=0.0, maximum=1.0)
    eps = as_real(eps, "eps", above=0.0, below=g)
    matrices = np.array([B for B, _ in _ENTRIES], dtype=float)
    matrices[:3] *= g
    matrices[3:] /= np.sqrt(2)
    matrices[-1] *= eps
    spurious = np.sqrt((g**2 - eps**2) / (g**2 + eps**2)) * np.array([1.0, 0.0, -1.0])
    return SensingProblem(
        matrices, np.array([1.0, 0.0, 1.0]), spurious, (1 - eps**2) / (1 + eps**2)
    )


def completion_spectrum(
    delta: float | Fraction, *, order: int, diagonal: float | Fraction = 1.0
) -> tuple[tuple[Fraction, int], ...]:
    r"""Return the exact spectrum of the lifted Hessian of `perturbed_completion` at the spurious
    point.

    $K_{\hat x}$, $K_z$ and $S_{\hat x}$ are rational in $\delta$; they are summed from the
    measurements in rational arithmetic and applied to $\hat x,e_2,z$, which are found to be
    eigenvectors of all three. The Kronecker products of these are eigenvectors of the lifted
    Hessian, and exhaust it.

    Parameters
    ----------
    delta
        $\delta$ in (0, 1); a float stands for the rational number that it is.
    order
        $l\ge1$.
    diagonal
        Weight $g$ of the diagonal entries, with $\epsilon<g\le1$, as in `perturbed_completion`.

    Returns
    -------
    tuple of (Fraction, int)
        Eigenvalues, increasing, with multiplicities that sum to $3^l$.

    Examples
    --------
    >>> from theorylab.matrix_sensing import completion_spectrum
    >>> completion_spectrum(0.5, order=1)
    ((Fraction(0, 1), 1), (Fraction(4, 1), 1), (Fraction(16, 3), 1))
    """
    d, order = _rational(delta), as_count(order, "order")
    g = _rational(diagonal, "diagonal", allow_one=True)
    if g**2 * (1 + d) <= 1 - d:
        raise ValueError(
            f"diagonal: expected more than the weight eps that belongs to delta, got {float(g)}"
        )
    point, truth, tangent = (_eigenvalues(K) for K in _exact_factors(d, g))
    counts: dict[fmpq, int] = {}
    for i in range(order + 1):
        for j in range(order + 1 - i):
            powers = (i, j, order - i - j)
            p, t, s = (_product(values, powers) for values in (point, truth, tangent))
            value = 4 * (p - t) + 8 * s
            counts[value] = counts.get(value, 0) + comb(order, i) * comb(order - i, j)
    return tuple((Fraction(int(v.p), int(v.q)), counts[v]) for v in sorted(counts))


def completion_threshold(order: int, *, bits: int = 60) -> tuple[Fraction, Fraction]:
    r"""Enclose the $\delta_l$ below which the spurious point of `perturbed_completion` is a strict
    saddle of $h_l$.

    The two sides of $2^l(1-\delta^{2l})=2(\delta(1+\delta))^l$ are strictly monotone on (0, 1) in
    opposite directions, so the root is unique and a bisection in exact rational arithmetic encloses
    it: $1/2$, $.71202$, $.79856$, $.84521$, $.87435,\dots$, with $l(1-\delta_l)\to2\log v=.6663$,
    $v^4=2v+1$.

    Parameters
    ----------
    order
        $l\ge1$.
    bits
        The enclosure is $2^{-\text{bits}}$ wide.

    Returns
    -------
    lower, upper
        Rational; the point is a strict saddle at the lower end and (as far as second order tells) a
        minimum at the upper.

    Examples
    --------
    >>> from theorylab.matrix_sensing import completion_threshold
    >>> lower, upper = completion_threshold(2, bits=20)
    >>> float(lower), float(upper)
    (0.7120211486614717, 0.7120221023348786)
    """
    order, bits = as_count(order, "order"), as_count(bits, "bits")
    # An odd denominator keeps the bisection off the root 1/2 of order 1, where neither end would be
    # strict.
    cells = 2**bits + 1
    low, high = 0, cells
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _is_saddle(Fraction(middle, cells), order) else (low, middle)
    return Fraction(low, cells), Fraction(high, cells)


def first_saddle_order(delta: float | Fraction) -> int:
    r"""Return the smallest $l$ with $2^l(1-\delta^{2l})>2(\delta(1+\delta))^l$, about
    $.666/(1-\delta)$ near $\delta=1$.

    Parameters
    ----------
    delta
        $\delta$ in (0, 1); a float stands for the rational number that it is.

    Returns
    -------
    int
        The order from which on the spurious point of `perturbed_completion` is a strict saddle: the
        ratio of the two sides grows with $l$.

    Raises
    ------
    ValueError
        If ``delta`` is not in (0, 1).

    Examples
    --------
    >>> from theorylab.matrix_sensing import first_saddle_order
    >>> [first_saddle_order(delta) for delta in (0.5, 0.9, 0.99)]
    [2, 7, 67]
    """
    d = _rational(delta)
    high = 1
    while not _is_saddle(d, high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_saddle(d, middle) else (middle, high)
    return high


def _is_saddle(delta: Fraction, order: int) -> bool:
    r"""Whether $2^l(1-\delta^{2l})>2(\delta(1+\delta))^l$; by logarithms in balls where they tell,
    as powers of long fractions take minutes."""
    d, before = fmpq(delta.numerator, delta.denominator), ctx.prec
    try:
        for bits in (2**k for k in range(7, 15)):
            ctx.prec = bits
            excess = order * (arb(2) / (d * (1 + d))).log() - arb(2).log()
            excess += (1 - (2 * order * arb(d).log()).exp()).log()
            if excess > 0 or excess < 0:
                return bool(excess > 0)
    finally:
        ctx.prec = before
    return bool(2**order * (1 - delta ** (2 * order)) > 2 * (delta * (1 + delta)) ** order)


def _rational(
    number: float | Fraction, name: str = "delta", *, allow_one: bool = False
) -> Fraction:
    value = as_real(
        float(number) if isinstance(number, Fraction) else number, name, minimum=0.0, maximum=1.0
    )
    exact = number if isinstance(number, Fraction) else Fraction(value)
    if not (0 < exact < 1 or (allow_one and exact == 1)):
        raise ValueError(
            f"{name}: expected a number strictly between 0 and 1{' or 1' * allow_one}, got {value}"
        )
    return exact


def _entry(i: int, j: int) -> list[list[int]]:
    return [[int((r, c) in ((i, j), (j, i))) for c in range(3)] for r in range(3)]


# Each entry or pair with its position in (diagonal, full pair, perturbed pair); the last is the
# pair (1, 3).
_ENTRIES = [(_entry(i, i), 0) for i in range(3)] + [
    (_entry(0, 1), 1),
    (_entry(1, 2), 1),
    (_entry(0, 2), 2),
]

_BASIS = ((1, 0, -1), (0, 1, 0), (1, 0, 1))

_Exact = list[list[Fraction]]


def _exact_factors(delta: Fraction, diagonal: Fraction) -> list[_Exact]:
    """Return K_x, K_z and S_x of the perturbed completion, summed over its six measurements."""
    eps_squared = (1 - delta) / (1 + delta)
    size = (diagonal**2 - eps_squared) / (
        diagonal**2 + eps_squared
    )  # the square of each non-zero entry of x
    weights = (diagonal**2, Fraction(1, 2), eps_squared / 2)  # squared weights of the measurements
    factors = [[[Fraction(0)] * 3 for _ in range(3)] for _ in range(3)]
    for B, kind in _ENTRIES:
        images = [
            [sum(B[r][c] * v[c] for c in range(3)) for r in range(3)]
            for v in (_BASIS[0], _BASIS[2])
        ]
        seen = [
            sum(a * v for a, v in zip(image, u, strict=True))
            for image, u in zip(images, (_BASIS[0], _BASIS[2]), strict=True)
        ]
        for r in range(3):
            for c in range(3):
                factors[0][r][c] += weights[kind] * size * seen[0] * B[r][c]
                factors[1][r][c] += weights[kind] * seen[1] * B[r][c]
                factors[2][r][c] += weights[kind] * size * images[0][r] * images[0][c]
    return factors


def _eigenvalues(K: _Exact) -> list[Fraction]:
    """Return the eigenvalues of K on the common eigenvectors, which are verified."""
    values = []
    for v in _BASIS:
        image = [sum(K[r][c] * v[c] for c in range(3)) for r in range(3)]
        first = next(r for r in range(3) if v[r])
        value = Fraction(image[first]) / v[first]
        if any(image[r] != value * v[r] for r in range(3)):
            raise AssertionError("the common eigenvectors are proved in the module docstring")
        values.append(value)
    return values


def _product(values: list[Fraction], powers: tuple[int, int, int]) -> fmpq:
    product = fmpq(1)
    for value, k in zip(values, powers, strict=True):
        if value == 0 < k:  # so most end, before a large power
            return fmpq(0)
        product *= fmpq(value.numerator, value.denominator) ** k
    return product
