"""Importing a theme loads nothing heavier than NumPy: modules are counted, not timed."""

import subprocess
import sys
from pathlib import Path

import pytest

import theorylab

HEAVY = {
    "cvxpy",
    "dask",
    "distributed",
    "flint",
    "joblib",
    "llvmlite",
    "matplotlib",
    "numba",
    "pandas",
    "scipy",
    "sklearn",
    "sympy",
}
THEMES = [
    p.name for p in Path(theorylab.__file__).parent.iterdir() if (p / "__init__.py").is_file()
]


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("theme", THEMES)
def test_a_theme_is_imported_lazily(theme: str) -> None:
    program = f"import sys, theorylab.{theme}; print(*sys.modules)"
    assert not HEAVY & set(run(program).split())


@pytest.mark.parametrize(
    "before",
    ["", "import theorylab.optimization.adam", "from theorylab.optimization.adam import amsgrad"],
)
def test_adam_is_the_function_whatever_was_imported_before(before: str) -> None:
    program = f"{before}\nfrom theorylab.optimization import adam, adam_steps\nprint(adam.__name__)"
    assert run(program) == "adam"
    program = f"{before}\nimport theorylab\nprint(theorylab.optimization.adam.__name__)"
    assert run(program) == "adam"


def test_estimators_are_an_attribute() -> None:
    pytest.importorskip("sklearn")
    program = "import theorylab\nprint(theorylab.estimators.ConvexReLURegressor.__name__)"
    assert run(program) == "ConvexReLURegressor"
