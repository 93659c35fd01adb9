"""Run experiments: judge, draw, write records and figure, and skip what is finished.

A run is keyed by the content of the files that it really loaded, taken from ``sys.modules`` and
hashed without comments or layout, with preset, seed and versions. The hashes stand in the record
file, so that a stale figure is noticed; a marker in ``.theorylab/done``, written last, also holds
the digests of the outputs. Outputs are written beside their place and renamed.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import theorylab
from theorylab.verify.claims import Claim, Preset
from theorylab.verify.kernel import Judgement, Verdict, judge_all
from theorylab.verify.panels import STYLE, compose, save, save_pdf, series
from theorylab.verify.records import Record, read_records, record_of

__all__ = [
    "Experiment",
    "Outcome",
    "code_hash",
    "discover",
    "find_root",
    "load",
    "outputs",
    "run",
    "stale",
    "versions",
]

PACKAGE = Path(theorylab.__file__).parent
VERSIONED = (
    *("theorylab", "numpy", "scipy", "sympy", "matplotlib"),
    *("cvxpy", "clarabel", "numba", "python-flint"),
)
OWN = frozenset(name for name in sys.modules if name.startswith("theorylab"))
"""What judging itself needs."""
APART = ("cli", "gallery", "index", "runner", "records", "site")
"""Modules of ``theorylab.verify`` that no verdict or figure depends on."""


@dataclass(frozen=True)
class Experiment:
    """A loaded script: its claims in the order of definition."""

    path: Path
    name: str
    title: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Outcome:
    """What one run of one script came to."""

    name: str
    records: list[Record]
    error: str = ""
    skipped: bool = False
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether a claim or control failed, or the script or its figure raised."""
        return bool(self.error) or any(record.failed for record in self.records)


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder upwards with ``experiments/``; else the folder itself."""
    here = (start or Path.cwd()).resolve()
    return next((p for p in (here, *here.parents) if (p / "experiments").is_dir()), here)


def discover(root: Path) -> list[Path]:
    """Return the experiments of a checkout, sorted."""
    return sorted(p for p in (root / "experiments").glob("*/*.py") if not p.name.startswith("_"))


def name_of(path: Path) -> str:
    """Return "theme/module" for an experiment of a checkout, its own path for another script."""
    path = path.resolve()
    root = find_root(path.parent)
    with suppress(ValueError):
        inside = path.relative_to(root / "experiments")
        if len(inside.parts) == 2:
            return str(inside.with_suffix(""))
    apart = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    return f"elsewhere/{path.stem}-{apart}"


def load(path: Path) -> Experiment:
    """Import a script under a name of its own and collect its claims.

    Raises
    ------
    ValueError
        If two claims share a slug, or a function's name is declared twice.
    """
    name = name_of(path)
    module_name = "theorylab_experiment_" + name.replace("/", "_").replace("-", "_")
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"path: expected a Python script, got {path}")
    source = path.read_text(encoding="utf-8")
    named = [n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    twice = {n for n in named if n != "_" and named.count(n) > 1}
    if twice:
        raise ValueError(f"claims: expected distinct names in {name}, got {sorted(twice)} twice")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    claims = tuple(dict.fromkeys(v for v in vars(module).values() if isinstance(v, Claim)))
    title = (module.__doc__ or name).strip().splitlines()[0].rstrip(".")
    return Experiment(path, name, title, claims)


@cache
def versions() -> dict[str, str]:
    """Return the versions that a record depends on."""
    found = {package: importlib.metadata.version(package) for package in VERSIONED}
    return {"python": platform.python_version()} | found


# ---------------------------------------------------------------------------------- what was loaded
def code_hash(path: Path) -> str:
    """Return the hash of a file: for Python of its syntax tree, so that comments do not count."""
    content = path.read_bytes()
    if path.suffix == ".py":
        content = ast.dump(ast.parse(content)).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _loaded(script: Path, root: Path) -> dict[str, str]:
    """Return file -> hash for the script, the style, and all of the package that is loaded."""
    files = {STYLE.resolve(), script.resolve()}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        apart = name.startswith("theorylab.verify.") and name.split(".")[2] in APART
        if file and name.split(".")[0] == "theorylab" and not apart:
            files.add(Path(file).resolve())
    return {_relative(p, root): code_hash(p) for p in sorted(files) if p.is_file()}


def _relative(path: Path, root: Path) -> str:
    for base in (PACKAGE.resolve().parent, root.resolve()):
        with suppress(ValueError):
            return str(path.relative_to(base))
    return path.name


def _place(name: str, root: Path) -> Path:
    inside = PACKAGE.parent / name
    return inside if name.startswith("theorylab/") else root / name


def _forget_modules() -> None:
    """Drop the themes from ``sys.modules``, so that what is loaded is what this script loads."""
    for name in list(sys.modules):
        parts = name.split(".")
        if parts[0] == "theorylab" and name not in OWN and parts[1] not in ("verify", "corpus"):
            del sys.modules[name]
            if len(parts) == 2:
                vars(theorylab).pop(parts[1], None)


def stale(root: Path, name: str) -> list[str]:
    """Return the files that have changed since the committed record of an experiment was made."""
    record, _ = outputs(root, name, "full", 0)
    code = json.loads(record.read_text(encoding="utf-8"))["code"]
    return [f for f, h in code.items() if not _same_code(_place(f, root), h)]


def _same_code(path: Path, digest: str) -> bool:
    return path.is_file() and code_hash(path) == digest


def outputs(root: Path, name: str, preset: Preset, seed: int) -> tuple[Path, Path]:
    """Return the record file and the figure of a run: in ``figures/`` for the full cases at seed 0.

    Those of any other run, or of a script that is no experiment of the checkout, are in
    ``.theorylab/``.
    """
    committed = preset == "full" and seed == 0 and not name.startswith("elsewhere/")
    folder = root / "figures" if committed else root / ".theorylab" / f"{preset}-{seed}"
    return folder / f"{name}.json", folder / f"{name}.png"


# ---------------------------------------------------------------------------------- running
def run(
    scripts: Sequence[Path],
    *,
    preset: Preset = "quick",
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    slugs: Sequence[str] = (),
    timeout: float = 0.0,
    save: Sequence[str] = (),
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run scripts on seeds, in parallel over both, and return the outcomes in that order.

    Parameters
    ----------
    scripts
        Paths of experiments.
    preset, seeds
        Which cases, and which seeds.
    jobs
        Number of processes.
    slugs
        If given, judge only these claims (and their corrections), write and skip nothing.
    timeout
        Seconds after which a claim fails; 0 for no limit.
    save
        What else to write, in ``.theorylab/saved``: "pdf" for the vector figure, "npz" for what its
        panels draw. A script is then judged though it is finished.
    progress
        Called with each outcome as it is ready.
    """
    from joblib import Parallel, delayed

    tasks = [(script, seed) for seed in seeds for script in scripts]
    for root in {find_root(script.parent) for script in scripts}:
        _sweep(root)
    results = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(_run_one)(script, preset, seed, tuple(slugs), timeout, tuple(save))
        for script, seed in tasks
    )
    finished: list[Outcome] = []
    try:
        for outcome in results:
            finished.append(outcome)
            if progress is not None:
                progress(outcome)
    except Exception as error:  # a worker that was killed, or that left by itself
        names = [name_of(script) for script, _ in tasks[len(finished) :]]
        text = f"the process ended: {type(error).__name__}: {error}"
        finished += [Outcome(name, [], error=text) for name in names]
    return finished


def _run_one(
    script: Path,
    preset: Preset,
    seed: int,
    slugs: tuple[str, ...],
    timeout: float,
    also: tuple[str, ...] = (),
) -> Outcome:
    name = name_of(script)
    started = time.perf_counter()
    os.environ["THEORYLAB_KERNELS"] = "compiled"  # interpreted kernels differ in last digits
    try:
        if slugs:
            records, skipped = _judge_only(script, preset, seed, slugs, timeout), False
        else:
            records, skipped = _judge_and_write(script, preset, seed, timeout, also)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a script that exits has not been judged
        return Outcome(name, [], error=traceback.format_exc(limit=-4))
    return Outcome(name, records, skipped=skipped, seconds=time.perf_counter() - started)


def _judge_only(
    script: Path, preset: Preset, seed: int, slugs: tuple[str, ...], timeout: float
) -> list[Record]:
    experiment = load(script)
    wanted = {*slugs} | {c.notes.get("refuted_by") for c in experiment.claims if c.slug in slugs}
    chosen = [c for c in experiment.claims if c.slug in wanted]
    with _one_thread():
        judgements = _judge(chosen, preset, seed, timeout)
    return [record_of(experiment.name, j, preset) for j in judgements if j.claim.slug in slugs]


def _judge(claims: Sequence[Claim], preset: Preset, seed: int, timeout: float) -> list[Judgement]:
    """Judge claims, each within the time limit."""
    limited = [_limited(c, timeout) for c in claims] if timeout else list(claims)
    judged = judge_all(limited, preset=preset, seed=seed)
    return [replace(j, claim=c) for c, j in zip(claims, judged, strict=True)]


def _limited(claim: Claim, seconds: float) -> Claim:
    """Return the claim with a check that raises when all its calls together pass the limit."""
    import functools

    deadline = 0.0

    @functools.wraps(claim.check)
    def check(**instance: Any) -> Any:
        nonlocal deadline
        deadline = deadline or time.monotonic() + seconds
        with _alarm(deadline - time.monotonic()):
            return claim.check(**instance)

    return replace(claim, check=check)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the time limit of the claim is used up")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _judge_and_write(
    script: Path, preset: Preset, seed: int, timeout: float, also: tuple[str, ...]
) -> tuple[list[Record], bool]:
    root = find_root(script.parent)
    name = name_of(script)
    target, figure = outputs(root, name, preset, seed)
    marker = root / ".theorylab" / "done" / f"{preset}-{seed}" / f"{name}.json"
    if not also and _finished(marker, root):
        return read_records(target), True
    _forget_modules()
    before = {p: _digest(p) for p in (script.resolve(), *PACKAGE.resolve().glob("*/*.py"))}
    experiment = load(script)
    if not experiment.claims:
        raise ValueError(f"claims: expected at least one in {script.name}, got none")
    with _one_thread():
        judgements = _judge(experiment.claims, preset, seed, timeout)
        drawn = compose(judgements, experiment.title)
        arrays = series(judgements) if "npz" in also else {}
    code = _loaded(script, root)
    # A file that was edited during the run must not pass for the one that was loaded.
    changed = any(not p.is_file() or _digest(p) != digest for p, digest in before.items())
    records = [record_of(name, j, preset) for j in judgements]
    data = {"claims": [r.to_json() for r in records], "code": code, "versions": versions()}
    text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if drawn is None:
        figure.unlink(missing_ok=True)
    else:
        _write(figure, lambda path: save(drawn, path))
    _write(target, lambda path: path.write_text(text, encoding="utf-8"))
    kept = root / ".theorylab" / "saved" / f"{preset}-{seed}" / name
    if drawn is not None and "pdf" in also:
        _write(kept.with_suffix(".pdf"), lambda path: save_pdf(drawn, path))
    if arrays:
        _write(kept.with_suffix(".npz"), lambda path: _write_arrays(path, arrays))
    if not changed and not any(r.verdict == Verdict.FAILED for r in records):
        digests = {str(p.relative_to(root)): _digest(p) for p in (target, figure) if p.exists()}
        key = {"code": code, "versions": versions(), "outputs": digests}
        _write(marker, lambda path: path.write_text(json.dumps(key)))
    return records, False


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Pin BLAS to one thread, also for what a panel computes."""
    # The limit reaches only the BLAS libraries that are loaded by now, and SciPy brings its own.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _finished(marker: Path, root: Path) -> bool:
    """Whether the code, the versions and the outputs are still those of the marker."""
    try:
        key: Mapping[str, Any] = json.loads(marker.read_text())
        return (
            key["versions"] == versions()
            and bool(key["outputs"])
            and all(_same_code(_place(f, root), h) for f, h in key["code"].items())
            and all(_digest(root / f) == h for f, h in key["outputs"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside the place and rename, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write(temporary)
    temporary.replace(path)


def _sweep(root: Path) -> None:
    """Remove the temporary files of processes that are gone."""
    for folder in (root / "figures", root / ".theorylab"):
        for path in folder.rglob(".*.tmp"):
            try:
                os.kill(int(path.name.split(".")[-2]), 0)
            except (ProcessLookupError, ValueError):
                path.unlink(missing_ok=True)
            except PermissionError:
                pass
