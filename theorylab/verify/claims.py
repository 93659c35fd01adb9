"""A claim is a function ``check(**instance, seed) -> Evidence`` with the statement it decides.

The decorator :func:`claim` declares what is stated, where it is stated, the instances that are
judged, the space in which the hypotheses hold, and the negative controls. :func:`judge` turns the
declaration into a verdict."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from theorylab._validation import as_count, as_instance, as_text, one_of
from theorylab.verify.evidence import EQUALITY_RESOLUTION, Evidence, Grade, Relation
from theorylab.verify.spaces import Domain, Instance, as_space

__all__ = [
    "Claim",
    "Control",
    "Judgement",
    "Origin",
    "Preset",
    "Run",
    "Runs",
    "Verdict",
    "claim",
    "evaluate",
    "judge",
    "judge_all",
]

Check = Callable[..., Evidence]
Preset = Literal["quick", "full"]
Change = Mapping[str, Any] | Callable[[Instance], Mapping[str, Any]]
Panel = Callable[[Any, "Runs"], None]


class Origin(StrEnum):
    """Whose statement it is."""

    PUBLISHED = "published"
    SHARPENED = "sharpened"
    CORRECTED = "corrected"
    DERIVED = "derived"


class Verdict(StrEnum):
    """What the checks and controls amount to."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    OPEN = "open"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Claim:
    """A check and what it decides; call it like the check itself. Made by :func:`claim`."""

    check: Check
    slug: str
    statement: str
    sources: tuple[str, ...]
    origin: Origin
    kind: str
    cases: Mapping[Preset, tuple[Instance, ...]]
    space: Mapping[str, Domain] | None = None
    breaks: Mapping[str, Change] = field(default_factory=dict)
    shifts: Mapping[str, Change] = field(default_factory=dict)
    rescues: Mapping[str, Change] = field(default_factory=dict)
    no_break: str = ""
    corrected_by: str = ""
    undecided: str = ""
    coarse: str = ""
    draw: list[Panel] = field(default_factory=list, repr=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Evidence:
        """Run the check."""
        return self.check(*args, **kwargs)

    def panel(self, draw: Panel) -> Panel:
        """Declare how the runs are drawn: a function of a matplotlib axes and of the
        :class:`Runs`."""
        self.draw.append(draw)
        return draw

    @property
    def papers(self) -> tuple[str, ...]:
        """Keys of the papers among the sources."""
        return tuple(dict.fromkeys(source.split(",")[0].strip() for source in self.sources))


@dataclass(frozen=True)
class Run:
    """One judged instance."""

    instance: Instance
    evidence: Evidence

    @property
    def data(self) -> Mapping[str, Any]:
        """The arrays that the check left for the panel."""
        return self.evidence.data


@dataclass(frozen=True)
class Control:
    """One instance in which a hypothesis is broken (or, for a refuted claim, in which the statement
    is rescued)."""

    name: str
    changes: Literal["hypothesis", "prediction", "rescue"]
    evidence: Evidence | None
    problem: str = ""

    @property
    def decides(self) -> bool:
        """Whether the control came out as a control must: decisively false, or decisively true
        where it is a rescue."""
        e = self.evidence
        return (
            e is not None
            and e.decides
            and e.holds is (self.changes == "rescue")
            and (bool(e.holds) or e.margin < 0)
        )


@dataclass(frozen=True)
class Runs(Sequence[Run]):
    """What a panel draws: the judged instances in order, and the evidence of the controls by
    name."""

    cases: tuple[Run, ...]
    controls: Mapping[str, Evidence]

    def __getitem__(self, index: Any) -> Any:
        return self.cases[index]

    def __len__(self) -> int:
        return len(self.cases)


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim, with everything it rests on."""

    claim: Claim
    seed: int
    runs: tuple[Run, ...]
    controls: tuple[Control, ...]
    problems: tuple[str, ...]

    @cached_property
    def verdict(self) -> Verdict:
        """What the problems, or their absence, amount to."""
        if self.problems:
            return Verdict.FAILED
        if self.claim.undecided:
            return Verdict.OPEN
        return Verdict.REFUTED if self.claim.corrected_by else Verdict.VERIFIED

    @property
    def shown(self) -> Evidence | None:
        """The evidence that readers are shown: the case with the least margin, an undecided one
        first."""
        evidence = [run.evidence for run in self.runs]
        return min(
            evidence, key=lambda e: -math.inf if math.isnan(e.margin) else e.margin, default=None
        )

    @property
    def grade(self) -> Grade | None:
        """The worst grade among the cases."""
        return max((run.evidence.grade for run in self.runs), key=lambda g: g.rank, default=None)

    @property
    def resolution(self) -> float:
        """The largest resolution among the cases."""
        return max((run.evidence.resolution for run in self.runs), default=math.inf)

    @property
    def panel_runs(self) -> Runs:
        """What the claim's panels draw."""
        return Runs(
            self.runs, {c.name: c.evidence for c in self.controls if c.evidence is not None}
        )


def claim(
    statement: str,
    *,
    sources: Sequence[str],
    origin: Literal["published", "sharpened", "corrected", "derived"],
    kind: str,
    cases: Sequence[Instance] | Mapping[str, Sequence[Instance]],
    space: Mapping[str, Domain] | None = None,
    breaks: Mapping[str, Change] | None = None,
    shifts: Mapping[str, Change] | None = None,
    no_break: str = "",
    corrected_by: str = "",
    rescues: Mapping[str, Change] | None = None,
    undecided: str = "",
    coarse: str = "",
) -> Callable[[Check], Claim]:
    r"""Declare a claim; its slug is the function's name with hyphens.

    Parameters
    ----------
    statement
        LaTeX, with every symbol and assumption.
    sources
        One or more ``"paper-key, Theorem 3"``.
    origin
        ``published`` (the paper's own statement, hypotheses seen), ``sharpened`` (a stronger form
        that implies it), ``corrected``, or ``derived`` (ours, or the paper's text was not seen).
    kind
        One word: equality, inequality, limit, rate, threshold, identity, equivalence, monotonicity,
        counterexample, ...
    cases
        Keyword arguments of the check for each judged instance; ``{"quick": [...], "full": [...]}``
        where they differ.
    space
        Where the hypotheses hold: keyword -> domain. None where the statement has no remainder for
        general instances: then only the declared cases are judged. A statistical check with a space
        takes the number of its independent draws as ``n_draws``, so that
        :func:`theorylab.verify.falsify` can raise it before it reports a counterexample.
    breaks
        Negative controls, name -> changed keywords (or a function of the case that returns them): a
        hypothesis is broken, so the check must come out decisively false. Judged on the last case.
    shifts
        Further controls that move only the prediction (a bound cut below its tight value). They
        never count as the necessity test.
    no_break
        Why no control that breaks a hypothesis exists.
    corrected_by
        Slug, in the same script, of the corrected claim: this claim is a published statement that
        is refuted.
    rescues
        For a refuted claim, in place of ``breaks``: instances in which the statement does hold;
        they must come out true.
    undecided
        Why the claim cannot be decided here: the verdict is ``open``.
    coarse
        Why an equality cannot be resolved to 10 %.

    Raises
    ------
    ValueError
        If the declaration is inconsistent, naming the argument.
    """
    for name, text in (("statement", statement), ("kind", kind)):
        as_text(text, name)
    for name, text in (
        ("no_break", no_break),
        ("corrected_by", corrected_by),
        ("undecided", undecided),
        ("coarse", coarse),
    ):
        if text != "":
            as_text(text, name)
    if space is not None:
        as_space(space)
    changes = {"breaks": breaks or {}, "shifts": shifts or {}, "rescues": rescues or {}}
    for name, group in changes.items():
        if not (
            isinstance(group, Mapping)
            and all(callable(c) or isinstance(c, Mapping) for c in group.values())
        ):
            raise ValueError(
                f"{name}: expected name -> changed keywords, or a function of the "
                f"case, got {group!r}"
            )
    if len(set().union(*changes.values())) < sum(map(len, changes.values())):
        raise ValueError("shifts: expected other names than those of breaks and rescues")
    one_of(origin, "origin", list(Origin))
    grouped = cases if isinstance(cases, Mapping) else {"quick": cases, "full": cases}
    groups = [grouped.get("quick"), grouped.get("full")]
    if len(grouped) != 2 or not all(
        isinstance(g, Sequence) and g and all(isinstance(c, Mapping) for c in g) for g in groups
    ):
        raise ValueError(
            "cases: expected non-empty sequences 'quick' and 'full' of keyword "
            f"arguments, got {cases!r}"
        )
    if (
        isinstance(sources, str)
        or not isinstance(sources, Sequence)
        or not sources
        or not all(
            isinstance(source, str) and all(map(str.strip, source.partition(",")))
            for source in sources
        )
    ):
        raise ValueError(
            f"sources: expected entries of the form 'paper-key, Theorem 3', got {sources!r}"
        )
    if corrected_by and (breaks or not rescues):
        raise ValueError(
            "rescues: a refuted claim needs instances in which the statement holds, "
            "in place of breaks"
        )
    if rescues and not corrected_by:
        raise ValueError("corrected_by: expected the slug of the corrected claim, got nothing")
    if not (breaks or rescues or no_break or undecided):
        raise ValueError(
            "breaks: expected a control that breaks a hypothesis, or the reason in "
            "no_break, got neither"
        )
    if corrected_by and undecided:
        raise ValueError(
            "undecided: expected nothing where corrected_by says that the claim is refuted"
        )
    if breaks and no_break:
        raise ValueError("no_break: expected nothing where breaks has a control")

    def declare(check: Check) -> Claim:
        return Claim(
            check=check,
            slug=check.__name__.strip("_").replace("_", "-"),
            statement=statement,
            sources=tuple(sources),
            origin=Origin(origin),
            kind=kind,
            cases={"quick": tuple(grouped["quick"]), "full": tuple(grouped["full"])},
            space=space,
            breaks=breaks or {},
            shifts=shifts or {},
            rescues=rescues or {},
            no_break=no_break,
            corrected_by=corrected_by,
            undecided=undecided,
            coarse=coarse,
        )

    return declare


def evaluate(check: Check, instance: Instance, seed: int) -> Evidence:
    """Run a check on an instance, passing the seed if it takes one.

    Raises
    ------
    TypeError
        If the check does not return an :class:`Evidence`.
    """
    target = check.check if isinstance(check, Claim) else check
    parameters = inspect.signature(target).parameters
    takes_seed = "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    evidence = target(
        **instance, **({"seed": seed} if takes_seed and "seed" not in instance else {})
    )
    if not isinstance(evidence, Evidence):
        raise TypeError(
            f"check: expected {target.__name__} to return Evidence, got {type(evidence).__name__}"
        )
    return evidence


def judge(claim: Claim, *, preset: Preset = "quick", seed: int = 0) -> Judgement:
    """Judge a claim on its declared cases and controls.

    The claim is verified if every case holds decisively, every equality resolves 10 % (or says why
    not), and every control is decisively false. A refuted claim also needs :func:`judge_all`, which
    looks at its correction."""
    as_instance(claim, "claim", Claim)
    one_of(preset, "preset", ("quick", "full"))
    as_count(seed, "seed", minimum=0)
    runs: list[Run] = []
    problems: list[str] = []
    for number, case in enumerate(claim.cases[preset], start=1):
        try:
            evidence = evaluate(claim.check, case, seed)
        except Exception as error:
            problems.append(f"case {number} raised {type(error).__name__}: {error}")
            continue
        runs.append(Run(case, evidence))
        problem = _problem(claim, evidence)
        if problem:
            problems.append(f"case {number} {problem}")
    controls = tuple(_controls(claim, claim.cases[preset][-1], seed))
    problems += [f"control '{c.name}' {_shortcoming(c)}" for c in controls if not c.decides]
    return Judgement(claim, seed, tuple(runs), controls, tuple(problems))


def judge_all(
    claims: Sequence[Claim], *, preset: Preset = "quick", seed: int = 0
) -> list[Judgement]:
    """Judge the claims of one script; a refuted claim stands only beside its verified
    correction."""
    if not isinstance(claims, Sequence) or not all(isinstance(c, Claim) for c in claims):
        raise ValueError(f"claims: expected a sequence of claims, got {type(claims).__name__}")
    judgements = [judge(c, preset=preset, seed=seed) for c in claims]
    verified = {j.claim.slug for j in judgements if j.verdict is Verdict.VERIFIED}
    return [
        replace(
            j, problems=(*j.problems, f"the correction '{j.claim.corrected_by}' is not verified")
        )
        if j.claim.corrected_by and j.claim.corrected_by not in verified
        else j
        for j in judgements
    ]


def _problem(claim: Claim, evidence: Evidence) -> str:
    """Say why the evidence of a case does not support the declared verdict, or return an empty
    string."""
    if claim.undecided:
        return ""
    if not evidence.decides:
        return f"is inconclusive (margin {evidence.margin:.3g}): {evidence.detail}"
    if claim.corrected_by:
        if evidence.holds:
            return "holds, though the claim is declared refuted"
        if evidence.grade.rank > Grade.ENUMERATED.rank:
            return (
                f"refutes with {evidence.grade} evidence only; symbolic, certified or "
                "enumerated evidence is needed"
            )
        return ""
    if not evidence.holds:
        return (
            f"is false: measured {evidence.measured:.6g}, predicted "
            f"{evidence.predicted:.6g}. {evidence.detail}"
        )
    equality = evidence.relation in (Relation.TIGHT, Relation.RATE)
    if equality and not claim.coarse and not evidence.resolution <= EQUALITY_RESOLUTION:
        return f"is too loose: it accepts a prediction changed by {evidence.resolution:.2g}"
    return ""


def _controls(claim: Claim, case: Instance, seed: int) -> Iterable[Control]:
    groups: tuple[
        tuple[Literal["hypothesis", "prediction", "rescue"], Mapping[str, Change]], ...
    ] = (
        ("hypothesis", claim.breaks),
        ("prediction", claim.shifts),
        ("rescue", claim.rescues),
    )
    for changes, group in groups:
        for name, change in group.items():
            try:
                changed = {**case, **(change(case) if callable(change) else change)}
                yield Control(name, changes, evaluate(claim.check, changed, seed))
            except Exception as error:
                yield Control(name, changes, None, f"raised {type(error).__name__}: {error}")


def _shortcoming(control: Control) -> str:
    evidence = control.evidence
    if evidence is None:
        return control.problem
    if not evidence.decides:
        return f"decides nothing (margin {evidence.margin:.3g}): {evidence.detail}"
    return "does not hold" if control.changes == "rescue" else "holds, though a control must fail"
