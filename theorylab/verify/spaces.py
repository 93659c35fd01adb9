"""Where the hypotheses of a claim hold: one map from the unit cube to instances.

A space is an ordered mapping from keyword to domain. Each domain maps its own coordinates of the
unit cube to a value, and its bounds may depend on the names before it, so that dependent hypotheses
(``k > r``) need no rejection:

    space = {"r": Int(1, 4), "k": Int(lambda p: p["r"] + 1, 12), "weights": Real(0.0, 1.0,
    size=lambda p: p["k"], capacity=12)}

The same map serves property tests (:func:`strategy`), the counterexample search
(:func:`theorylab.verify.falsify`) and grids."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real

__all__ = [
    "Choice",
    "Domain",
    "Instance",
    "Int",
    "Real",
    "as_space",
    "contains",
    "dimension",
    "draw",
    "hypotheses",
    "instance_at",
    "same",
    "strategy",
]

Instance = Mapping[str, Any]
Bound = float | Callable[[Instance], float]
Size = int | tuple[int, ...] | Callable[[Instance], int | tuple[int, ...]]


@runtime_checkable
class Domain(Protocol):
    """One hypothesis: ``coordinates`` numbers in [0, 1] make a value."""

    @property
    def coordinates(self) -> int:
        """How many coordinates of the cube the domain reads."""
        ...

    def at(self, u: FloatArray, earlier: Instance) -> Any:
        """Return the value at the point ``u`` of the cube, given the values of the names before."""
        ...

    def contains(self, value: Any, earlier: Instance) -> bool:
        """Whether the value satisfies the hypothesis."""
        ...

    def simpler(self, value: Any, earlier: Instance) -> Iterator[Any]:
        """Yield simpler candidates, simplest first; the search keeps those that lie in the
        domain."""
        ...


@dataclass(frozen=True)
class Int:
    """Integers from ``low`` to ``high``, both included."""

    low: Bound
    high: Bound
    coordinates: int = field(default=1, init=False)

    def at(self, u: FloatArray, earlier: Instance) -> int:
        """Return the integer at ``u``; equal parts of the cube make equal numbers of integers."""
        low, high = self._ends(earlier)
        return min(low + int(float(u[0]) * (high - low + 1)), high)

    def contains(self, value: Any, earlier: Instance) -> bool:
        """Whether ``value`` is an integer in the range."""
        low, high = self._ends(earlier)
        return isinstance(value, int | np.integer) and low <= int(value) <= high

    def simpler(self, value: Any, earlier: Instance) -> Iterator[int]:
        """Yield smaller integers, by halving the distance to the lower end."""
        low, _ = self._ends(earlier)
        step = int(value) - low
        while step > 0:
            yield int(value) - step
            step //= 2

    def _ends(self, earlier: Instance) -> tuple[int, int]:
        low, high = math.ceil(_resolve(self.low, earlier)), math.floor(_resolve(self.high, earlier))
        if low > high:
            raise ValueError(f"high: expected at least low = {low}, got {high}")
        return low, high


@dataclass(frozen=True)
class Real:
    """Reals from ``low`` to ``high``, or arrays of them.

    Parameters
    ----------
    low, high
        Ends of the interval; numbers or functions of the earlier names.
    log
        Spread the values evenly in logarithm; needs ``low > 0``.
    size
        Shape of an array of such reals, possibly a function of the earlier names.
    capacity
        The largest number of entries, needed where ``size`` is a function.
    """

    low: Bound
    high: Bound
    log: bool = False
    size: Size | None = None
    capacity: int | None = None

    def __post_init__(self) -> None:
        if callable(self.size):
            as_count(self.capacity if self.capacity is not None else 0, "capacity")
        elif self.size is not None:
            for length in self.size if isinstance(self.size, tuple) else (self.size,):
                as_count(length, "size", minimum=0)

    @property
    def coordinates(self) -> int:
        """The number of entries, at most."""
        if self.capacity is not None:
            return self.capacity
        return (
            1
            if self.size is None or callable(self.size)
            else math.prod(np.atleast_1d(self.size).tolist())
        )

    def at(self, u: FloatArray, earlier: Instance) -> float | FloatArray:
        """Return the number or array at ``u``."""
        low, high = self._ends(earlier)
        spread = low ** (1 - u) * high**u if self.log else low * (1 - u) + high * u
        values = np.clip(spread, low, high)
        shape = self._shape(earlier)
        if shape is None:
            return float(values[0])
        count = math.prod(shape)
        if count > self.coordinates:
            raise ValueError(f"capacity: expected at least {count}, got {self.coordinates}")
        return values[:count].reshape(shape)

    def contains(self, value: Any, earlier: Instance) -> bool:
        """Whether every entry lies in the interval, and the shape is right."""
        low, high = self._ends(earlier)
        array = np.asarray(value)
        shape = self._shape(earlier)
        fits = array.shape == (() if shape is None else shape)
        return bool(
            fits and array.dtype.kind in "if" and (array >= low).all() and (array <= high).all()
        )

    def simpler(self, value: Any, earlier: Instance) -> Iterator[Any]:
        """Yield the value rounded to few decimals, and arrays with entries set to zero or to each
        other."""
        if self._shape(earlier) is None:
            for digits in range(6):
                yield round(float(value), digits)
            return
        array = np.asarray(value, dtype=np.float64)
        if array.size:
            yield np.full_like(array, array.flat[0])
        for digits in range(6):
            yield np.round(array, digits)
        for index in range(array.size):
            changed = array.copy()
            changed.flat[index] = 0.0
            yield changed

    def _ends(self, earlier: Instance) -> tuple[float, float]:
        low, high = _resolve(self.low, earlier), _resolve(self.high, earlier)
        if not low <= high:
            raise ValueError(f"high: expected at least low = {low}, got {high}")
        if self.log and low <= 0:
            raise ValueError(f"low: expected a positive number on a logarithmic domain, got {low}")
        return low, high

    def _shape(self, earlier: Instance) -> tuple[int, ...] | None:
        if self.size is None:
            return None
        size = self.size(earlier) if callable(self.size) else self.size
        return tuple(size) if isinstance(size, tuple) else (int(size),)


@dataclass(frozen=True)
class Choice:
    """One of finitely many values, simplest first."""

    options: Sequence[Any]
    coordinates: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        as_count(len(self.options), "options")

    def at(self, u: FloatArray, earlier: Instance) -> Any:
        """Return the option at ``u``."""
        return self.options[min(int(float(u[0]) * len(self.options)), len(self.options) - 1)]

    def contains(self, value: Any, earlier: Instance) -> bool:
        """Whether ``value`` is one of the options."""
        return self._index(value) is not None

    def simpler(self, value: Any, earlier: Instance) -> Iterator[Any]:
        """Yield the options before ``value``."""
        yield from self.options[: self._index(value)]

    def _index(self, value: Any) -> int | None:
        found = [i for i, option in enumerate(self.options) if value is option]
        found = found or [i for i, option in enumerate(self.options) if same(value, option)]
        return found[0] if found else None


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal; arrays are if their shapes and all their entries are."""
    return (
        np.array_equal(a, b)
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray)
        else bool(a == b)
    )


def as_space(space: Mapping[str, Domain]) -> Mapping[str, Domain]:
    """Return ``space`` if it maps names to domains.

    Raises
    ------
    ValueError
        Naming what came.
    """
    as_instance(space, "space", Mapping)
    odd = {
        name: domain
        for name, domain in space.items()
        if not isinstance(domain, Domain) or isinstance(domain, type)
    }
    if odd:
        raise ValueError(f"space: expected a domain (Int, Real, Choice) for every name, got {odd}")
    return space


def dimension(space: Mapping[str, Domain]) -> int:
    """Return the number of coordinates of the cube on which the space is defined."""
    return sum(domain.coordinates for domain in space.values())


def instance_at(space: Mapping[str, Domain], u: Sequence[float] | FloatArray) -> dict[str, Any]:
    """Return the instance at the point ``u``, shape (dimension(space),), of the unit cube.

    Raises
    ------
    ValueError
        If ``u`` has another shape or leaves the cube.
    """
    point = as_array(u, "u", shape=(dimension(space),), allow_empty=True)
    if ((point < 0) | (point > 1)).any():
        raise ValueError("u: expected coordinates in [0, 1]")
    instance: dict[str, Any] = {}
    start = 0
    for name, domain in space.items():
        instance[name] = domain.at(point[start : start + domain.coordinates], instance)
        start += domain.coordinates
    return instance


def contains(space: Mapping[str, Domain], instance: Instance) -> bool:
    """Whether the instance satisfies every hypothesis of the space."""
    earlier: dict[str, Any] = {}
    for name, domain in space.items():
        if name not in instance:
            return False
        try:
            if not domain.contains(instance[name], earlier):
                return False
        except ValueError:
            # The bounds of this domain make no sense for the earlier values: no instance has them.
            return False
        earlier[name] = instance[name]
    return True


def draw(space: Mapping[str, Domain], rng: np.random.Generator) -> dict[str, Any]:
    """Return the instance at a uniform random point of the cube."""
    return instance_at(space, rng.random(dimension(space)))


def strategy(space: Mapping[str, Domain]) -> Any:
    """Return the Hypothesis strategy that draws instances from the space (needs the package
    ``hypothesis``)."""
    as_space(space)
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import arrays

    cube = arrays(np.float64, dimension(space), elements=st.floats(0.0, 1.0, width=32))

    def at(u: NDArray[np.float64]) -> dict[str, Any]:
        return instance_at(space, u)

    return cube.map(at)


def hypotheses(space: Mapping[str, Domain]) -> dict[str, str]:
    """Say for each name of the space where its values lie; bounds that depend on earlier names are
    written in these names."""
    import sympy as sp

    symbols = {name: sp.Symbol(name) for name in as_space(space)}

    def written(value: Any) -> str:
        if not callable(value):
            return str(value)
        try:
            return str(value(symbols))
        except Exception:  # not made of arithmetic alone
            return "a bound that depends on the names before"

    def sentence(domain: Domain) -> str:
        if isinstance(domain, Int):
            return f"an integer from {written(domain.low)} to {written(domain.high)}"
        if isinstance(domain, Real):
            kind = (
                "a real number"
                if domain.size is None
                else f"reals of shape ({written(domain.size).strip('()')})"
            )
            return f"{kind} from {written(domain.low)} to {written(domain.high)}"
        if isinstance(domain, Choice):
            return "one of " + ", ".join(map(str, domain.options))
        return str(domain)

    return {name: sentence(domain) for name, domain in space.items()}


def _resolve(bound: Bound, earlier: Instance) -> float:
    return as_real(bound(earlier) if callable(bound) else bound, "bound")
