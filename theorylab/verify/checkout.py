"""What a checkout holds: experiments, the places of their outputs, and the hashes of the code that
made them."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import theorylab
from theorylab.verify.claims import Claim, Preset
from theorylab.verify.panels import STYLE

__all__ = [
    "PACKAGE",
    "Experiment",
    "code_hash",
    "discover",
    "find_root",
    "load",
    "loaded",
    "name_of",
    "outputs",
    "place",
    "same_code",
    "stale",
    "versions",
]

PACKAGE = Path(theorylab.__file__).parent
VERSIONED = (
    *("theorylab", "numpy", "scipy", "sympy", "matplotlib"),
    *("cvxpy", "clarabel", "numba", "python-flint"),
)
APART = ("_child", "_cluster", "checkout", "cli", "gallery", "index", "runner", "records", "site")
"""Modules of ``theorylab.verify`` that no verdict or figure depends on."""


@dataclass(frozen=True)
class Experiment:
    """A loaded script: its claims in the order of definition."""

    path: Path
    name: str
    title: str
    claims: tuple[Claim, ...]


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
    return _content_hash(path.read_bytes(), path.suffix == ".py")


@cache  # hundreds of records name the same files
def _content_hash(content: bytes, python: bool) -> str:
    if python:
        content = ast.dump(ast.parse(content)).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def loaded(script: Path, root: Path) -> dict[str, str]:
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


def place(name: str, root: Path) -> Path:
    """Return the file that a record names: of the package that is imported, or of the checkout."""
    inside = PACKAGE.parent / name
    return inside if name.startswith("theorylab/") else root / name


def stale(root: Path, name: str) -> list[str]:
    """Return the files that have changed since the committed record of an experiment was made."""
    record, _ = outputs(root, name, "full", 0)
    code = json.loads(record.read_text(encoding="utf-8"))["code"]
    return [f for f, h in code.items() if not same_code(place(f, root), h)]


def same_code(path: Path, digest: str) -> bool:
    """Whether a file is there and has this hash."""
    return path.is_file() and code_hash(path) == digest


def outputs(root: Path, name: str, preset: Preset, seed: int) -> tuple[Path, Path]:
    """Return the record file and the figure of a run: in ``figures/`` for the full cases at seed 0.

    Those of any other run, or of a script that is no experiment of the checkout, are in
    ``.theorylab/``.
    """
    committed = preset == "full" and seed == 0 and not name.startswith("elsewhere/")
    folder = root / "figures" if committed else root / ".theorylab" / f"{preset}-{seed}"
    return folder / f"{name}.json", folder / f"{name}.png"
