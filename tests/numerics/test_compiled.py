"""Compiled code does not outlive what it was made from, and first calls do not wait for it."""

import io
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from numba.core.errors import NumbaError

import theorylab
from theorylab.convex_relu._covering_steps import interpolate
from theorylab.convex_relu._elementary import ascending
from theorylab.convex_relu._line_search import search
from theorylab.convex_relu._local import descend
from theorylab.numerics.compiled import (
    _length,
    _Overtaken,
    _Race,
    _Racing,
    cache_folder,
    compiled,
)

PACKAGE = Path(theorylab.__file__).parent
HEAD = "from theorylab.numerics.compiled import compiled\n"
INNER = HEAD + "@compiled\ndef inner(x):\n    return {0} * x\n"
OUTER = (
    HEAD + "from theorylab.inner import inner\n@compiled\ndef outer(x):\n    return inner(x) + 1\n"
)


# Whole numbers wrap around in machine code and do not in Python: so a caller sees what ran.
WHOLE = (
    HEAD + "@compiled\ndef fourfold(n):\n    return 4 * n\n"
    "@compiled\ndef times(n, k=8):\n    return k * n\n"
    "@compiled\ndef eightfold(n):\n    return times(n)\n"
)
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
    assert not done.stderr
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
    # What an interpreted kernel calls is interpreted, with its default arguments.
    starts = "from theorylab.whole import eightfold; say(); print(eightfold(2**61));"
    waits = "[time.sleep(0.1) for i in range(600) if fourfold(2**62)]; say()"
    assert ran(SAY + starts + waits, package.parent) == [2.0**64, 2.0**64, 0.0]
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


def test_a_kernel_that_borrows_counts_no_references_and_makes_no_arrays(tmp_path, monkeypatch):
    folders = (tmp_path / str(k) for k in range(5))  # code from a cache cannot be inspected
    monkeypatch.setattr("theorylab.numerics.compiled.cache_folder", lambda: next(folders))

    def counted(kernel):
        return "call void @NRT_incref" in kernel.inspect_llvm(kernel.signatures[0])

    arrays = np.ones(2), np.eye(2), np.ones(2), np.eye(2), np.arange(2), np.ones(2), np.ones(2)
    v, R, g, Z, index, q, c = arrays
    kernels = [compiled(borrows=borrows)(interpolate.py_func) for borrows in (False, True)]
    centre = np.sqrt(2.0) + np.sqrt(2.0)
    for kernel in kernels:
        assert kernel(v, R, g, Z, index, 2, q, c, np.ones(2)) == (pytest.approx(centre), 2)
    assert [counted(kernel) for kernel in kernels] == [True, False]

    @compiled
    def scratch(n):
        return np.ones(n).sum()

    @compiled(borrows=True)
    def calls(n):
        return scratch(n)

    # What it calls still makes arrays.
    assert calls(3) == 3.0

    @compiled(borrows=True)
    def makes(x):
        return np.empty(x)[0]

    with pytest.raises(NumbaError):
        makes(3)


@pytest.fixture
def race(monkeypatch):
    """A race of nobody yet, to be put back as it was."""
    fresh = {"process": None, "asked": {}, "answered": set(), "ended": False, "news": 0}
    fresh |= {"thread": 0, "awaited": 0, "waiting": {}, "idle": False}
    for name, value in fresh.items():
        monkeypatch.setattr(_Race, name, value)
    return _Race


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    # A module that does not exist cannot be read from the cache of an earlier session.
    monkeypatch.setattr("theorylab.numerics.compiled.cache_folder", lambda: tmp_path)

    def moved(x, y):
        """Add to arrays that may share entries; a quotient that Python refuses."""
        x += 1.0
        y *= 2.0
        return x.sum() / (y.size - y.size)

    moved.__module__ = "theorylab.nowhere"
    return compiled(error_model="numpy")(moved)


def test_inside_of_an_interpreted_kernel_machine_code_is_taken_as_it_arrives(
    race, tmp_path, monkeypatch
):
    monkeypatch.setattr("theorylab.numerics.compiled.cache_folder", lambda: tmp_path)

    def fourfold(n):
        return 4 * n

    fourfold.__module__ = "theorylab.nowhere"
    inner, other = compiled(fourfold), compiled(fourfold)
    asked = []
    monkeypatch.setattr(race, "ask", lambda kernel, signature: asked.append(signature) or 5)
    race.thread = threading.get_ident()
    assert inner(2**62) == inner(2**62) == 2**64
    assert asked == [(numba.int64,)]  # once without news
    inner.spent = 1.0
    race.answered, race.news = {4}, 1
    assert inner(2**62) == 2**64
    race.answered, race.news = {4, 5}, 2  # an answer, but nothing on disk: it did not compile
    assert inner(2**62) == 2**64
    other.compile((numba.int64,))
    assert inner(2**62) == 2**64
    race.news, inner.spent = 3, 0.01  # to load it would take longer
    assert inner(2**62) == 2**64
    inner.spent = 1.0
    assert inner(2**62) == 0
    assert not race.lock.locked()


def test_the_length_of_a_kernel_is_that_of_all_it_calls():
    length = {k: _length(k) for k in (descend, search, ascending)}
    assert length[descend] > length[search] > length[ascending]
    assert length[ascending] == len(ascending.py_func.__code__.co_code)


class Like(SimpleNamespace):
    __hash__ = object.__hash__


def like(function, **options):
    return Like(py_func=function, meanwhile=function, targetoptions=options, spent=0.0)


def test_the_idle_process_is_asked_for_what_takes_longest_for_its_length(race):
    def short(x):
        return x

    def long(x):
        return x + x + x + x + x + x + x + x

    sent = io.StringIO()
    race.process = SimpleNamespace(stdin=sent)
    kernels = [like(short), like(long), like(long), like(short)]
    for kernel, spent in zip(kernels, [1.0, 1.5, 1000.0, 0.0], strict=True):
        kernel.spent = spent
    assert [race.ask(k, (i,)) for i, k in enumerate(kernels)] == [0, 1, 2, 3]
    assert race.ask(kernels[1], (1,)) == 1  # once
    assert not sent.getvalue()  # it is not ready
    # The one that runs counts, too.
    race.thread, race.awaited, race.began = -1, 3, time.perf_counter() - 1e6
    for number in (-1, 3, 2, 0, 1):
        race._answer(number)
    assert [int(line.split()[0]) for line in sent.getvalue().splitlines()] == [3, 2, 0, 1]
    race.ask(like(short), (9,))
    assert sent.getvalue().splitlines()[-1].startswith("4 ")


def test_numba_asks_a_kernel_for_code_where_the_race_answers(kernel):
    # These are no public names of numba: a release that drops them is noticed here.
    assert type(kernel) is _Racing
    assert callable(numba.core.registry.CPUDispatcher._compile_for_args)
    assert kernel._cache.load_overload((numba.int8, numba.int8), kernel.targetctx) is None


@pytest.mark.parametrize("error", [_Overtaken, ZeroDivisionError])
def test_arguments_that_share_entries_are_put_back_before_machine_code_runs(
    kernel, race, monkeypatch, error
):
    def interrupted(kernel, signature, args):
        args[0][...] = -7.0
        args[1][...] = 9.0
        raise error

    monkeypatch.setattr(race, "run", interrupted)
    monkeypatch.delenv("THEORYLAB_KERNELS")
    x = np.arange(6.0)
    assert kernel(x, x[::-2]) == np.inf
    assert x.tolist() == [1.0, 4.0, 3.0, 8.0, 5.0, 12.0]
    # Nothing writes to an array that is read-only, not even what puts it back.
    monkeypatch.setattr(race, "run", lambda kernel, signature, args: len(signature))
    fixed = np.broadcast_to(1.0, 3)
    assert kernel(fixed, fixed) == 2


def test_what_is_sent_to_a_thread_is_raised_inside_of_the_run_and_nowhere_else(race, monkeypatch):
    monkeypatch.setattr(race, "ask", lambda kernel, signature: race.news)
    over = threading.Event()

    def send():
        while not over.is_set():
            race._answer(race.news)
            time.sleep(0)

    def work(steps):
        for _ in range(steps):
            pass
        if steps % 3 == 0:
            raise ArithmeticError
        return steps

    sender = threading.Thread(target=send)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    sender.start()
    ended = {"returned": 0, "raised": 0, "overtaken": 0}
    try:
        for steps in range(3000):
            try:
                assert race.run(like(work), (), (steps,)) == steps
                ended["returned"] += 1
            except ArithmeticError:
                ended["raised"] += 1
            except _Overtaken:
                ended["overtaken"] += 1
            with race.lock:  # a sender may be between its exception and its last line
                assert race.thread == 0
            for _ in range(50):  # nothing arrives here
                pass
    finally:
        over.set()
        sender.join()
        sys.setswitchinterval(interval)
    assert sum(ended.values()) == 3000
    assert np.geterr()["divide"] != "raise"


def test_an_interrupt_is_passed_on_and_the_race_is_over(race, monkeypatch):
    monkeypatch.setattr(race, "ask", lambda kernel, signature: 0)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race.run(like(interrupt), (), ())
    assert race.thread == 0


def test_one_thread_races_and_the_others_take_machine_code(race, monkeypatch):
    monkeypatch.setattr(race, "ask", lambda kernel, signature: 0)
    race.thread = -1
    with pytest.raises(_Overtaken):
        race.run(like(lambda: 1), (), ())
    assert race.thread == -1


def test_without_a_second_process_nothing_is_waited_for(race, monkeypatch):
    class Refused(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            raise PermissionError

        def __del__(self):
            pass

    monkeypatch.setattr(subprocess, "Popen", Refused)
    with pytest.raises(_Overtaken):
        race.run(like(like), (), ())


def test_a_process_that_ends_is_no_longer_waited_for(race, monkeypatch):
    monkeypatch.setattr(race, "ask", lambda kernel, signature: 0)
    ended = SimpleNamespace(stdout=["1\n"], wait=lambda: 0)

    def long():
        threading.Thread(target=race._listen, args=(ended,)).start()
        while True:
            pass

    with pytest.raises(_Overtaken):
        race.run(like(long), (), ())
    assert race.answered == {1}
    assert race.ended


def test_divisions_by_zero_raise_in_numpys_numbers_where_they_do_in_machine_code(race, monkeypatch):
    monkeypatch.setattr(race, "ask", lambda kernel, signature: 0)
    zero = np.zeros(1)
    with pytest.raises(FloatingPointError):
        race.run(like(lambda: 1 / zero[0]), (), ())
    assert race.run(like(lambda: 1 / zero[0], error_model="numpy"), (), ()) == np.inf


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_forked_process_leaves_the_other_process_to_its_parent(race):
    race.process, race.asked, race.answered, race.thread = "a process", {"kernel": 0}, {0}, 5
    race.ended = True
    with warnings.catch_warnings(), race.lock:
        warnings.simplefilter("ignore", DeprecationWarning)
        if not (child := os.fork()):
            anew = (race.process, race.asked, race.answered, race.thread) == (None, {}, set(), 0)
            anew = anew and not race.ended
            os._exit(0 if anew and not race.lock.locked() else 1)
    assert os.waitpid(child, 0)[1] == 0
