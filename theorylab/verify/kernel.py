"""The judge: it runs a claim, probes what its checks would have rejected, breaks its hypotheses.

Nothing here is set by an author. Each mark is moved by a tenth up and down; an equality that does
not turn false resolves nothing. Each control must turn a part false by more than its error. Each
part must have been seen to fail.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from theorylab._validation import FloatArray, as_count, as_flag, as_instance, one_of
from theorylab.verify.claims import Change, Claim, Preset
from theorylab.verify.comparison import Part, marks, moved
from theorylab.verify.enclosures import Grade
from theorylab.verify.simulations import forget
from theorylab.verify.spaces import Instance, edges

__all__ = [
    "Control",
    "Draws",
    "Judgement",
    "Run",
    "Verdict",
    "draws",
    "evaluate",
    "judge",
    "judge_all",
]

UP, DOWN = Fraction(11, 10), Fraction(10, 11)
NEED = 0.1
"""Relative change of a prediction that an equality must reject."""

WARN = 0.08
"""Resolution of a statistical part beyond which fresh seeds are likely to fail."""

IDLE, VACUOUS = 2.0, 1000.0
"""Factors by which a bound could be cut: beyond the first only a control shows that it can fail."""


class Verdict(StrEnum):
    """What the checks, the probe and the controls amount to."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    OPEN = "open"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Run:
    """One judged instance: its parts, and for each mark the parts that it feeds.

    ``resolution[mark][part]`` is the least relative move of the mark that an equality rejects, or
    the factor by which a bound could be cut.
    """

    instance: Instance
    parts: Mapping[str, Part]
    resolution: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def margin(self) -> float:
        """The least margin among the parts; -inf where one has no verdict."""
        return min(-math.inf if p.holds is None else p.margin for p in self.parts.values())


@dataclass(frozen=True, eq=False)
class Control:
    """An instance in which a hypothesis is broken, or in which a refuted statement is rescued."""

    name: str
    kind: Literal["break", "rescue"]
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
    warnings: tuple[str, ...] = ()

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
        parts = [p for run in self.runs for p in run.parts.values()]
        if self.claim.refuted:
            parts = [p for p in parts if p.holds is False]
        return max((p.grade for p in parts), key=lambda g: g.rank, default=None)

    @property
    def shown(self) -> Run | None:
        """The case that stands for the claim: the one with the least margin."""
        return min(self.runs, key=lambda run: run.margin, default=None)


# ---------------------------------------------------------------------------------- one instance
def evaluate(check: Callable[..., Any], instance: Instance, seed: int) -> dict[str, Part]:
    """Run a check on an instance, passing the seed if it takes one; return its parts by name."""
    target: Any = check.check if isinstance(check, Claim) else check
    takes = "seed" in inspect.signature(target).parameters and "seed" not in instance
    result = target(**instance, **({"seed": seed} if takes else {}))
    parts = {"": result} if isinstance(result, Part) else result
    if not (
        isinstance(parts, Mapping) and parts and all(isinstance(p, Part) for p in parts.values())
    ):
        name = getattr(target, "__name__", "the check")
        raise TypeError(f"{name}: expected a part or named parts, got {type(result).__name__}")
    return dict(parts)


def _probe(
    claim: Claim, case: Instance, seed: int, base: Mapping[str, Part], names: Iterable[str]
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Move each mark; return for each the parts that it feeds with what they resolve."""
    table: dict[str, dict[str, float]] = {}
    broken = []
    for name in names:
        sides: list[Mapping[str, Part]] = []
        for factor in (UP, DOWN):
            try:
                with moved(name, factor):
                    sides.append(evaluate(claim, case, seed))
            except Exception as error:  # a rerun that raises rejects nothing
                broken.append(f"'{name}' moved: {type(error).__name__}: {error}")
                sides.append({})
        table[name] = {}
        for key, part in base.items():
            reruns = [side.get(key) for side in sides]
            moves = [_moves(part, rerun) for rerun in reruns if rerun is not None]
            if moves and max(float(m.max(initial=0.0)) for m in moves) > 0:
                table[name][key] = (
                    _resolution(part, reruns) if part.relation == "==" else _room(part)
                )
    return table, broken


def _moves(base: Part, rerun: Part) -> FloatArray:
    """Return by how much each entry of the prediction moves."""
    beyond = not np.isfinite(base.predicted).all()  # symbols, or numbers beyond the floats
    if beyond and base.sides and len(base.sides) == len(rerun.sides):
        pairs = zip(base.sides, rerun.sides, strict=True)
        return np.array([a != b for a, b in pairs], dtype=float)
    if base.predicted.shape != rerun.predicted.shape:
        return np.ones(rerun.predicted.shape)
    with np.errstate(invalid="ignore"):
        moves = np.abs(rerun.predicted - base.predicted)
    return np.where(np.isfinite(moves), moves, np.inf)


def _resolution(base: Part, reruns: Sequence[Part | None]) -> float:
    """Return the least relative move of a mark that every entry of an equality rejects."""
    worst = 0.0
    for rerun, step in zip(reruns, (0.1, 1 / 11), strict=True):
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
            least = (need / (np.abs(after - before) / step)).ravel()
        # The interpolation must not claim what the rerun itself did not reject.
        least = np.where(rejected, np.minimum(least, step), np.maximum(least, 1.001 * step))
        worst = max(worst, float(least[counted].max(initial=0.0)))
    return worst


def _room(part: Part) -> float:
    """Return the least factor by which a bound could be cut before the part turned false."""
    if part.sides and not np.isfinite(part.predicted).all():
        return math.inf
    sign = 1.0 if part.relation in ("<=", "<") else -1.0
    near, far = sign * part.centre - part.error, sign * part.predicted
    near, far = np.ravel(near), np.ravel(far)
    with np.errstate(divide="ignore", invalid="ignore"):
        same = np.where(far > 0, far / near, near / far)  # below 0 a larger size is a sharper bound
    crossing = np.sign(near) != np.sign(far)
    factors = np.where(crossing, np.inf, np.maximum(same, 1.0))
    # A bound of 0 has no size: tenths of the unit stand for it, as in the probe.
    factors = np.where(far == 0, 1 + 10 * np.maximum(-near, 0), factors)
    factors = np.where(near == far, 1.0, factors)
    return float(np.nan_to_num(factors, nan=np.inf).min())


# ---------------------------------------------------------------------------------- the verdict
def judge(
    claim: Claim, *, preset: Preset = "quick", seed: int = 0, keep_memory: bool = False
) -> Judgement:
    """Judge a claim on its declared cases and controls.

    A claim is verified if every part of every case holds, the probe and the controls find no fault,
    and each part has been seen to fail. A refuted one also needs :func:`judge_all`, which looks at
    its correction.

    Parameters
    ----------
    claim
        The claim.
    preset
        ``"quick"`` or ``"full"``.
    seed
        Passed to checks that take one.
    keep_memory
        Keep what the simulations remember, for the next claim of the script.
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
                parts = evaluate(claim, case, seed)
                names = list(seen)
        except Exception as error:
            problems.append(f"case {number} raised {type(error).__name__}: {error}")
            continue
        found = _false_parts(claim, parts)
        problems += [f"case {number} {text}" for text in found]
        table: dict[str, dict[str, float]] = {}
        if probing and not found:
            table, broken = _probe(claim, case, seed, parts, names)
            problems += [f"case {number} {text}" for text in _gate(claim, parts, table, broken)]
        runs.append(Run(case, parts, table))
    base = runs[-1].parts if runs else {}
    controls = tuple(_controls(claim, claim.cases[preset][-1], base, seed))
    problems += [f"control '{c.name}' {c.problem}" for c in controls if c.problem]
    if probing and not problems:
        problems += _vacuous(claim, runs)
        problems += _idle(runs, controls)
    if not keep_memory:
        forget()
    warnings = tuple(_warnings(runs)) if probing else ()
    return Judgement(claim, seed, tuple(runs), controls, tuple(problems), warnings)


def judge_all(
    claims: Sequence[Claim], *, preset: Preset = "quick", seed: int = 0
) -> list[Judgement]:
    """Judge the claims of a script; a refuted claim stands only beside its verified correction."""
    if not isinstance(claims, Sequence) or not all(isinstance(c, Claim) for c in claims):
        raise ValueError(f"claims: expected a sequence of claims, got {type(claims).__name__}")
    judgements = [judge(c, preset=preset, seed=seed, keep_memory=True) for c in claims]
    forget()
    verified = {j.claim.slug for j in judgements if j.verdict is Verdict.VERIFIED}
    return [
        replace(j, problems=(*j.problems, f"the correction '{correction}' is not verified"))
        if (correction := j.claim.notes.get("refuted_by")) and correction not in verified
        else j
        for j in judgements
    ]


def _named(key: str) -> str:
    return f"part '{key}' " if key else ""


def _false_parts(claim: Claim, parts: Mapping[str, Part]) -> list[str]:
    """Say which parts do not support the declared verdict."""
    if "open" in claim.notes:
        return []
    if claim.refuted:
        false = [p for p in parts.values() if p.holds is False]
        if any(p.grade.rank <= Grade.ENUMERATED.rank for p in false):
            return []
        if false:
            return ["is refuted by weak evidence only: certified or enumerated is needed"]
        return ["is not false, though the claim is declared refuted"]
    found = []
    for key, p in parts.items():
        if p.holds is None:
            found.append(f"{_named(key)}is inconclusive: {p.why}")
        elif not p.holds:
            found.append(f"{_named(key)}is false: {_worst(p)}")
    return found


def _worst(p: Part) -> str:
    """Show the entry that is false by most."""
    with np.errstate(invalid="ignore"):
        sign = {"==": 0, "<": 1, "<=": 1, ">": -1, ">=": -1}[p.relation]
        off = sign * (p.centre - p.predicted) if sign else np.abs(p.centre - p.predicted)
        excess = np.nan_to_num(off - p.error, nan=-np.inf)
    at = np.unravel_index(int(np.argmax(excess)), excess.shape) if excess.size else ()
    c, e, q = (np.asarray(v)[at] for v in (p.centre, p.error, p.predicted))
    return f"{c:.8g} +- {e:.2g} {p.relation} {q:.8g}"


def _gate(
    claim: Claim,
    parts: Mapping[str, Part],
    table: Mapping[str, Mapping[str, float]],
    broken: Sequence[str],
) -> list[str]:
    """Say which equalities and marks the probe found to resolve nothing."""
    need = math.inf if "coarse" in claim.notes else NEED
    found = []
    equal = {k for k, p in parts.items() if p.relation == "=="}
    for name, feeds in table.items():
        mine = [feeds[k] for k in feeds if k in equal]
        if mine and min(mine) > need:
            found.append(f"accepts '{name}' moved by a tenth (rejects it at {min(mine):.2g})")
        if not feeds:
            found.append(f"has a mark '{name}' that feeds no part")
    for key in equal:
        p = parts[key]
        own = [feeds[key] for feeds in table.values() if key in feeds]
        if own and min(own) > need:
            found.append(f"{_named(key)}rejects no mark moved by a tenth ({min(own):.2g})")
        if not own and not p.sides and p.grade is not Grade.ENUMERATED:
            found.append(f"{_named(key)}is an equality that no mark feeds")
    return [*found, *broken] if found else []


def _controls(
    claim: Claim, case: Instance, base: Mapping[str, Part], seed: int
) -> Iterable[Control]:
    kinds: tuple[tuple[Literal["break", "rescue"], Mapping[str, Change]], ...] = (
        ("break", claim.breaks),
        ("rescue", claim.rescues),
    )
    for kind, group in kinds:
        for name, change in group.items():
            try:
                instance = {**case, **(change(case) if callable(change) else change)}
                parts = evaluate(claim, instance, seed)
            except Exception as error:
                yield Control(name, kind, None, f"raised {type(error).__name__}: {error}")
                continue
            yield Control(name, kind, Run(instance, parts), _shortcoming(kind, parts, base))


def _shortcoming(kind: str, parts: Mapping[str, Part], base: Mapping[str, Part]) -> str:
    """Say why a control does not do what a control must, or return an empty string."""
    form = [[(k, p.relation, p.source) for k, p in side.items()] for side in (parts, base)]
    if base and form[0] != form[1]:
        return "returns other parts, relations or error sources"
    if kind == "rescue":
        return "" if all(p.holds for p in parts.values()) else "does not hold"
    if any(p.decisively_false for p in parts.values()):
        return ""
    undecided = [p.why for p in parts.values() if p.holds is None]
    return f"is not decisively false{': ' + undecided[0] if undecided else ''}"


def _vacuous(claim: Claim, runs: Sequence[Run]) -> list[str]:
    """Say which marks feed only bounds that could be cut a thousandfold in every case."""
    if "vacuous" in claim.notes:
        return []
    names = dict.fromkeys(name for run in runs for name in run.resolution)
    found = []
    for name in names:
        fed = [(run, k) for run in runs for k in run.resolution.get(name, ())]
        if any(run.parts[k].relation == "==" for run, k in fed):
            continue
        least = min((run.resolution[name][k] for run, k in fed), default=0.0)
        if least > VACUOUS:
            found.append(f"the bound '{name}' could be cut by {least:.3g}")
    return found


def _idle(runs: Sequence[Run], controls: Sequence[Control]) -> list[str]:
    """Say which parts nothing has made fail."""
    failed = {
        k for c in controls if c.run for k, p in c.run.parts.items() if p.decisively_false
    } | {
        k
        for run in runs
        for k, p in run.parts.items()
        if (
            min((feeds.get(k, math.inf) for feeds in run.resolution.values()), default=math.inf) < 1
            if p.relation == "=="
            else _room(p) < IDLE
        )
    }
    names = dict.fromkeys(k for run in runs for k in run.parts)
    return [
        f"{_named(k) or 'the part '}is idle: nothing made it fail" for k in names if k not in failed
    ]


def _warnings(runs: Sequence[Run]) -> Iterable[str]:
    for number, run in enumerate(runs, start=1):
        for key, p in run.parts.items():
            own = [feeds[key] for feeds in run.resolution.values() if key in feeds]
            loose = p.relation == "==" and p.grade is Grade.STATISTICAL and own
            if loose and min(own) > WARN:
                yield f"case {number} {_named(key)}resolves {min(own):.2g}: fresh seeds may fail"


# ---------------------------------------------------------------------------------- draws
@dataclass(frozen=True, eq=False)
class Draws:
    """Instances drawn from a claim's space, with their parts, and what they show."""

    instances: tuple[Instance, ...]
    parts: tuple[Mapping[str, Part], ...]

    @property
    def false(self) -> list[str]:
        """The instances in which a part is false."""
        pairs = zip(self.instances, self.parts, strict=True)
        return [
            f"{instance}: {_named(k)}{_worst(p)}"
            for instance, parts in pairs
            for k, p in parts.items()
            if p.holds is False
        ]

    @property
    def inconclusive(self) -> list[str]:
        """The instances without a verdict, with the reason."""
        pairs = zip(self.instances, self.parts, strict=True)
        return [
            f"{instance}: {why[0]}"
            for instance, parts in pairs
            if (why := [f"{_named(k)}{p.why}" for k, p in parts.items() if p.holds is None])
        ]

    @property
    def blind(self) -> list[str]:
        """Bounds whose margin is the same on all draws: the space does not touch them."""
        found = []
        for key in self.parts[0] if self.parts else ():
            drawn = [parts[key] for parts in self.parts if key in parts]
            bounds = [p for p in drawn if p.relation != "==" and p.holds is not None]
            if len(bounds) > 1 and len({round(p.margin, 9) for p in bounds}) == 1:
                found.append(key)
        return found


def draws(claim: Claim, *, count: int = 12, seed: int = 0) -> Draws:
    """Judge ``count`` instances of a claim's space, its edges among them, each on its own seed."""
    if not as_instance(claim, "claim", Claim).space:
        raise ValueError("claim: expected one with a space, got none")
    as_count(seed, "seed", minimum=0)
    instances = edges(claim.space or {}, as_count(count, "count"), seed)
    parts = tuple(evaluate(claim, instance, seed + i) for i, instance in enumerate(instances))
    forget()
    return Draws(tuple(instances), parts)
