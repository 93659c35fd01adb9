"""Does a theorem apply to given data? Its assumptions, held, failed or undecided, by name."""

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from theorylab._validation import as_real, as_text
from theorylab.numerics.assumptions import Finding, Theorem
from theorylab.numerics.results import result

__all__ = ["Assumptions", "applies", "checkable_theorems", "theorems_of"]

THEMES = (
    *("convex_relu", "implicit_regularization", "matrix_sensing"),
    *("neural_collapse", "optimal_transport", "random_features"),
)


@result
class Assumptions:
    """What was found of the assumptions of a theorem; true if all of them hold.

    Iteration gives the names of those that fail.

    Attributes
    ----------
    theorem
        Its name.
    findings
        Name of an assumption -> whether it ``holds`` (None: undecided), the ``evidence`` in words,
        and the ``witness`` that proves it, where that is an array.
    """

    theorem: str
    findings: Mapping[str, Finding]

    @property
    def held(self) -> tuple[str, ...]:
        """Names of those proved for the data: equalities up to the tolerance, inequalities that
        may be attained up to rounding."""
        return self._named(True)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of those refuted."""
        return self._named(False)

    @property
    def undecided(self) -> tuple[str, ...]:
        """Names of those neither proved nor refuted: rounding, the budget of a search, or a number
        that is defined only where another assumption holds."""
        return self._named(None)

    def _named(self, holds: bool | None) -> tuple[str, ...]:
        return tuple(name for name, found in self.findings.items() if found.holds is holds)

    def __bool__(self) -> bool:
        return len(self.held) == len(self.findings)

    def __iter__(self) -> Iterator[str]:
        return iter(self.failed)

    def __repr__(self) -> str:
        parts = {"held": self.held, "failed": self.failed, "undecided": self.undecided}
        text = "; ".join(f"{part}: {', '.join(names)}" for part, names in parts.items() if names)
        return f"<Assumptions of {self.theorem}: {text}>"

    def summary(self) -> str:
        """Return a line for each assumption, with its evidence."""
        words = {True: "holds", False: "FAILS", None: "undecided"}
        return "\n".join(
            f"{words[found.holds]}: {name} ({found.evidence})"
            for name, found in self.findings.items()
        )


def checkable_theorems() -> dict[str, Theorem]:
    """Return the theorems whose assumptions can be tested on data, by name.

    A name is that of a claim, "theme/module:slug", or of a bound whose docstring states a theorem.

    Examples
    --------
    >>> from theorylab.verify import checkable_theorems
    >>> checkable_theorems()["optimal_transport/particle_flows:particle-gd-rate"]
    <Theorem of particles, step_size: distinct particles; step in (0, 1/2]>
    """
    return {name: theorem for theme in THEMES for name, theorem in theorems_of(theme).items()}


def theorems_of(theme: str) -> dict[str, Theorem]:
    """Return those of a theme, of which there are none outside the core ones."""
    if theme not in THEMES:
        return {}
    declared = import_module(f"theorylab.{theme}._assumptions").THEOREMS
    return {f"{theme}/{name}": theorem for name, theorem in declared.items()}


def applies(theorem: str, *, tol: float = 1e-9, **data: Any) -> Assumptions:
    """Test the assumptions of a theorem on data: what holds, what fails, what is undecided.

    Strict inequalities and ranks are proved or refuted for the floats given, or undecided if their
    rounding, or the budget of a search, leaves them open. Inequalities that may be attained hold
    up to rounding. Assumptions about the law of random data are not listed: a sample does not
    decide them.

    Parameters
    ----------
    theorem
        One of :func:`checkable_theorems`.
    tol
        Relative error up to which equalities hold, and the constants of an isometry: orthonormal
        columns, a stationary point.
    data
        The data of the theorem, by the names that it lists.

    Examples
    --------
    >>> from theorylab.verify import applies
    >>> found = applies(
    ...     "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights",
    ...     Z=[[3.0, 4.0], [0.0, 1.0]],
    ...     step_size=0.2,
    ...     steps=100,
    ... )
    >>> bool(found), list(found)
    (False, ['steps at most 4 / R^2'])
    >>> print(found.summary())
    holds: some w separates the rows (margin at least 1)
    FAILS: steps at most 4 / R^2 (step 0.2, 4 / R^2 = 0.16)
    holds: mu^2 eta t at least 1 (mu^2 eta t = 20)
    """
    name = as_text(theorem, "theorem")
    accuracy = as_real(tol, "tol", minimum=0.0, below=1.0)
    known = theorems_of(name.split("/")[0])
    if name not in known:
        raise ValueError(f"theorem: expected one of checkable_theorems(), got {name!r}")
    stated = known[name]
    for word in data.keys() - stated.data.keys():
        raise ValueError(f"{word}: expected only {', '.join(stated.data)}, got {word} too")
    for word in stated.data.keys() - data.keys():
        raise ValueError(f"{word}: expected {stated.data[word]}, got nothing")
    given = {**data, "tol": accuracy}
    findings = {}
    for assumption, predicate in stated.assumptions.items():
        taken = inspect.signature(predicate).parameters
        try:
            with np.errstate(all="ignore"):
                findings[assumption] = predicate(**{word: given[word] for word in taken})
        except (ArithmeticError, np.linalg.LinAlgError):
            raise ValueError(
                f"{', '.join(stated.data)}: expected magnitudes whose products stay within float64"
            ) from None
    return Assumptions(name, findings)
