"""Compiled code does not outlive what it was made from."""

import shutil
import subprocess
import sys
from pathlib import Path

import theorylab
from theorylab.numerics.compiled import cache_folder, compiled

PACKAGE = Path(theorylab.__file__).parent
HEAD = "from theorylab.numerics.compiled import compiled\n"
INNER = HEAD + "@compiled\ndef inner(x):\n    return {0} * x\n"
OUTER = (
    HEAD + "from theorylab.inner import inner\n@compiled\ndef outer(x):\n    return inner(x) + 1\n"
)


def outer(folder):
    program = "from theorylab.outer import outer; print(outer(1.0))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def test_an_edited_helper_changes_the_kernel_that_inlines_it(tmp_path):
    package = tmp_path / "theorylab"
    (package / "numerics").mkdir(parents=True)
    for file in ("numerics/__init__.py", "numerics/compiled.py"):
        shutil.copy(PACKAGE / file, package / file)
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(INNER.format(2))
    (package / "outer.py").write_text(OUTER)
    assert outer(tmp_path) == 3.0
    times = (package / "outer.py").stat()
    (package / "inner.py").write_text(INNER.format(5))
    assert (package / "outer.py").stat().st_mtime == times.st_mtime
    assert outer(tmp_path) == 6.0


def test_options_reach_numba_and_the_cache_is_the_packages_own():
    @compiled(error_model="numpy")
    def ratio(x, y):
        return x / y

    assert ratio(1.0, 0.0) == float("inf")
    assert ratio.stats.cache_path.startswith(str(cache_folder()))
