"""Compiled code does not outlive what it was made from, and first calls do not wait for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import theorylab
from theorylab.numerics.compiled import cache_folder, compiled

PACKAGE = Path(theorylab.__file__).parent
HEAD = "from theorylab.numerics.compiled import compiled\n"
INNER = HEAD + "@compiled\ndef inner(x):\n    return {0} * x\n"
OUTER = (
    HEAD + "from theorylab.inner import inner\n@compiled\ndef outer(x):\n    return inner(x) + 1\n"
)


# Whole numbers wrap around in machine code and do not in Python: so a caller sees what ran.
WHOLE = HEAD + "@compiled\ndef fourfold(n):\n    return 4 * n\n"
# Machine code needs some seconds at most; a start without the old x would do the first line twice.
LONG = (
    HEAD + "@compiled\ndef count(x, n):\n    x[1] += 1.0\n    for i in range(n):\n"
    "        x[0] = i + 1.0\n"
)
FIRST = "import os; os.environ['THEORYLAB_KERNELS'] = 'compiled';"
SAY = "import time; from theorylab.whole import fourfold; say = lambda: print(fourfold(2**62));"


def ran(program, folder):
    command = [sys.executable, "-c", "import os; os.environ.pop('THEORYLAB_KERNELS');" + program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def outer(folder):
    return ran(FIRST + "from theorylab.outer import outer; print(outer(1.0))", folder)[0]


@pytest.fixture
def package(tmp_path):
    package = tmp_path / "theorylab"
    (package / "numerics").mkdir(parents=True)
    for file in ("numerics/__init__.py", "numerics/compiled.py"):
        shutil.copy(PACKAGE / file, package / file)
    (package / "__init__.py").write_text("")
    return package


def test_a_first_call_runs_in_python_and_a_later_one_as_machine_code(package):
    (package / "whole.py").write_text(WHOLE)
    waits = "say(); [time.sleep(0.1) for i in range(600) if fourfold(2**62)]; say()"
    assert ran(SAY + waits, package.parent) == [2.0**64, 0.0]
    # The code is on disk by now: another process takes it at once.
    assert ran(SAY + "say()", package.parent) == [0.0]


def test_an_interpreted_call_is_overtaken_and_starts_again_from_the_same_arguments(package):
    (package / "whole.py").write_text(LONG)
    say = "import numpy as np; from theorylab.whole import count;"
    say += "x = np.zeros(2); count(x, 3 * 10**9); print(*x)"
    assert ran(say, package.parent) == [3e9, 1.0]


def test_where_the_environment_says_so_calls_wait_for_machine_code(package):
    (package / "whole.py").write_text(WHOLE)
    assert ran(FIRST + SAY + "say()", package.parent) == [0.0]


def test_an_edited_helper_changes_the_kernel_that_inlines_it(package):
    (package / "inner.py").write_text(INNER.format(2))
    (package / "outer.py").write_text(OUTER)
    assert outer(package.parent) == 3.0
    times = (package / "outer.py").stat()
    (package / "inner.py").write_text(INNER.format(5))
    assert (package / "outer.py").stat().st_mtime == times.st_mtime
    assert outer(package.parent) == 6.0


def test_options_reach_numba_and_the_cache_is_the_packages_own():
    @compiled(error_model="numpy")
    def ratio(x, y):
        return x / y

    assert ratio(1.0, 0.0) == float("inf")
    assert ratio.stats.cache_path.startswith(str(cache_folder()))
