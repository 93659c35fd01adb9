"""The one validation helper: bad input raises ``ValueError`` naming the argument, what was expected
and what came."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import wraps
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")

__all__ = [
    "FloatArray",
    "as_array",
    "as_count",
    "as_flag",
    "as_function",
    "as_instance",
    "as_real",
    "as_symmetric",
    "as_text",
    "one_of",
    "precision_of",
    "refuses_overflow",
]


def as_array(
    value: ArrayLike,
    name: str,
    *,
    ndim: int | None = None,
    shape: Sequence[int | None] | None = None,
    nonnegative: bool = False,
    positive: bool = False,
    allow_empty: bool = False,
    finite: bool = True,
) -> FloatArray:
    """Return ``value`` as a finite, writeable C-contiguous float64 array, without a copy where it
    already is one.

    Compiled kernels see one type only: a read-only array (a column of a data frame, a memory map)
    would have each of them compiled a second time.

    Parameters
    ----------
    value
        Anything ``numpy.asarray`` accepts, object columns of numbers included; real numbers only,
        and no sparse matrices.
    name
        The argument's name in the caller's signature, for the message.
    ndim
        Required number of axes.
    shape
        Required length of each axis, ``None`` where it is free.
    nonnegative, positive
        Require every entry to be >= 0, or > 0.
    allow_empty
        Accept an array without entries.
    finite
        Refuse NaN and infinities.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    raw = _numbers(value, name)
    array = np.ascontiguousarray(raw, dtype=np.float64).reshape(raw.shape)
    if not (array.flags.writeable and array.flags.aligned):
        array = array.copy()
    if shape is not None and array.shape != tuple(shape):
        fits = len(array.shape) == len(shape) and all(
            s in (None, n) for s, n in zip(shape, raw.shape, strict=True)
        )
        if not fits:
            expected = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
            raise ValueError(f"{name}: expected shape {expected}, got {_describe_array(raw)}")
    elif ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes, got {_describe_array(raw)}")
    if array.size == 0 and not allow_empty:
        raise ValueError(f"{name}: expected at least one entry, got {_describe_array(raw)}")
    if finite and not np.isfinite(array).all():
        raise ValueError(
            f"{name}: expected finite numbers, got {array[~np.isfinite(array)].flat[0]} in "
            f"{_describe_array(raw)}"
        )
    if positive and (array <= 0).any():
        raise ValueError(f"{name}: expected positive numbers, got {array.min()}")
    if nonnegative and (array < 0).any():
        raise ValueError(f"{name}: expected non-negative numbers, got {array.min()}")
    return array


def as_symmetric(
    value: ArrayLike, name: str, *, size: int | None = None, ndim: int = 2
) -> FloatArray:
    """Return ``value`` as by :func:`as_array`, if its last two axes make symmetric matrices.

    Parameters
    ----------
    value
        Shape (n, n), or (m, n, n) for a stack; it may differ from its transpose by the rounding of
        a product of n terms in its own precision.
    name
        The argument's name in the caller's signature.
    size
        Required n.
    ndim
        2, or 3 for a stack.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    array = as_array(value, name, ndim=ndim)
    if array.shape[-1] != array.shape[-2] or size not in (None, array.shape[-1]):
        raise ValueError(
            f"{name}: expected square matrices of size {size or 'n'}, got an array of shape "
            f"{array.shape}"
        )
    skew = np.abs(array - np.swapaxes(array, -1, -2)).max()
    if not skew <= 8 * array.shape[-1] * precision_of(value) * np.abs(array).max():
        raise ValueError(
            f"{name}: expected a symmetric matrix, got one that differs from its "
            f"transpose by {skew}"
        )
    return array


def precision_of(value: ArrayLike) -> float:
    """Return the relative rounding error of the numbers as they came: that of float32 for a kernel
    computed in it."""
    dtype = np.asarray(value).dtype
    # Complete by conversion, every other type is as accurate as the float64 that it becomes.
    return float(np.finfo(dtype if dtype.kind == "f" and dtype.itemsize < 8 else np.float64).eps)


def refuses_overflow(
    *names: str, infinite: bool = False
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function refuse arguments whose products leave float64, instead of returning NaN,
    infinity or a raw error. What a callback raises is its own.

    Parameters
    ----------
    names
        The arguments whose magnitude decides.
    infinite
        Whether infinity is an answer.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            callback, told = kwargs.get("callback"), list[BaseException]()
            if callable(callback):

                def watched(record: Any) -> Any:
                    try:
                        return callback(record)
                    except BaseException as error:
                        told.append(error)
                        raise

                kwargs["callback"] = watched
            try:
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    result = function(*args, **kwargs)
                if _is_sound(result, infinite):
                    return result
            except (ArithmeticError, np.linalg.LinAlgError) as error:
                if error in told:
                    raise
            raise ValueError(
                f"{', '.join(names)}: expected magnitudes whose products stay within float64, got "
                "an overflow or a loss of all digits"
            )

        return checked

    return decorate


def _is_sound(result: Any, infinite: bool) -> bool:
    """Whether no number in a result is NaN, or infinite where that is no answer."""
    if isinstance(result, float | np.ndarray) and np.asarray(result).dtype.kind == "f":
        return not np.isnan(result).any() if infinite else bool(np.isfinite(result).all())
    if isinstance(result, list | tuple):
        return all(_is_sound(part, infinite) for part in result)
    if dataclasses.is_dataclass(result):
        fields = dataclasses.fields(result)
        return all(_is_sound(getattr(result, field.name), infinite) for field in fields)
    return True


def as_real(
    value: float,
    name: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    allow_inf: bool = False,
) -> float:
    """Return ``value`` as a float inside [``minimum``, ``maximum``] and strictly inside (``above``,
    ``below``).

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    bounds = [
        text
        for bound, text in (
            (minimum, f">= {minimum}"),
            (maximum, f"<= {maximum}"),
            (above, f"> {above}"),
            (below, f"< {below}"),
        )
        if bound is not None
    ]
    expected = " and ".join(["a real number" if allow_inf else "a finite real number", *bounds])
    value = _scalar(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real | np.floating | np.integer):
        raise ValueError(f"{name}: expected {expected}, got {_describe(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected {expected}, got a number beyond float64") from None
    inside = (
        (np.isfinite(number) or (allow_inf and not np.isnan(number)))
        and (minimum is None or number >= minimum)
        and (maximum is None or number <= maximum)
        and (above is None or number > above)
        and (below is None or number < below)
    )
    if not inside:
        raise ValueError(f"{name}: expected {expected}, got {number}")
    return number


def as_count(value: int, name: str, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return ``value`` as an int between ``minimum`` and ``maximum``; floats are refused, even 3.0.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    expected = f"an integer >= {minimum}" + ("" if maximum is None else f" and <= {maximum}")
    value = _scalar(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral | np.integer):
        raise ValueError(f"{name}: expected {expected}, got {_describe(value)}")
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name}: expected {expected}, got {number}")
    return number


def one_of(value: str, name: str, options: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``options``.

    Raises
    ------
    ValueError
        Naming the argument, the options and what came.
    """
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}, got {_describe(value)}")
    return value


def as_flag(value: bool, name: str) -> bool:
    """Return ``value`` as a bool; 0 and 1 are refused.

    Raises
    ------
    ValueError
        Naming the argument and what came.
    """
    value = _scalar(value)
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {_describe(value)}")
    return bool(value)


def as_text(value: str, name: str) -> str:
    """Return ``value`` if it is a string that says something.

    Raises
    ------
    ValueError
        Naming the argument and what came.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: expected a text, got {_describe(value)}")
    return value


def as_instance(value: T, name: str, kind: Any) -> T:
    """Return ``value`` if it is an instance of the class ``kind``: a generator, an operator, a
    result of another function.

    Raises
    ------
    ValueError
        Naming the argument, the type expected and what came.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected an instance of {kind.__name__}, got {_describe(value)}")
    return value


def as_function(value: F, name: str) -> F:
    """Return ``value`` if it can be called.

    Raises
    ------
    ValueError
        Naming the argument and what came.
    """
    if not callable(value):
        raise ValueError(f"{name}: expected a function, got {_describe(value)}")
    return value


def _numbers(value: ArrayLike, name: str) -> NDArray[Any]:
    """Return real numbers of any type as an array of that type."""
    if type(value) is np.ndarray and value.dtype.kind in "buif":
        return value
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise ValueError(
            f"{name}: expected a dense array, got {_describe(value)}; pass its .toarray()"
        )
    items = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, np.ma.MaskedArray) and np.ma.is_masked(item) for item in items):
        raise ValueError(f"{name}: expected real numbers, got a masked array with masked entries")
    try:
        raw = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name}: expected a rectangular array of real numbers, got a ragged sequence"
        ) from None
    if raw.dtype.kind == "O":
        # A data frame with columns of several types, and one that may have missing entries.
        odd = next((x for x in raw.flat if not isinstance(x, Real | np.bool_)), None)
        if odd is not None or None in raw.flat:
            raise ValueError(
                f"{name}: expected real numbers, got an entry of type {type(odd).__name__} in "
                f"{_describe_array(raw)}"
            )
        try:
            return raw.astype(np.float64)
        except (OverflowError, ValueError):
            raise ValueError(f"{name}: expected real numbers, got one beyond float64") from None
    if raw.dtype.kind not in "buif":
        raise ValueError(f"{name}: expected real numbers, got {_describe(value)}")
    return raw


def _scalar(value: Any) -> Any:
    """Return the number in an array without axes, and anything else as it came."""
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _describe_array(array: NDArray[Any]) -> str:
    return f"an array of {array.dtype} of shape {array.shape}"


def _describe(value: Any) -> str:
    if isinstance(value, str | int | float | None):
        return repr(value)
    if isinstance(value, np.ndarray):
        return _describe_array(value)
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {shape}" if isinstance(shape, tuple) else "")
