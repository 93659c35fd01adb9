r"""Assumptions of a theorem, decided on data: held, failed, or undecided.

An open assumption (a rank, a strict inequality) holds if it is proved for the data and all that
round to them, fails if it is refuted, and is undecided in between. A closed one holds on its
boundary, to rounding; an equality (orthonormal columns, a stationary point), which floats hardly
meet, up to a relative ``tol``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from theorylab._validation import FloatArray
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "Finding",
    "Theorem",
    "all_of",
    "any_of",
    "compared",
    "distinct_eigenvalues",
    "exact_product",
    "independent_rows",
    "matches",
    "positive_definite",
    "singular_value_gap",
    "singular_values",
    "unit",
]

Relation = Literal["<", "<=", ">", ">="]
EPS = float(np.finfo(float).eps)
LARGEST = 32
"""Size up to which a singular matrix or a double eigenvalue is proved in rational arithmetic."""


@dataclass(frozen=True)
class Finding:
    """What was found of an assumption: ``holds`` (None: undecided), by which ``evidence``.

    The ``witness`` is what proves it, where that is an array: a separator, a low-rank direction.
    """

    holds: bool | None
    evidence: str
    witness: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class Theorem:
    """What can be tested of a theorem.

    Attributes
    ----------
    assumptions
        Name, as a person reads it -> predicate, which names the data that it takes; ``tol`` among
        them is the relative tolerance of equalities.
    data
        Name -> what it is, in the words of the theorem.
    """

    assumptions: Mapping[str, Callable[..., Finding]]
    data: Mapping[str, str]

    def __repr__(self) -> str:
        names = "; ".join(self.assumptions)
        return f"<Theorem of {', '.join(self.data)}: {names}>"


def compared(
    value: Any,
    relation: Relation,
    bound: Any,
    evidence: str,
    *,
    error: float = 0.0,
) -> Finding:
    """Decide an inequality between numbers whose difference is known up to rounding, ``error``.

    Examples
    --------
    >>> compared(1.0, "<=", 1.0, "").holds, compared(1.0, "<", 1.0, "").holds
    (True, False)
    >>> compared(1.0, "<", 1.0, "", error=1e-16).holds is None
    True
    """
    slack = float(bound - value) if relation in ("<", "<=") else float(value - bound)
    holds: bool | None = None
    if np.isfinite(error) and not np.isnan(slack):
        if relation in ("<=", ">="):
            holds = bool(slack >= -error)
        else:
            holds = True if slack > error else False if slack <= -error else None
    return Finding(holds, evidence)


def unit(A: FloatArray) -> FloatArray:
    """Return an array over the power of two that leaves entries of order one: squares of them, and
    sums of squares, stay within float64."""
    return np.asarray(np.ldexp(A, -binary_exponent(A)))


def matches(residual: Any, tol: float, evidence: str) -> Finding:
    """Decide an equality by its relative residual."""
    size = float(residual)
    return Finding(None if np.isnan(size) else size <= tol, f"{evidence} {size:.2g}")


def singular_values(A: FloatArray) -> tuple[FloatArray, float]:
    """Return the singular values, largest first, and what the rounding of entries moves them by."""
    values = np.ldexp(np.linalg.svd(unit(A), compute_uv=False), binary_exponent(A))
    return values, 4 * max(A.shape) * EPS * float(values[0])


def independent_rows(A: FloatArray) -> Finding:
    """Decide whether the rows of a matrix are linearly independent.

    Examples
    --------
    >>> independent_rows(np.eye(2)).holds, independent_rows(np.ones((2, 3))).holds
    (True, False)
    """
    n, d = A.shape
    if n > d:
        return Finding(False, f"{n} vectors in {d} dimensions")
    values, error = singular_values(A)
    least = f"least singular value {values[-1]:.3g}, largest {values[0]:.3g}"
    if values[-1] > error:
        return Finding(True, f"rank {n}; {least}")
    return _singular(A, n, f"rank below {n}, exactly", f"{least}: rounding")


def positive_definite(S: FloatArray) -> Finding:
    """Decide whether the symmetric part of a matrix is positive definite.

    Examples
    --------
    >>> [positive_definite(np.diag([1.0, x])).holds for x in (1.0, 0.0, -1.0)]
    [True, False, False]
    """
    S = S / 2 + S.T / 2
    values, error = _eigenvalues(S)
    least = f"least eigenvalue {values[-1]:.3g}"
    if abs(values[-1]) > error:
        return Finding(bool(values[-1] > 0), least)
    return _singular(S, len(S), "singular, exactly", f"{least}: rounding")


def distinct_eigenvalues(S: FloatArray) -> Finding:
    """Decide whether no two eigenvalues of the symmetric part of a matrix are equal.

    Examples
    --------
    >>> [distinct_eigenvalues(np.diag([1.0, x])).holds for x in (2.0, 1.0)]
    [True, False]
    """
    S = S / 2 + S.T / 2
    values, error = _eigenvalues(S)
    return _distinct(values, error, lambda: _exact(S), slice(None))


def _eigenvalues(S: FloatArray) -> tuple[FloatArray, float]:
    """Return the eigenvalues, largest first, and what the rounding of entries moves them by."""
    values = np.ldexp(np.linalg.eigvalsh(unit(S)), binary_exponent(S))[::-1]
    return values, 4 * len(S) * EPS * float(np.abs(values).max())


def singular_value_gap(A: FloatArray, k: int) -> Finding:
    """Decide whether the k-th singular value of a matrix of d > k columns is above the next.

    Examples
    --------
    >>> [singular_value_gap(np.diag([3.0, 2.0, 2.0]), k).holds for k in (1, 2)]
    [True, False]
    """
    values, error = singular_values(A)
    padded = np.append(values, np.zeros(max(A.shape[1] - len(values), 0)))

    def gram() -> Any:
        exact = _exact(A)
        return exact.transpose() * exact

    return _distinct(padded, error, gram, slice(k - 1, k))


def _distinct(values: FloatArray, error: float, exact: Callable[[], Any], chosen: slice) -> Finding:
    """Decide whether decreasing values, known to an error, differ from the next ones. They are a
    function of the eigenvalues of a matrix, of which the distinct ones are counted exactly."""
    steps = values[:-1] - values[1:]
    if not steps[chosen].size:
        return Finding(True, "a single one")
    text = f"least gap {steps[chosen].min():.3g}, largest value {values[0]:.3g}"
    if steps[chosen].min() > 2 * error:
        return Finding(True, text)
    if len(values) <= LARGEST:
        polynomial = exact().charpoly()
        distinct = len(values) - polynomial.gcd(polynomial.derivative()).degree()
        if distinct == 1 + int(np.sum(steps > 2 * error)):
            return Finding(False, "two are equal, exactly")
    return Finding(None, f"{text}: rounding")


def exact_product(u: FloatArray, v: FloatArray) -> Fraction:
    """Return the inner product of two vectors of floats, exactly."""
    pairs = zip(u.tolist(), v.tolist(), strict=True)
    return sum((Fraction(x) * Fraction(y) for x, y in pairs), Fraction(0))


def all_of(*findings: Finding) -> Finding:
    """Join findings of one assumption: all must hold.

    Examples
    --------
    >>> yes, no, open_ = Finding(True, "a"), Finding(False, "b"), Finding(None, "c")
    >>> all_of(yes, open_).holds is None, all_of(no, open_).holds, any_of(yes, open_).holds
    (True, False, True)
    """
    return _joined(findings, False)


def any_of(*findings: Finding) -> Finding:
    """Join findings of one assumption: one that holds is enough."""
    return _joined(findings, True)


def _joined(findings: Sequence[Finding], decisive: bool) -> Finding:
    values = [found.holds for found in findings]
    holds = decisive if decisive in values else None if None in values else not decisive
    texts = dict.fromkeys(found.evidence for found in findings)
    return Finding(holds, "; ".join(filter(None, texts)))


def _singular(A: FloatArray, full: int, proved: str, left: str) -> Finding:
    if max(A.shape) <= LARGEST and _exact(A).rank() < full:
        return Finding(False, proved)
    return Finding(None, left)


def _exact(A: FloatArray) -> Any:
    from flint import fmpq, fmpq_mat

    n, d = A.shape
    return fmpq_mat(n, d, [fmpq(*x.as_integer_ratio()) for x in A.ravel().tolist()])
