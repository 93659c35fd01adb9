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
    """Judge these instances: a list is crossed, a tuple is one value; lines add up.

    Examples
    --------
    >>> from theorylab.verify import cases, note, paper
    >>> @paper("kingma2014-adam").ours("an example")
    ... @cases(n=[2, 3], k=(1, 2))
    ... @cases(n=9)
    ... @note(no_space="an example", no_break="an example")
    ... def sizes(n, k=()):
    ...     'Sizes.'
    >>> sizes.cases["quick"]
    ({'n': 2, 'k': (1, 2)}, {'n': 3, 'k': (1, 2)}, {'n': 9})
    """
    return _put("_cases", _grid(axes))


def full(**axes: Any) -> Callable[[T], T]:
    """Judge these in place of :func:`cases` in the full preset.

    Examples
    --------
    >>> from theorylab.verify import cases, full, note, paper
    >>> @paper("kingma2014-adam").ours("an example")
    ... @cases(n=2)
    ... @full(n=[2, 30])
    ... @note(no_space="an example", no_break="an example")
    ... def sizes(n):
    ...     'Sizes.'
    >>> sizes.cases["full"]
    ({'n': 2}, {'n': 30})
    """
    return _put("_full", _grid(axes))


def space(**domains: Domain) -> Callable[[T], T]:
    """Say where the hypotheses hold: keyword -> domain; bounds may name the keywords before.

    Examples
    --------
    >>> from theorylab.verify import Int, note, paper, space
    >>> @paper("kingma2014-adam").ours("an example")
    ... @space(n=Int(2, 9), rank=Int(1, "n - 1"))
    ... @note(no_break="an example")
    ... def ranks(n=3, rank=1):
    ...     'Ranks.'
    >>> list(ranks.space)
    ['n', 'rank']
    """
    return _put("_space", [as_space(domains)])


def breaks(name: str, change: Changing | None = None, /, **fixed: Any) -> Callable[[T], T]:
    """Break one hypothesis by changed keywords of the last case: the check must turn false.

    Examples
    --------
    >>> from theorylab.verify import breaks, note, paper
    >>> @paper("kingma2014-adam").ours("an example")
    ... @breaks("full rank", lambda case: {"rank": case["n"]})
    ... @breaks("no rank", rank=0)
    ... @note(no_space="an example")
    ... def ranks(n=3, rank=1):
    ...     'Ranks.'
    >>> list(ranks.breaks)
    ['full rank', 'no rank']
    """
    return _put("_breaks", [(as_text(name, "name"), change or fixed)])


def rescues(name: str, change: Changing | None = None, /, **fixed: Any) -> Callable[[T], T]:
    """Give an instance in which a refuted statement does hold.

    Examples
    --------
    >>> from theorylab.verify import note, paper, rescues
    >>> @paper("kingma2014-adam").published("Lemma 1", seen="an example")
    ... @rescues("one step", steps=1)
    ... @note(refuted_by="a-corrected-claim")
    ... def steps_add_up(steps=2):
    ...     'Steps add up.'
    >>> steps_add_up.refuted, list(steps_add_up.rescues)
    (True, ['one step'])
    """
    return _put("_rescues", [(as_text(name, "name"), change or fixed)])


def note(**reasons: str) -> Callable[[T], T]:
    """Except the claim from a rule, with the reason.

    ``no_space=``, ``no_break=``, ``coarse=`` (an equality cannot be resolved to 10 %), ``vacuous=``
    (a bound could be cut a thousandfold), ``refuted_by=`` (slug of the corrected claim),
    ``contradicts=`` (letters of assertions that a true claim contradicts), ``open=``, ``credit=``.

    Examples
    --------
    >>> from theorylab.verify import note, paper
    >>> @paper("kingma2014-adam").ours("an example")
    ... @note(no_space="one instance is all there is", no_break="nothing is assumed")
    ... def one_instance():
    ...     'One instance.'
    >>> one_instance.notes["no_break"]
    'nothing is assumed'
    """
    odd = set(reasons) - set(NOTES)
    if odd:
        raise ValueError(f"note: expected some of {', '.join(NOTES)}, got {', '.join(sorted(odd))}")
    return _put("_notes", [(k, as_text(v, k)) for k, v in reasons.items()])


def also(other: paper | str, *letters: str) -> Callable[[T], T]:
    """Name a second paper that the claim serves, with the letters of its assertions.

    Examples
    --------
    >>> from theorylab.verify import also, note, paper
    >>> @paper("kingma2014-adam").ours("an example")
    ... @also("xiong2023-over", "b")
    ... @note(no_space="an example", no_break="an example")
    ... def two_papers():
    ...     'Two papers.'
    >>> [source.key for source in two_papers.sources]
    ['kingma2014-adam', 'xiong2023-over']
    """
    key = other.key if isinstance(other, paper) else as_text(other, "other")
    return _put("_also", [Source(key, tuple("".join(letters)))])
