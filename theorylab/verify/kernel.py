"""The judge: it runs a claim, probes what its checks would have rejected, breaks its hypotheses.

Each mark is moved by a tenth up and down; an equality that does not turn false resolves nothing.
Each control must turn a part false by more than its error, and each part be seen to fail.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np

from theorylab._validation import FloatArray, as_count, as_flag, as_instance, one_of
from theorylab.numerics import exact_numbers as exact
from theorylab.verify.claims import Claim, Preset
from theorylab.verify.comparison import SIDE, Part, marks
from theorylab.verify.enclosures import Grade
from theorylab.verify.simulations import forget
from theorylab.verify.spaces import Instance, edges

__all__ = ["Control", "Draws", "Judgement", "Run", "Verdict"]
__all__ += ["draws", "evaluate", "judge", "judge_all"]

# Factors of the probe with the relative changes that they make, and the change of a prediction that
# an equality must reject.
MOVES, NEED = ((Fraction(11, 10), 0.1), (Fraction(10, 11), 1 / 11)), 0.1
# Factors by which a bound could be cut: beyond the first only a control shows that it can fail.
IDLE, VACUOUS = 2.0, 1000.0

Parts = Mapping[str, Part]


class Verdict(StrEnum):
    """What the checks, the probe and the controls amount to."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    OPEN = "open"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Run:
    """One judged instance: its parts, and for each mark the parts that it feeds, with the least
    relative move of it that an equality rejects, or the factor by which a bound could be cut."""

    instance: Instance
    parts: Parts
    resolution: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def margin(self) -> float:
        """The least margin among the parts; -inf where one has no verdict."""
        return min(-math.inf if p.holds is None else p.margin for p in self.parts.values())

    def resolves(self, key: str) -> float | None:
        """The least resolution of a part by the marks that feed it; None if none does."""
        return min((feeds[key] for feeds in self.resolution.values() if key in feeds), default=None)


@dataclass(frozen=True, eq=False)
class Control:
    """An instance that breaks a hypothesis, or rescues a refuted statement (its ``kind``)."""

    name: str
    kind: str
    run: Run | None
    problem: str = ""

    @property
    def decides(self) -> bool:
        """Whether it came out as it must."""
        return not self.problem


@dataclass(frozen=True, eq=False)
class Judgement:
    """The verdict on a claim, with everything that it rests on."""

    claim: Claim
    seed: int
    runs: tuple[Run, ...]
    controls: tuple[Control, ...]
    problems: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """What the problems, or their absence, amount to."""
        if self.problems:
            return Verdict.FAILED
        if "open" in self.claim.notes:
            return Verdict.OPEN
        return Verdict.REFUTED if self.claim.refuted else Verdict.VERIFIED

    @property
    def grade(self) -> Grade | None:
        """The worst grade among the parts; of a refuted claim, among those that are false."""
        every, refuted = [run.parts.values() for run in self.runs], self.claim.refuted
        grades = [p.grade for parts in every for p in parts if p.holds is False or not refuted]
        return max(grades, key=lambda g: g.rank, default=None)


def evaluate(check: Callable[..., Any], instance: Instance, seed: int) -> dict[str, Part]:
    """Run a check on an instance, passing the seed if it takes one; return its parts by name."""
    target: Any = check.check if isinstance(check, Claim) else check
    given = {"seed": seed} if "seed" in inspect.signature(target).parameters else {}
    result = target(**{**given, **instance})
    parts = dict(result) if isinstance(result, Mapping) else {"": result}
    if not parts or not all(isinstance(p, Part) for p in parts.values()):
        name = getattr(target, "__name__", "the check")
        raise TypeError(f"{name}: expected a part or named parts, got {type(result).__name__}")
    return parts


def _probe(claim: Claim, run: Run, seed: int, names: Iterable[str]) -> tuple[Run, list[str]]:
    """Move each mark; add to the run which parts it feeds, and say which reruns raised."""
    table: dict[str, dict[str, float]] = {}
    broken = []
    for name in names:
        sides: list[Parts] = []
        for factor, _ in MOVES:
            try:
                with marks(**{name: factor}):
                    sides.append(evaluate(claim, run.instance, seed))
            except Exception as error:  # a rerun that raises rejects nothing
                broken.append(f"'{name}' moved: {type(error).__name__}: {error}")
                sides.append({})
        table[name] = {}
        for key, part in run.parts.items():
            reruns = [side.get(key) for side in sides]
            if any(r is not None and _moves(part, r).max(initial=0.0) > 0 for r in reruns):
                equal = part.relation == "=="
                table[name][key] = _resolution(part, reruns) if equal else _room(part)
    return replace(run, resolution=table), broken


def _moves(base: Part, rerun: Part) -> FloatArray:
    """Return by how much each entry of the prediction moves."""
    if base.sides and len(base.sides) == len(rerun.sides):
        return np.array([*map(exact.moved, base.sides, rerun.sides)], dtype=float)
    if base.predicted.shape != rerun.predicted.shape:
        return np.ones(rerun.predicted.shape)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.abs(rerun.predicted - base.predicted), nan=np.inf, posinf=np.inf)


def _resolution(base: Part, reruns: Sequence[Part | None]) -> float:
    """Return the least relative move of a mark that every entry of an equality rejects."""
    worst = 0.0
    for rerun, (_, step) in zip(reruns, MOVES, strict=True):
        if rerun is None or rerun.holds is None or base.predicted.shape != rerun.predicted.shape:
            return math.inf
        moves = _moves(base, rerun).ravel()
        counted = (moves >= 0.1 * moves.max()) & (moves > 0)
        rejected = np.broadcast_to(rerun.rejects, base.predicted.shape).ravel()
        if base.sides:
            worst = max(worst, 0.0 if rejected[counted].all() else math.inf)
            continue
        before, after = (p.centre - p.predicted for p in (base, rerun))
        size = np.where(rerun.predicted != 0, np.abs(rerun.predicted), 1.0)
        need = np.abs(before) + 1.1 * rerun.error + 1e-6 * size
        with np.errstate(divide="ignore"):
            least = np.ravel(need / (np.abs(after - before) / step))
        # The interpolation must not claim what the rerun itself did not reject.
        least = np.where(rejected, np.minimum(least, step), np.maximum(least, 1.001 * step))
        worst = max(worst, float(least[counted].max(initial=0.0)))
    return worst


def _room(part: Part) -> float:
    """Return the least factor by which a bound could be cut before the part turned false."""
    if part.sides and not np.isfinite(part.predicted).all():
        return math.inf
    sign = SIDE[part.relation]
    near, far = np.ravel(sign * part.centre - part.error), np.ravel(sign * part.predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        same = np.where(far > 0, far / near, near / far)  # below 0 a larger size is a sharper bound
    factors = np.where(np.sign(near) != np.sign(far), np.inf, np.maximum(same, 1.0))
    # A bound of 0 has no size: tenths of the unit stand for it, as in the probe.
    factors = np.where(far == 0, 1 + 10 * np.maximum(-near, 0), factors)
    factors = np.where(near == far, 1.0, factors)
    return float(np.nan_to_num(factors, nan=np.inf).min())


def judge(
    claim: Claim, *, preset: Preset = "quick", seed: int = 0, keep_memory: bool = False
) -> Judgement:
    r"""Judge a claim on its declared cases and controls.

    It is verified if every part of every case holds, the probe and the controls find no fault, and
    each part has been seen to fail. A refuted claim also needs :func:`judge_all`, which looks at
    its correction.

    Parameters
    ----------
    claim, preset, seed
        The claim, ``"quick"`` or ``"full"``, and what is passed to checks that take a seed.
    keep_memory
        Keep what the simulations remember, for the next claim of the script.

    Examples
    --------
    >>> from theorylab.verify import Real, breaks, compare, judge, paper, space, theory, within
    >>> @paper("kingma2014-adam").ours("an example")
    ... @space(x=Real(0.0, 1.0))
    ... @breaks("beyond one", x=2.0)
    ... def square_is_smaller(x=0.5):
    ...     '$x^2\\le x$.'
    ...     return compare(within(x * x, 1e-15, "rounding"), "<=", theory("bound", x))
    >>> judge(square_is_smaller).verdict.value
    'verified'
    """
    as_instance(claim, "claim", Claim)
    one_of(preset, "preset", ("quick", "full"))
    as_count(seed, "seed", minimum=0)
    as_flag(keep_memory, "keep_memory")
    runs: list[Run] = []
    problems: list[str] = []
    probing = not (claim.refuted or "open" in claim.notes)
    for number, case in enumerate(claim.cases[preset], start=1):
        try:
            with marks() as seen:
                run = Run(case, evaluate(claim, case, seed))
                names = list(seen)
        except Exception as error:
            problems.append(f"case {number} raised {type(error).__name__}: {error}")
            continue
        found = _false_parts(claim, run.parts)
        if probing and not found:
            run, broken = _probe(claim, run, seed, names)
            found = _gate(claim, run, broken)
        problems += [f"case {number} {text}" for text in found]
        runs.append(run)
    base = runs[-1].parts if runs else {}
    controls = tuple(_controls(claim, claim.cases[preset][-1], base, seed))
    problems += [f"control '{c.name}' {c.problem}" for c in controls if c.problem]
    if probing and not problems:
        problems += [*_vacuous(claim, runs), *_idle(runs, controls)]
    if not keep_memory:
        forget()
    return Judgement(claim, seed, tuple(runs), controls, tuple(problems))


def judge_all(
    claims: Sequence[Claim], *, preset: Preset = "quick", seed: int = 0
) -> list[Judgement]:
    r"""Judge the claims of a script; a refuted claim stands only beside its verified correction.

    Examples
    --------
    >>> from theorylab.verify import Real, breaks, compare, judge_all, paper, space, theory, within
    >>> @paper("kingma2014-adam").ours("an example")
    ... @space(x=Real(0.0, 1.0))
    ... @breaks("beyond one", x=2.0)
    ... def square_is_smaller(x=0.5):
    ...     '$x^2\\le x$.'
    ...     return compare(within(x * x, 1e-15, "rounding"), "<=", theory("bound", x))
    >>> [judgement.verdict.value for judgement in judge_all([square_is_smaller])]
    ['verified']
    """
    if not isinstance(claims, Sequence) or not all(isinstance(c, Claim) for c in claims):
        raise ValueError(f"claims: expected a sequence of claims, got {type(claims).__name__}")
    judgements = [judge(c, preset=preset, seed=seed, keep_memory=True) for c in claims]
    forget()
    verified = {j.claim.slug for j in judgements if j.verdict is Verdict.VERIFIED}
    for i, j in enumerate(judgements):
        if (correction := j.claim.notes.get("refuted_by")) and correction not in verified:
            problem = f"the correction '{correction}' is not verified"
            judgements[i] = replace(j, problems=(*j.problems, problem))
    return judgements


def _named(key: str) -> str:
    return f"part '{key}' " if key else ""


def _false_parts(claim: Claim, parts: Parts) -> list[str]:
    """Say which parts do not support the declared verdict."""
    if "open" in claim.notes:
        return []
    if claim.refuted:
        grades = [p.grade for p in parts.values() if p.holds is False]
        if not grades:
            return ["is not false, though the claim is declared refuted"]
        weak = min(g.rank for g in grades) > Grade.ENUMERATED.rank
        return ["is refuted by weak evidence only: certified or enumerated is needed"] * weak
    why = {k: f"inconclusive: {p.why}" for k, p in parts.items() if p.holds is None}
    why |= {k: f"false: {_worst(p)}" for k, p in parts.items() if p.holds is False}
    return [f"{_named(k)}is {text}" for k, text in why.items()]


def _worst(p: Part) -> str:
    """Show the entry that is false by most."""
    sign = SIDE[p.relation]
    with np.errstate(invalid="ignore"):
        off = sign * (p.centre - p.predicted) if sign else np.abs(p.centre - p.predicted)
        at = int(np.argmax(np.nan_to_num(off - p.error, nan=-np.inf)))
    c, e, q = (v.flat[at] for v in (p.centre, p.error, p.predicted))
    return f"{c:.8g} +- {e:.2g} {p.relation} {q:.8g}"


def _gate(claim: Claim, run: Run, broken: Sequence[str]) -> list[str]:
    """Say which equalities and marks the probe found to resolve nothing."""
    need = math.inf if "coarse" in claim.notes else NEED
    found = []
    equal = {k: p for k, p in run.parts.items() if p.relation == "=="}
    for name, feeds in run.resolution.items():
        least = min((feeds[k] for k in feeds if k in equal), default=0.0)
        if least > need:
            found.append(f"accepts '{name}' moved by a tenth (rejects it at {least:.2g})")
        if not feeds:
            found.append(f"has a mark '{name}' that feeds no part")
    for key, p in equal.items():
        if (own := run.resolves(key)) is None:
            if not p.sides and p.grade is not Grade.ENUMERATED:
                found.append(f"{_named(key)}is an equality that no mark feeds")
        elif own > need:
            found.append(f"{_named(key)}rejects no mark moved by a tenth ({own:.2g})")
    return [*found, *broken] if found else []


def _controls(claim: Claim, case: Instance, base: Parts, seed: int) -> Iterator[Control]:
    changes = [("break", *item) for item in claim.breaks.items()]
    changes += [("rescue", *item) for item in claim.rescues.items()]
    for kind, name, change in changes:
        try:
            instance = {**case, **(change(case) if callable(change) else change)}
            run = Run(instance, evaluate(claim, instance, seed))
            yield Control(name, kind, run, _shortcoming(kind, run.parts, base))
        except Exception as error:
            yield Control(name, kind, None, f"raised {type(error).__name__}: {error}")


def _shortcoming(kind: str, parts: Parts, base: Parts) -> str:
    """Say why a control does not do what a control must, or return an empty string."""
    form = [[(k, p.relation, p.source) for k, p in side.items()] for side in (parts, base)]
    if base and form[0] != form[1]:
        return "returns other parts, relations or error sources"
    if kind == "rescue":
        return "" if all(p.holds for p in parts.values()) else "does not hold"
    if any(p.decisively_false for p in parts.values()):
        return ""
    why = next((f": {p.why}" for p in parts.values() if p.holds is None), "")
    return "is not decisively false" + why


def _vacuous(claim: Claim, runs: Sequence[Run]) -> Iterator[str]:
    """Say which marks feed only bounds that could be cut a thousandfold in every case."""
    for name in dict.fromkeys(name for run in runs for name in run.resolution):
        fed = [(r.parts[k], room) for r in runs for k, room in r.resolution.get(name, {}).items()]
        least = min((0.0 if p.relation == "==" else room for p, room in fed), default=0.0)
        if least > VACUOUS and "vacuous" not in claim.notes:
            yield f"the bound '{name}' could be cut by {least:.3g}"


def _idle(runs: Sequence[Run], controls: Sequence[Control]) -> Iterator[str]:
    """Say which parts nothing has made fail: a moved mark, a bound without room, a control."""
    broken = [c.run.parts for c in controls if c.run]
    failed = {k for parts in broken for k, p in parts.items() if p.decisively_false}
    every = [(run, k, p) for run in runs for k, p in run.parts.items()]
    for run, k, p in every:
        least = run.resolves(k) if p.relation == "==" else _room(p) - IDLE + 1
        if least is not None and least < 1:
            failed.add(k)
    for k in dict.fromkeys(k for _, k, _ in every if k not in failed):
        yield f"{_named(k) or 'the part '}is idle: nothing made it fail"


@dataclass(frozen=True, eq=False)
class Draws:
    """Instances drawn from a claim's space, which of them are false or inconclusive, and why, and
    the bounds that the space does not touch: their margin is the same on all draws."""

    instances: tuple[Instance, ...]
    false: tuple[str, ...]
    inconclusive: tuple[str, ...]
    blind: tuple[str, ...]


def draws(claim: Claim, *, count: int = 12, seed: int = 0) -> Draws:
    r"""Judge ``count`` instances of a claim's space, its edges among them, each on its own seed.

    Examples
    --------
    >>> from theorylab.verify import Real, breaks, compare, draws, paper, space, theory, within
    >>> @paper("kingma2014-adam").ours("an example")
    ... @space(x=Real(0.0, 1.0))
    ... @breaks("beyond one", x=2.0)
    ... def square_is_smaller(x=0.5):
    ...     '$x^2\\le x$.'
    ...     return compare(within(x * x, 1e-15, "rounding"), "<=", theory("bound", x))
    >>> found = draws(square_is_smaller, count=5)
    >>> len(found.instances), found.false, found.inconclusive, found.blind
    (5, (), (), ())
    """
    if not as_instance(claim, "claim", Claim).space:
        raise ValueError("claim: expected one with a space, got none")
    as_count(seed, "seed", minimum=0)
    instances = edges(claim.space or {}, as_count(count, "count"), seed)
    false: list[str] = []
    inconclusive: dict[int, str] = {}
    margins: dict[str, set[float]] = {}
    for i, instance in enumerate(instances):
        for k, p in evaluate(claim, instance, seed + i).items():
            where = f"{instance}: {_named(k)}"
            if p.holds is None:
                inconclusive.setdefault(i, where + p.why)
            elif p.relation != "==":
                margins.setdefault(k, set()).add(round(p.margin, 9))
            if p.holds is False:
                false.append(where + _worst(p))
    blind = tuple(k for k, found in margins.items() if len(found) == 1 and count > 1)
    forget()
    return Draws(tuple(instances), tuple(false), tuple(inconclusive.values()), blind)
