"""What is written of a judgement: plain data, rounded to what the check resolves.

A record holds no time, host or path; equal judgements make equal bytes, on another machine too
where its digits agree to the error. Everything that shows a verdict reads records.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin

import numpy as np

from theorylab.verify.claims import Claim, Origin, Source
from theorylab.verify.comparison import Part
from theorylab.verify.enclosures import Grade
from theorylab.verify.kernel import Judgement, Run
from theorylab.verify.spaces import Domain, Int, Real

__all__ = ["ControlRecord", "PartRecord", "Record", "ranges", "read_records", "record_of"]
__all__ += ["source_text", "written"]

DIGITS = 8
"""Significant digits at most."""
WARN = 0.08
"""Resolution of a statistical part beyond which fresh seeds are likely to fail."""


@dataclass(frozen=True)
class PartRecord:
    """One part of one case; ``marks`` says what of each mark it would have rejected."""

    name: str
    case: int
    relation: str
    holds: bool | None
    measured: Any
    error: Any
    predicted: Any
    margin: float | None
    marks: Mapping[str, float | None]
    source: str
    grade: str


@dataclass(frozen=True)
class ControlRecord:
    """One control and whether it came out as it must."""

    name: str
    kind: str
    decides: bool


@dataclass(frozen=True)
class Record:
    """One claim as it was judged; the parts of the case with the least margin come first."""

    claim: str
    statement: str
    ranges: str
    sources: list[str]
    serves: dict[str, list[str]]
    origin: str
    verdict: str | None = None
    grade: str | None = None
    parts: list[PartRecord] = field(default_factory=list)
    controls: list[ControlRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)
    preset: str | None = None
    seed: int | None = None

    @property
    def slug(self) -> str:
        """The claim's name in its script."""
        return self.claim.split(":")[-1]

    @property
    def failed(self) -> bool:
        """Whether the claim or one of its controls failed."""
        return self.verdict == "failed"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the record of plain data.

        Raises
        ------
        ValueError
            If the data are not those of a record.
        """
        try:
            parts = [_typed(PartRecord(**p)) for p in data["parts"]]
            controls = [_typed(ControlRecord(**c)) for c in data["controls"]]
            record: Self = _typed(cls(**{**data, "parts": parts, "controls": controls}))
            if len(record.sources) != len(record.serves):
                raise TypeError(f"sources {record.sources}, which serve {record.serves}")
            return record
        except (KeyError, TypeError) as error:
            raise ValueError(f"data: expected a record, got one with {error}") from None


def _typed(record: Any) -> Any:
    """Return a record whose fields are of their types."""
    for f in fields(record):
        value = getattr(record, f.name)
        if not _fits(value, f.type):
            raise TypeError(f"{f.name} {value!r:.80}")
    return record


def _fits(value: Any, kind: Any) -> bool:
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        return any(_fits(value, k) for k in inner)
    if kind is Any:
        return True
    if isinstance(value, dict | list) and inner:
        values = value.values() if isinstance(value, dict) else value
        return isinstance(value, get_origin(kind)) and all(_fits(v, inner[-1]) for v in values)
    return isinstance(value, int | float if kind is float else get_origin(kind) or kind)


def read_records(path: Path) -> list[Record]:
    """Return the records of a file; none where there is no file.

    Raises
    ------
    ValueError
        If the file holds no records.
    """
    if not path.is_file():
        return []
    try:
        claims = json.loads(path.read_text(encoding="utf-8"))["claims"]
        return [Record.from_json(r) for r in claims]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: expected records, got {error}") from None


def source_text(claim: Claim, source: Source) -> str:
    """Say where a claim comes from, and what it serves."""
    letters = f" ({', '.join(source.serves)})" if source.serves else ""
    seen = f", seen in {source.seen}" if source.seen else ""
    own = "ours: " if claim.origin is Origin.OURS and source is claim.sources[0] else ""
    where = f", {own}{source.where}" if source.where else ""
    return f"{source.key}{letters}{where}{seen}"


def ranges(claim: Claim) -> str:
    """Return the instances of the statement: the space, or else the judged cases."""
    if claim.space:
        return "for " + ", ".join(written(name, d) for name, d in claim.space.items())
    shown = [", ".join(f"{k} = {_short(v)}" for k, v in c.items()) for c in claim.cases["full"]]
    return "judged at " + "; ".join(shown) if any(shown) else ""


def written(name: str, domain: Domain) -> str:
    """Say where the values of a name lie, as the space writes it."""
    if isinstance(domain, Int):
        return f"{name} in {{{domain.low}, ..., {domain.high}}}"
    if isinstance(domain, Real):
        power = "" if domain.size is None else f"^{domain.size}".replace("'", "")
        return f"{name} in [{domain.low}, {domain.high}]{power}"
    options = (getattr(option, "__name__", None) or str(option) for option in domain.options)
    return f"{name} in {{{', '.join(options)}}}"


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return str(value.tolist()) if value.size <= 8 else f"array {value.shape}"
    return getattr(value, "__name__", None) or str(value)


def declared(name: str, claim: Claim) -> Record:
    """Return what a claim declares, before it is judged; ``name`` is "theme/module"."""
    return Record(
        claim=f"{name}:{claim.slug}",
        statement=claim.statement,
        ranges=ranges(claim),
        sources=[source_text(claim, s) for s in claim.sources],
        serves={s.key: list(s.serves) for s in claim.sources},
        origin=str(claim.origin),
        notes=dict(claim.notes),
    )


def record_of(name: str, judgement: Judgement, preset: str) -> Record:
    """Return the record of a judgement."""
    claim = judgement.claim
    ordered = sorted(enumerate(judgement.runs, start=1), key=lambda pair: pair[1].margin)
    parts = [_part(claim, i, run, key) for i, run in ordered for key in run.parts]
    controls = [ControlRecord(c.name, c.kind, c.decides) for c in judgement.controls]
    return Record(
        **{k: v for k, v in vars(declared(name, claim)).items() if k in DECLARED},
        verdict=str(judgement.verdict),
        grade=str(judgement.grade) if judgement.grade else None,
        parts=parts,
        controls=controls,
        problems=list(judgement.problems),
        warnings=list(_warnings(judgement.runs)),
        cases=[{k: _plain(v) for k, v in run.instance.items()} for run in judgement.runs],
        preset=preset,
        seed=judgement.seed,
    )


def _warnings(runs: Sequence[Run]) -> Iterator[str]:
    for number, run in enumerate(runs, start=1):
        for key, p in run.parts.items():
            least, name = run.resolves(key) or 0.0, f"part '{key}' " if key else ""
            if p.relation == "==" and p.grade is Grade.STATISTICAL and least > WARN:
                yield f"case {number} {name}resolves {least:.2g}: fresh seeds may fail"


DECLARED = ("claim", "statement", "ranges", "sources", "serves", "origin", "notes")


def _part(claim: Claim, case: int, run: Run, key: str) -> PartRecord:
    p = run.parts[key]
    fed = {name: feeds[key] for name, feeds in run.resolution.items() if key in feeds}
    return PartRecord(
        name=key or claim.slug,
        case=case,
        relation=p.relation,
        holds=p.holds,
        measured=_rounded(p.centre, p),
        error=_plain(_significant(p.error, 2)),
        predicted=_rounded(p.predicted, p),
        margin=_number(_significant(np.array(p.margin), 2).item()),
        marks={name: _number(float(_significant(np.array(v), 2))) for name, v in fed.items()},
        source=p.source,
        grade=str(p.grade),
    )


def _rounded(values: Any, part: Part) -> Any:
    """Round to a hundredth of the error, and to DIGITS significant digits."""
    v = np.asarray(values, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.floor(np.log10(np.where(part.error > 0, part.error, np.nan))) - 1
        least = np.floor(np.log10(np.where(v != 0, np.abs(v), 1.0))) + 1 - DIGITS
    places = -np.nan_to_num(np.fmax(unit, least), nan=0.0)
    flat = [round(float(a), int(k)) for a, k in zip(v.ravel(), places.ravel(), strict=True)]
    return _plain(np.array(flat).reshape(v.shape))


def _significant(values: Any, digits: int) -> Any:
    flat = [float(f"{a:.{digits}g}") for a in np.ravel(values)]
    return np.array(flat).reshape(np.shape(values))


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Return a value as short plain data."""
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, float | np.floating):
        return _number(float(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        if value.ndim == 0:
            return _plain(value.item())
        small = value.size <= 64
        return [_plain(v) for v in value] if small else f"array of shape {value.shape}"
    if isinstance(value, Sequence) and len(value) <= 64:
        return [_plain(v) for v in value]
    return getattr(value, "__name__", None) or str(value)[:120]
