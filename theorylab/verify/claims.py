"""Declarations: a claim is a check under stacked decorators.

The function's docstring is the statement, its name the slug, its return value one part or a mapping
of named parts. The decorators say whose statement it is, which instances are judged, where its
hypotheses hold, what breaks it, and what is excepted, with the reason.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Any, Literal, TypeVar

from theorylab._validation import as_text
from theorylab.verify.spaces import Domain, Instance, as_space

__all__ = ["Claim", "Origin", "Preset", "also", "breaks", "cases", "full", "note", "paper"]
__all__ += ["rescues", "space"]

T = TypeVar("T")
Preset = Literal["quick", "full"]
Check = Callable[..., Any]
Declaring = Callable[[Check], "Claim"]
Changing = Callable[[Instance], Mapping[str, Any]]
Change = Mapping[str, Any] | Changing


class Origin(StrEnum):
    """Whose statement it is."""

    PUBLISHED = "published"
    ABSTRACT = "abstract"
    OURS = "ours"


DECLARED = ("cases", "full", "space", "breaks", "rescues", "notes", "also")
NOTES = ["no_space", "no_break", "coarse", "vacuous", "refuted_by", "contradicts", "open", "credit"]


@dataclass(frozen=True)
class Source:
    """A paper that a claim is about: its key, the letters it serves, and where it says so."""

    key: str
    serves: tuple[str, ...] = ()
    where: str = ""
    seen: str = ""


@dataclass(frozen=True, eq=False)
class Claim:
    """A check and what is declared of it; call it like the check itself."""

    check: Check
    statement: str
    origin: Origin
    sources: tuple[Source, ...]
    cases: Mapping[Preset, tuple[Instance, ...]]
    space: Mapping[str, Domain] | None
    breaks: Mapping[str, Change]
    rescues: Mapping[str, Change]
    notes: Mapping[str, str]
    panels: list[Any] = field(default_factory=list, repr=False)

    def __call__(self, **instance: Any) -> Any:
        """Run the check."""
        return self.check(**instance)

    @property
    def slug(self) -> str:
        """The function's name with hyphens."""
        return self.check.__name__.replace("_", "-")

    @property
    def refuted(self) -> bool:
        """Whether the claim is a published statement that is declared refuted."""
        return "refuted_by" in self.notes


class paper:
    r"""A paper and the setting of a script; its methods say whose statement a claim is.

    Parameters
    ----------
    key
        The paper's key in the corpus.
    setting
        LaTeX that opens every statement made with it.

    Examples
    --------
    >>> bounded = paper("kingma2014-adam", r"For $x\ge0$,")
    >>> @bounded.ours("an example", serves="a")
    ... @cases(x=[0.5, 1.0])
    ... @note(no_space="an example", no_break="an example")
    ... def half_is_smaller(x):
    ...     r"$x/2\le x$."
    >>> half_is_smaller.slug, half_is_smaller.statement
    ('half-is-smaller', 'For $x\\ge0$, $x/2\\le x$.')
    """

    def __init__(self, key: str, setting: str = "") -> None:
        self.key, self.setting = as_text(key, "key"), setting

    def published(self, where: str, *, seen: str, serves: str = "") -> Declaring:
        """Declare the paper's own statement, whose text was seen (``seen`` says in what)."""
        return self._declare(Origin.PUBLISHED, where, serves, as_text(seen, "seen"))

    def abstract(self, *letters: str, instance: bool = False) -> Declaring:
        """Declare what the abstract asserts, or (``instance``) a precise instance of it."""
        if not letters:
            raise ValueError("letters: expected the letters of the assertions, got none")
        where = "a precise instance of the abstract" if instance else "the abstract"
        return self._declare(Origin.ABSTRACT, where, "".join(letters))

    def ours(self, why: str, *, serves: str = "") -> Declaring:
        """Declare a statement of ours: derived, sharpened, corrected or recalled, and ``why``."""
        return self._declare(Origin.OURS, why, serves)

    def _declare(self, origin: Origin, where: str, serves: str, seen: str = "") -> Declaring:
        source = Source(self.key, tuple(serves), as_text(where, "where"), seen)
        return lambda check: _claim(check, origin, source, self.setting)


def _claim(check: Check, origin: Origin, source: Source, setting: str) -> Claim:
    given = {name: tuple(vars(check).get(f"_{name}", ())) for name in DECLARED}
    notes, breaks, rescues = (dict(given[name]) for name in ("notes", "breaks", "rescues"))
    quick = given["cases"] or ({},)
    name = f"{check.__name__}: expected"
    if not (check.__doc__ or "").strip():
        raise ValueError(f"{name} the statement as docstring, got none")
    if "refuted_by" in notes and (given["space"] or breaks or not rescues):
        raise ValueError(f"{name} rescues, and neither space nor breaks, for a refuted statement")
    if rescues and "refuted_by" not in notes:
        raise ValueError(f"{name} refuted_by= where something is rescued")
    if not {"refuted_by", "open"} & set(notes):
        for what in ("space", "breaks"):
            reason = f"no_{what.removesuffix('s')}"
            if bool(given[what]) == (reason in notes):
                raise ValueError(f"{name} either @{what} or @note({reason}=), got both or neither")
    hypotheses = given["space"][0] if given["space"] else None
    changes = [c for c in (*breaks.values(), *rescues.values()) if not callable(c)]
    used = {k for c in (*quick, *given["full"], *changes, hypotheses or {}) for k in c}
    if missing := used - set(inspect.signature(check).parameters):
        raise ValueError(f"{name} the parameters {sorted(missing)} in its signature")
    judged: dict[Preset, tuple[Instance, ...]] = {"quick": quick, "full": given["full"] or quick}
    statement = " ".join(f"{setting} {inspect.getdoc(check)}".split())
    sources = (source, *given["also"])
    return Claim(check, statement, origin, sources, judged, hypotheses, breaks, rescues, notes)


def _put(attribute: str, values: list[Any]) -> Callable[[T], T]:
    """Put values before those of the decorators below: they read from top to bottom."""

    def declare(check: T) -> T:
        if isinstance(check, Claim):
            raise ValueError("expected the decorator below that of the paper")
        vars(check)[attribute] = [*values, *vars(check).get(attribute, [])]
        return check

    return declare


def _grid(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    many = [v if isinstance(v, list) else [v] for v in axes.values()]
    return [dict(zip(axes, values, strict=True)) for values in product(*many)]


def cases(**axes: Any) -> Callable[[T], T]:
    """Judge these instances: a list is crossed, a tuple is one value; lines add up."""
    return _put("_cases", _grid(axes))


def full(**axes: Any) -> Callable[[T], T]:
    """Judge these in place of :func:`cases` in the full preset."""
    return _put("_full", _grid(axes))


def space(**domains: Domain) -> Callable[[T], T]:
    """Say where the hypotheses hold: keyword -> domain; bounds may name the keywords before."""
    return _put("_space", [as_space(domains)])


def breaks(name: str, change: Changing | None = None, /, **fixed: Any) -> Callable[[T], T]:
    """Break one hypothesis by changed keywords of the last case: the check must turn false."""
    return _put("_breaks", [(as_text(name, "name"), change or fixed)])


def rescues(name: str, change: Changing | None = None, /, **fixed: Any) -> Callable[[T], T]:
    """Give an instance in which a refuted statement does hold."""
    return _put("_rescues", [(as_text(name, "name"), change or fixed)])


def note(**reasons: str) -> Callable[[T], T]:
    """Except the claim from a rule, with the reason.

    ``no_space=``, ``no_break=``, ``coarse=`` (an equality cannot be resolved to 10 %), ``vacuous=``
    (a bound could be cut a thousandfold), ``refuted_by=`` (slug of the corrected claim),
    ``contradicts=`` (letters of assertions that a true claim contradicts), ``open=``, ``credit=``.
    """
    odd = set(reasons) - set(NOTES)
    if odd:
        raise ValueError(f"note: expected some of {', '.join(NOTES)}, got {', '.join(sorted(odd))}")
    return _put("_notes", [(k, as_text(v, k)) for k, v in reasons.items()])


def also(other: paper | str, *letters: str) -> Callable[[T], T]:
    """Name a second paper that the claim serves, with the letters of its assertions."""
    key = other.key if isinstance(other, paper) else as_text(other, "other")
    return _put("_also", [Source(key, tuple("".join(letters)))])
