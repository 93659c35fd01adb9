"""Run experiments: judge, draw, write evidence and figure, and skip what is finished.

Outputs are written under a temporary name and renamed. A marker in ``.theorylab/done``, written
last, holds the key of the run (script, static import closure, plotting style, preset, seed,
versions) and the digests of its outputs: a rerun skips a script whose key and digests still agree,
so that a changed module, a corrupted file and an interrupted run are all recomputed."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import theorylab
from theorylab.verify.claims import Claim, Judgement, Preset, Verdict, judge_all
from theorylab.verify.plotting import STYLE, compose, save

__all__ = [
    "Experiment",
    "Outcome",
    "describe",
    "discover",
    "find_root",
    "import_closure",
    "load",
    "outputs",
    "run",
    "versions",
]

PACKAGE = Path(theorylab.__file__).parent
VERSIONED = (
    "theorylab",
    "numpy",
    "scipy",
    "sympy",
    "matplotlib",
    "cvxpy",
    "clarabel",
    "numba",
    "python-flint",
)


@dataclass(frozen=True)
class Experiment:
    """A loaded script: its claims in the order of definition."""

    path: Path
    name: str
    title: str
    claims: tuple[Claim, ...]

    def claim_name(self, claim: Claim) -> str:
        """Return "theme/module:slug"."""
        return f"{self.name}:{claim.slug}"


@dataclass(frozen=True)
class Outcome:
    """What one run of one script came to; ``records`` as in the evidence file."""

    name: str
    records: list[dict[str, Any]]
    error: str = ""
    skipped: bool = False
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether a claim or control failed, or the script or its figure raised."""
        return bool(self.error) or any(
            record["verdict"] == Verdict.FAILED for record in self.records
        )


def find_root(start: Path | None = None) -> Path:
    """Return the checkout that holds ``start``: the nearest folder upwards with ``experiments/``;
    else the folder itself."""
    here = (start or Path.cwd()).resolve()
    return next((p for p in (here, *here.parents) if (p / "experiments").is_dir()), here)


def discover(root: Path) -> list[Path]:
    """Return the experiments of a checkout, sorted."""
    return sorted(p for p in (root / "experiments").glob("*/*.py") if not p.name.startswith("_"))


def name_of(path: Path) -> str:
    """Return "theme/module" for a script, whatever folder it lies in."""
    return f"{path.resolve().parent.name}/{path.stem}"


def load(path: Path) -> Experiment:
    """Import a script under a name of its own and collect its claims.

    Raises
    ------
    ValueError
        If two claims share a slug.
    """
    name = name_of(path)
    spec = importlib.util.spec_from_file_location(
        "theorylab_experiment_" + name.replace("/", "_"), path
    )
    if spec is None or spec.loader is None:
        raise ValueError(f"path: expected a Python script, got {path}")
    _drop_stale_kernels(import_closure(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    claims = tuple(
        dict.fromkeys(value for value in vars(module).values() if isinstance(value, Claim))
    )
    slugs = [c.slug for c in claims]
    if len(set(slugs)) < len(slugs):
        raise ValueError(f"claims: expected distinct slugs in {name}, got {slugs}")
    title = (module.__doc__ or name).strip().splitlines()[0].rstrip(".")
    return Experiment(path, name, title, claims)


def _drop_stale_kernels(files: Sequence[Path]) -> None:
    """Delete what numba compiled before a module that the kernels import was changed; numba
    compares only their own file."""
    for file in files:
        compiled = list(file.parent.glob(f"__pycache__/{file.stem}.*.nbc"))
        newest = max(p.stat().st_mtime for p in import_closure(file)) if compiled else 0.0
        for path in compiled:
            with suppress(FileNotFoundError):  # another process may do the same
                if path.stat().st_mtime < newest:
                    path.unlink()


@cache
def versions() -> dict[str, str]:
    """Return the versions that a record depends on."""
    return {"python": platform.python_version()} | {
        p: importlib.metadata.version(p) for p in VERSIONED
    }


def import_closure(script: Path) -> list[Path]:
    """Return the script and every file of the package that it imports, directly or not, as its
    source says.

    A name that a lazy package lends, imported from it or read as its attribute, is followed through
    the package's ``__init__.pyi`` to the module that defines it, so that a lazy package does not
    tie a script to modules that it never loads."""
    seen: set[Path] = set()
    queue = [script.resolve()]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        queue += [p for p in _imported_files(path, path.read_bytes()) if p not in seen]
    return sorted(seen)


@cache
def _imported_files(path: Path, source: bytes) -> tuple[Path, ...]:
    nodes = list(ast.walk(ast.parse(source)))
    files: list[Path] = []
    bound: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                files += _package_files(alias.name)
                bound[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                inside = path.resolve().relative_to(PACKAGE.parent).parts[: -node.level]
                module = ".".join([*inside, module]).rstrip(".")
            for alias in node.names:
                files += (
                    _package_files(module, whole=True)
                    if alias.name == "*"
                    else _package_files(f"{module}.{alias.name}")
                )
                bound[alias.asname or alias.name] = f"{module}.{alias.name}"
    inner = {node.value for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        root, _, rest = _dotted(node).partition(".") if node not in inner else ("", "", "")
        if root in bound:
            files += _package_files(f"{bound[root]}.{rest}".rstrip("."), whole=True)
    return tuple(files)


def _dotted(node: ast.AST) -> str:
    """Return "a.b.c" for the expression a.b.c, "" for another one."""
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


def _package_files(dotted: str, *, whole: bool = False) -> Iterator[Path]:
    """Yield the files on the way to a dotted name of the package; with ``whole``, all that a lazy
    package at its end lends."""
    module, *names = dotted.split(".")
    if module != "theorylab":
        return
    yield PACKAGE / "__init__.py"
    for name in names:
        module = f"{module}.{_lazy_names(module).get(name, name)}"
        file = _module_file(module)
        if file is None:
            return
        yield file
    if whole:
        yield from filter(
            None,
            (_module_file(f"{module}.{defined}") for defined in {*_lazy_names(module).values()}),
        )


def _module_file(module: str) -> Path | None:
    base = PACKAGE.joinpath(*module.split(".")[1:])
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def _lazy_names(package: str) -> dict[str, str]:
    """Return name -> submodule as a package's stub declares it."""
    stub = PACKAGE.joinpath(*package.split(".")[1:], "__init__.pyi")
    if not stub.is_file():
        return {}
    nodes = [n for n in ast.parse(stub.read_bytes()).body if isinstance(n, ast.ImportFrom)]
    return {alias.asname or alias.name: n.module for n in nodes if n.module for alias in n.names}


def run_key(script: Path, preset: Preset, seed: int) -> str:
    """Return the hash of everything that the outputs of a run depend on."""
    digest = hashlib.sha256(json.dumps([preset, seed, versions()], sort_keys=True).encode())
    for path in (*import_closure(script), STYLE):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def outputs(root: Path, name: str, preset: Preset, seed: int) -> tuple[Path, Path]:
    """Return the evidence file and the figure of a run: in ``figures/`` for the full cases at seed
    0, else in ``.theorylab/``."""
    folder = (
        root / "figures"
        if preset == "full" and seed == 0
        else root / ".theorylab" / f"{preset}-{seed}"
    )
    return folder / f"{name}.json", folder / f"{name}.png"


def describe(experiment: Experiment, judgement: Judgement, preset: Preset) -> dict[str, Any]:
    """Return the record of one claim: plain data without time, host or path."""
    claim, shown = judgement.claim, judgement.shown
    return {
        "claim": experiment.claim_name(claim),
        "statement": claim.statement,
        "sources": list(claim.sources),
        "origin": str(claim.origin),
        "kind": claim.kind,
        "relation": str(shown.relation) if shown else None,
        "verdict": str(judgement.verdict),
        "problems": list(judgement.problems),
        "grade": str(judgement.grade) if judgement.grade else None,
        "margin": _number(shown.margin if shown else math.nan),
        "resolution": _number(judgement.resolution),
        "measured": _number(shown.measured if shown else math.nan),
        "predicted": _number(shown.predicted if shown else math.nan),
        "detail": shown.detail if shown else "",
        "cases": [
            {
                "instance": {name: _summary(value) for name, value in run.instance.items()},
                "holds": run.evidence.holds,
                "margin": _number(run.evidence.margin),
                "resolution": _number(run.evidence.resolution),
                "measured": _number(run.evidence.measured),
                "predicted": _number(run.evidence.predicted),
            }
            for run in judgement.runs
        ],
        "controls": [
            {
                "name": control.name,
                "changes": control.changes,
                "margin": _number(control.evidence.margin if control.evidence else math.nan),
                "decides": control.decides,
            }
            for control in judgement.controls
        ],
        "no_break": claim.no_break,
        "corrected_by": claim.corrected_by,
        "undecided": claim.undecided,
        "coarse": claim.coarse,
        "scope": "space of hypotheses" if claim.space else "declared cases only",
        "preset": preset,
        "seed": judgement.seed,
    }


def run(
    scripts: Sequence[Path],
    *,
    preset: Preset = "quick",
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    slugs: Sequence[str] = (),
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run scripts on seeds, in parallel over both, and return the outcomes in the order of the
    arguments.

    Parameters
    ----------
    scripts
        Paths of experiments.
    preset, seeds
        Which cases, and which seeds.
    jobs
        Number of processes.
    slugs
        If given, judge only these claims (and what they are corrected by), write nothing, and skip
        nothing.
    progress
        Called with each outcome as it is ready.
    """
    from joblib import Parallel, delayed

    # All keys come before the first import: a module that is edited during the run must not pass
    # for the one that was loaded.
    tasks = [
        (script, seed, "" if slugs else _key(script, preset, seed))
        for seed in seeds
        for script in scripts
    ]
    results = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(_run_one)(script, preset, seed, tuple(slugs), key) for script, seed, key in tasks
    )
    finished = []
    for outcome in results:
        finished.append(outcome)
        if progress is not None:
            progress(outcome)
    return finished


def _key(script: Path, preset: Preset, seed: int) -> str:
    """Return the run key, or an empty one for a script whose sources cannot be read; it stops where
    it is loaded."""
    try:
        return run_key(script, preset, seed)
    except (OSError, SyntaxError, ValueError):
        return ""


def _run_one(script: Path, preset: Preset, seed: int, slugs: tuple[str, ...], key: str) -> Outcome:
    name = name_of(script)
    started = time.perf_counter()
    try:
        records, skipped = (
            _judge_only(script, preset, seed, slugs)
            if slugs
            else _judge_and_write(script, preset, seed, key)
        )
    except Exception:
        return Outcome(name, [], error=traceback.format_exc(limit=-4))
    return Outcome(name, records, skipped=skipped, seconds=time.perf_counter() - started)


def _judge_only(
    script: Path, preset: Preset, seed: int, slugs: tuple[str, ...]
) -> tuple[list[dict[str, Any]], bool]:
    experiment = load(script)
    wanted = {*slugs} | {c.corrected_by for c in experiment.claims if c.slug in slugs}
    with _one_thread():
        judgements = judge_all(
            [c for c in experiment.claims if c.slug in wanted], preset=preset, seed=seed
        )
    return [describe(experiment, j, preset) for j in judgements if j.claim.slug in slugs], False


def _judge_and_write(
    script: Path, preset: Preset, seed: int, key: str
) -> tuple[list[dict[str, Any]], bool]:
    root = find_root(script.parent)
    name = name_of(script)
    evidence, figure = outputs(root, name, preset, seed)
    marker = root / ".theorylab" / "done" / f"{preset}-{seed}" / f"{name}.json"
    if key and _finished(marker, key, (evidence, figure)):
        return json.loads(evidence.read_text(encoding="utf-8"))["claims"], True
    experiment = load(script)
    if not experiment.claims:
        raise ValueError(f"claims: expected at least one in {script}, got none")
    with _one_thread():
        judgements = judge_all(experiment.claims, preset=preset, seed=seed)
        drawn = compose(judgements, experiment.title)
    records = [describe(experiment, j, preset) for j in judgements]
    text = (
        json.dumps(
            {"claims": records, "versions": versions()},
            indent=1,
            allow_nan=False,
            ensure_ascii=False,
        )
        + "\n"
    )
    scratch = root / ".theorylab" / "tmp"
    if drawn is None:
        figure.unlink(missing_ok=True)
    else:
        _write(figure, scratch, lambda path: save(drawn, path))
    _write(evidence, scratch, lambda path: path.write_text(text, encoding="utf-8"))
    digests = {str(p.relative_to(root)): _digest(p) for p in (evidence, figure) if p.exists()}
    if not any(record["verdict"] == Verdict.FAILED for record in records):
        _write(
            marker,
            scratch,
            lambda path: path.write_text(json.dumps({"key": key, "digests": digests})),
        )
    return records, False


def _one_thread() -> AbstractContextManager[Any]:
    """Pin BLAS to one thread, also for what a panel computes."""
    # The limit reaches only the BLAS libraries that are loaded by now, and SciPy brings its own.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _finished(marker: Path, key: str, files: tuple[Path, ...]) -> bool:
    try:
        record = json.loads(marker.read_text())
        root = marker.parents[4]
        return (
            record["key"] == key
            and str(files[0].relative_to(root)) in record["digests"]
            and all(_digest(root / name) == digest for name, digest in record["digests"].items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, scratch: Path, write: Callable[[Path], Any]) -> None:
    """Write through a temporary file of this process, so that a reader sees the old file or the new
    one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    temporary = scratch / f"{os.getpid()}-{path.parent.name}-{path.name}"
    write(temporary)
    temporary.replace(path)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _summary(value: Any) -> Any:
    """Return an instance's value as short plain data."""
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, float | np.floating):
        return _number(float(value))
    if isinstance(value, tuple | list) and len(value) <= 8:
        return [_summary(v) for v in value]
    if isinstance(value, np.ndarray):
        return (
            value.tolist()
            if value.size <= 8 and np.isfinite(value).all()
            else f"array of shape {value.shape}"
        )
    return getattr(value, "__name__", type(value).__name__)
