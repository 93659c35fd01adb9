"""Where the hypotheses of a claim hold: one map from the unit cube to instances.

A space is an ordered mapping from keyword to domain. The bounds of a domain may be text that names
the keywords before it, so that dependent hypotheses need no rejection and read as written:

    space = {"r": Int(1, 4), "k": Int("r + 1", 12), "w": Real(0.0, 1.0, size="k", capacity=12)}
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real

__all__ = ["Choice", "Domain", "Instance", "Int", "Real", "as_space", "dimension", "edges"]
__all__ += ["instance_at", "simpler", "strategy"]

Instance = Mapping[str, Any]
Bound = float | str
Size = int | str | tuple[int | str, ...]
WORDS = {"min": min, "max": max, "abs": abs, "sqrt": math.sqrt, "log": math.log, "pi": math.pi}


@dataclass(frozen=True)
class Int:
    """Integers from ``low`` to ``high``, both included; numbers, or text such as ``"r + 1"``."""

    low: Bound
    high: Bound
    coordinates: int = field(default=1, init=False)

    def _at(self, u: FloatArray, earlier: Instance) -> int:
        count = self._count(earlier)
        return math.ceil(_resolve(self.low, earlier)) + min(int(float(u[0]) * count), count - 1)

    def _count(self, earlier: Instance) -> int:
        low = math.ceil(_resolve(self.low, earlier))
        high = math.floor(_resolve(self.high, earlier))
        if low > high:
            raise ValueError(f"high: expected at least low = {low}, got {high}")
        return high - low + 1


@dataclass(frozen=True)
class Real:
    """Reals from ``low`` to ``high``, or arrays of them.

    Parameters
    ----------
    low, high, log
        Ends of the interval: numbers, or text in the names before; spread evenly in logarithm?
    size, capacity
        Shape of an array of such reals: integers, or text in the names before, and then the largest
        number of entries.
    """

    low: Bound
    high: Bound
    log: bool = False
    size: Size | None = None
    capacity: int | None = None

    def __post_init__(self) -> None:
        lengths = () if self.size is None else np.atleast_1d(np.array(self.size, object)).tolist()
        for length in lengths:
            if isinstance(length, str):
                as_count(self.capacity if self.capacity is not None else 0, "capacity")
            else:
                as_count(length, "size", minimum=0)

    @property
    def coordinates(self) -> int:
        """The number of entries, at most."""
        if self.capacity is not None:
            return self.capacity
        return 1 if self.size is None else math.prod(self._shape({}) or (1,))

    def _at(self, u: FloatArray, earlier: Instance) -> float | FloatArray:
        low, high = _resolve(self.low, earlier), _resolve(self.high, earlier)
        if not low <= high:
            raise ValueError(f"high: expected at least low = {low}, got {high}")
        if self.log and low <= 0:
            raise ValueError(f"low: expected a positive number on a log domain, got {low}")
        spread = low ** (1 - u) * high**u if self.log else low * (1 - u) + high * u
        values = np.clip(spread, low, high)
        shape = self._shape(earlier)
        if shape is None:
            return float(values[0])
        count = math.prod(shape)
        if count > self.coordinates:
            raise ValueError(f"capacity: expected at least {count}, got {self.coordinates}")
        return values[:count].reshape(shape)

    def _shape(self, earlier: Instance) -> tuple[int, ...] | None:
        if self.size is None:
            return None
        lengths = self.size if isinstance(self.size, tuple) else (self.size,)
        return tuple(int(_resolve(length, earlier)) for length in lengths)


@dataclass(frozen=True)
class Choice:
    """One of finitely many values, simplest first."""

    options: Sequence[Any]
    coordinates: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        as_count(len(self.options), "options")

    def _at(self, u: FloatArray, earlier: Instance) -> Any:
        count = self._count(earlier)
        return self.options[min(int(float(u[0]) * count), count - 1)]

    def _count(self, earlier: Instance) -> int:
        return len(self.options)


Domain = Int | Real | Choice


def as_space(space: Mapping[str, Domain]) -> Mapping[str, Domain]:
    """Return ``space`` if it maps names to domains, else raise a ValueError."""
    as_instance(space, "space", Mapping)
    if odd := {k: d for k, d in space.items() if not isinstance(d, Domain)}:
        raise ValueError(f"space: expected a domain (Int, Real, Choice) for every name, got {odd}")
    return space


def dimension(space: Mapping[str, Domain]) -> int:
    """Return the number of coordinates of the cube on which the space is defined."""
    return sum(domain.coordinates for domain in space.values())


def instance_at(space: Mapping[str, Domain], u: Sequence[float] | FloatArray) -> dict[str, Any]:
    """Return the instance at the point ``u``, shape (dimension(space),), of the unit cube."""
    point = as_array(u, "u", shape=(dimension(space),), allow_empty=True)
    if ((point < 0) | (point > 1)).any():
        raise ValueError("u: expected coordinates in [0, 1]")
    instance: dict[str, Any] = {}
    start = 0
    for name, domain in space.items():
        instance[name] = domain._at(point[start : start + domain.coordinates], instance)
        start += domain.coordinates
    return instance


def simpler(space: Mapping[str, Domain], u: FloatArray) -> Iterator[FloatArray]:
    """Yield points of the cube in which one value is simpler: a smaller index, rounder reals."""
    instance = instance_at(space, u)
    start = 0
    for domain in space.values():
        mine = slice(start, start := start + domain.coordinates)
        v = u[mine]
        if isinstance(domain, Real):
            rounder = np.where(np.diag(v % 0.5 != 0), 0.5, v)
            tries = [*(np.round(v, digits) for digits in range(5)), *rounder]
        else:
            count = domain._count(instance)
            index = min(int(v[0] * count), count - 1)
            halves = [index - (index >> j) for j in range(index.bit_length())]
            tries = [*np.array([(at + 0.5) / count for at in halves])]
        for values in tries:
            changed = u.copy()
            changed[mine] = values
            if (changed != u).any():
                yield changed


def edges(space: Mapping[str, Domain], count: int, seed: int) -> list[dict[str, Any]]:
    """Return ``count`` instances: both ends of the cube, two random vertices, the rest uniform."""
    d, rng = dimension(space), np.random.default_rng(seed)
    vertices = [np.zeros(d), np.ones(d), *(rng.random((2, d)) < 0.5).astype(float)]
    points = [*vertices, *rng.random((max(count - 4, 0), d))]
    return [instance_at(space, u) for u in points[:count]]


def strategy(space: Mapping[str, Domain]) -> Any:
    """Return the Hypothesis strategy that draws instances (needs the package ``hypothesis``).

    Examples
    --------
    >>> from hypothesis import find
    >>> from theorylab.verify import Int, strategy
    >>> find(strategy({"k": Int(1, 3)}), lambda case: case["k"] > 2)
    {'k': 3}
    """
    as_space(space)
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import arrays

    cube = arrays(np.float64, dimension(space), elements=st.floats(0.0, 1.0, width=32))
    return cube.map(lambda u: instance_at(space, u))


def _resolve(bound: Bound, earlier: Instance) -> float:
    if not isinstance(bound, str):
        return as_real(bound, "bound")
    try:
        return as_real(eval(bound, {"__builtins__": {}}, {**WORDS, **earlier}), "bound")
    except NameError as error:
        raise ValueError(f"bound: expected text in the names before, got {bound!r}") from error
