"""Run experiments: judge, draw, write records and figure, and skip what is finished.

A run is keyed by the content of the files that it really loaded, taken from ``sys.modules`` and
hashed without comments or layout, with preset, seed and versions. The hashes stand in the record
file, so that a stale figure is noticed; a marker in ``.theorylab/done``, written last, also holds
the digests of the outputs. A process that judges writes nothing: it returns the content of its
files, and they are written beside their place and renamed by the process that asked.
"""

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np

import theorylab
from theorylab.verify.checkout import (
    PACKAGE,
    code_hash,
    find_root,
    load,
    loaded,
    name_of,
    outputs,
    place,
    same_code,
    versions,
)
from theorylab.verify.claims import Claim, Preset
from theorylab.verify.kernel import Judgement, Verdict, judge_all
from theorylab.verify.panels import STYLE, compose, save, save_pdf, series
from theorylab.verify.records import Record, read_records, record_of

__all__ = ["Outcome", "run"]

OWN = frozenset(name for name in sys.modules if name.startswith("theorylab"))
"""What judging itself needs."""


@dataclass(frozen=True)
class Outcome:
    """What one run of one script came to."""

    name: str
    records: list[Record]
    error: str = ""
    skipped: bool = False
    seconds: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Paths in the checkout and what is to stand there, in the order of writing."""
    made: Mapping[str, str] = field(default_factory=dict)
    """Files and packages on another machine, and their hashes and versions."""

    @property
    def failed(self) -> bool:
        """Whether a claim or control failed, or the script or its figure raised."""
        return bool(self.error) or any(record.failed for record in self.records)


def run(
    scripts: Sequence[Path],
    *,
    preset: Preset = "quick",
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    slugs: Sequence[str] = (),
    timeout: float = 0.0,
    save: Sequence[str] = (),
    scheduler: str = "",
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
        panels draw; of the full cases only, as every figure. A script is then judged though it is
        finished.
    scheduler
        Address of a Dask scheduler whose workers judge, as many scripts at a time as they have
        threads, in place of ``jobs`` processes here. They read the checkout at the same path.
    progress
        Called with each outcome as it is ready.

    Raises
    ------
    ConnectionError
        If the scheduler does not answer or has no worker.
    """
    tasks = [(script, seed) for seed in seeds for script in scripts]
    for root in {find_root(script.parent) for script in scripts}:
        _sweep(root)
    outcomes: dict[int, Outcome] = {}

    def keep(index: int, outcome: Outcome) -> None:
        outcomes[index] = outcome
        if progress is not None:
            progress(outcome)

    judge = partial(_run_one, preset=preset, slugs=slugs, timeout=timeout, also=save)
    with ExitStack() as stack:
        workers: dict[str, Any] = {"n_jobs": jobs}
        if scheduler:
            from theorylab.verify._cluster import connected

            workers = {"backend": stack.enter_context(connected(scheduler))}
            judge = partial(_run_apart, judge)
        for index, (script, seed) in enumerate(tasks):
            records = None if slugs or save else _finished(script, preset, seed)
            if records is not None:
                keep(index, Outcome(name_of(script), records, skipped=True))
        left = {index: task for index, task in enumerate(tasks) if index not in outcomes}
        try:
            for index, outcome in _in_parallel(judge, left, workers):
                script, seed = tasks[index]
                keep(index, _written(outcome, find_root(script.parent), preset, seed))
        except Exception as error:  # a worker that was killed, or that left by itself
            text = f"the process ended: {type(error).__name__}: {error}"
            for index, (script, _) in left.items():
                outcomes.setdefault(index, Outcome(name_of(script), [], error=text))
    return [outcomes[index] for index in range(len(tasks))]


def _in_parallel(
    judge: Callable[..., Outcome], tasks: Mapping[int, tuple[Path, int]], workers: dict[str, Any]
) -> Iterator[tuple[int, Outcome]]:
    """Judge each task; return them as they end, so that what is finished is written at once."""
    from joblib import Parallel, delayed

    ended = Parallel(**workers, batch_size=1, return_as="generator_unordered")
    yield from ended(delayed(_numbered)(i, judge, *task) for i, task in tasks.items())


def _numbered(index: int, judge: Callable[..., Outcome], *task: Any) -> tuple[int, Outcome]:
    return index, judge(*task)


def _run_apart(judge: Callable[..., Outcome], script: Path, seed: int) -> Outcome:
    """Judge in a child of a worker of a cluster."""
    from theorylab.verify._child import call

    try:
        outcome: Outcome = call(_run_elsewhere, judge, script, seed)
    except RuntimeError as error:
        return Outcome(name_of(script), [], error=str(error))
    return outcome


def _run_elsewhere(judge: Callable[..., Outcome], script: Path, seed: int) -> Outcome:
    """Judge, and say with which files and versions."""
    outcome = judge(script, seed)
    return replace(outcome, made={**loaded(script, find_root(script.parent)), **versions()})


def _run_one(
    script: Path,
    seed: int,
    *,
    preset: Preset,
    slugs: Sequence[str],
    timeout: float,
    also: Sequence[str],
) -> Outcome:
    name = name_of(script)
    started = time.perf_counter()
    os.environ["THEORYLAB_KERNELS"] = "compiled"  # interpreted kernels differ in last digits
    try:
        if slugs:
            records = _judge_only(script, preset, seed, slugs, timeout)
            files: dict[str, bytes] = {}
        else:
            records, files = _judge_and_draw(script, preset, seed, timeout, also)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a script that exits has not been judged
        return Outcome(name, [], error=traceback.format_exc(limit=-4))
    return Outcome(name, records, seconds=time.perf_counter() - started, files=files)


def _judge_only(
    script: Path, preset: Preset, seed: int, slugs: Sequence[str], timeout: float
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


def _judge_and_draw(
    script: Path, preset: Preset, seed: int, timeout: float, also: Sequence[str]
) -> tuple[list[Record], dict[str, bytes]]:
    """Return the records and the files of a whole script; the marker, if it is finished, last."""
    root = find_root(script.parent)
    name = name_of(script)
    _forget_modules()
    before = _digests(script)
    experiment = load(script)
    if not experiment.claims:
        raise ValueError(f"claims: expected at least one in {script.name}, got none")
    with _one_thread():
        judgements = _judge(experiment.claims, preset, seed, timeout)
        # Panels are made for the full cases; those of others may lack what a panel draws.
        drawn = compose(judgements, experiment.title) if preset == "full" else None
        arrays = series(judgements) if preset == "full" and "npz" in also else {}
    code = loaded(script, root)
    # A file that was edited since it was loaded must not pass for what was loaded.
    now = {file: place(file, root) for file in code}
    changed = (f for f, p in now.items() if _digest(p.read_bytes()) != before.get(p.resolve()))
    code |= dict.fromkeys(changed, "edited during the run")
    records = [record_of(name, j, preset) for j in judgements]
    data = {"claims": [r.to_json() for r in records], "code": code, "versions": versions()}
    text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    target, figure = (str(p.relative_to(root)) for p in outputs(root, name, preset, seed))
    files = {target: text.encode()}
    if drawn is not None:
        files[figure] = _drawn(partial(save, drawn))
    digests = {file: _digest(content) for file, content in files.items()}
    kept = f".theorylab/saved/{preset}-{seed}/{name}"
    if drawn is not None and "pdf" in also:
        files[f"{kept}.pdf"] = _drawn(partial(save_pdf, drawn))
    if arrays:
        with BytesIO() as written:
            np.savez_compressed(written, **dict[str, Any](arrays))
            files[f"{kept}.npz"] = written.getvalue()
    if not any(r.verdict == Verdict.FAILED for r in records):
        key = {"code": code, "versions": versions(), "outputs": digests}
        files[_marker(name, preset, seed)] = json.dumps(key).encode()
    return records, files


def _drawn(write: Callable[[Path], None]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "figure"
        write(path)
        return path.read_bytes()


def _written(outcome: Outcome, root: Path, preset: Preset, seed: int) -> Outcome:
    """Write the files of an outcome, if they were made with what is here."""
    here = {f: code_hash(p) for f in outcome.made if (p := place(f, root)).is_file()} | versions()
    other = ", ".join(f for f, version in outcome.made.items() if here.get(f) != version)
    if other:
        text = f"{outcome.error}the worker has another version of {other}"
        return Outcome(outcome.name, [], error=text)
    try:
        if outcome.files:
            figure = outputs(root, outcome.name, preset, seed)[1]
            if str(figure.relative_to(root)) not in outcome.files:
                figure.unlink(missing_ok=True)
        for file, content in outcome.files.items():
            _write(root / file, content)
    except OSError as error:
        return Outcome(outcome.name, [], error=f"{type(error).__name__}: {error}")
    return replace(outcome, files={}, made={})


def _forget_modules() -> None:
    """Drop the themes from ``sys.modules``, so that what is loaded is what this script loads."""
    for name in list(sys.modules):
        parts = name.split(".")
        if parts[0] == "theorylab" and name not in OWN and parts[1] not in ("verify", "corpus"):
            del sys.modules[name]
            if len(parts) == 2:
                vars(theorylab).pop(parts[1], None)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Pin BLAS to one thread, also for what a panel computes."""
    # The limit reaches only the BLAS libraries that are loaded by now, and SciPy brings its own.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _digests(script: Path) -> dict[Path, str]:
    """Return the digests of all that a script may load; of what stays loaded, the first ones."""
    files = (script.resolve(), STYLE.resolve(), *PACKAGE.resolve().rglob("*.py"))
    return {p: _digest(p.read_bytes()) for p in files} | _lasting()


@cache
def _lasting() -> dict[Path, str]:
    """Return the digests, at the first script, of the modules that no later script loads again."""
    own = {getattr(sys.modules.get(name), "__file__", None) for name in OWN}
    files = {Path(file).resolve() for file in own if file}
    for folder in ("verify", "corpus"):
        files |= {*(PACKAGE / folder).resolve().glob("*.py")}
    return {p: _digest(p.read_bytes()) for p in files}


def _marker(name: str, preset: Preset, seed: int) -> str:
    return f".theorylab/done/{preset}-{seed}/{name}.json"


def _finished(script: Path, preset: Preset, seed: int) -> list[Record] | None:
    """Return the records if the code, the versions and the outputs are those of the marker."""
    root, name = find_root(script.parent), name_of(script)
    try:
        key: Mapping[str, Any] = json.loads((root / _marker(name, preset, seed)).read_text())
        if (
            key["versions"] == versions()
            and bool(key["outputs"])
            and all(same_code(place(f, root), h) for f, h in key["code"].items())
            and all(_digest((root / f).read_bytes()) == h for f, h in key["outputs"].items())
        ):
            return read_records(outputs(root, name, preset, seed)[0])
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Write beside the place and rename, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
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
