"""The machinery on a copy of the package in a temporary checkout, driven from outside as a user
drives it."""

import importlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import theorylab
from theorylab.verify._child import PROGRAM, call
from theorylab.verify.cli import app
from theorylab.verify.gallery import END, START

PACKAGE = Path(theorylab.__file__).parent

SCRIPT = '''"""An example"""
import time
import numpy as np
from theorylab.statistics.{module} import double
from theorylab.verify import breaks, cases, compare, note, panel, paper, simulation, theory, within
from theorylab.verify.cli import run_script

source = paper("kingma2014-adam", "For $x>0$,")

@simulation
def noise(seed):
    return np.random.default_rng(seed).normal(size=20)

@source.ours("an example", serves="a")
@cases(x=[1.0])
@note(no_space="an example")
@breaks("negative", x=-1.0)
def first(x, seed):
    """x is at most 2x."""
    time.sleep({pause})
    noise(seed)
    return compare(within(x, 0.0, "rounding"), "<=", theory("bound", double(x)))

@source.ours("an example")
@cases(x=[1.0])
@note(no_space="an example")
@breaks("offset", offset=1.0)
def second(x, offset=0.0):
    """2x = x + x."""
    return compare(within(double(x) + offset, 1e-12, "x"), "==", theory("sum", {sides} * x))

@panel(first, "An example", x="i", y="noise")
def _(pen, runs):
    pen.points(np.arange(20), noise(runs.judgement.seed))

if __name__ == "__main__":
    run_script(__file__)
'''


def script(module="used", pause=0.0, sides=2):
    return SCRIPT.format(module=module, pause=pause, sides=sides)


@pytest.fixture
def checkout(tmp_path):
    """A checkout with its own copy of the package and one tiny theme that nothing else knows."""
    shutil.copytree(PACKAGE, tmp_path / "theorylab", ignore=shutil.ignore_patterns("__pycache__"))
    theme = tmp_path / "theorylab" / "statistics"
    shutil.rmtree(theme, ignore_errors=True)
    theme.mkdir()
    (theme / "__init__.py").write_text("")
    for module in ("used", "unused"):
        (theme / f"{module}.py").write_text("def double(x):\n    return 2 * x\n")
    folder = tmp_path / "experiments" / "statistics"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text(script())
    return tmp_path


def command(checkout, *arguments):
    return [sys.executable, "-c", "from theorylab.verify.cli import main; main()", *arguments]


def environment(checkout):
    return {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "200"}


def finished(checkout, *arguments, expect):
    done = subprocess.run(
        command(checkout, *arguments),
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def theorylab_command(checkout, *arguments, expect=0):
    return finished(checkout, *arguments, expect=expect).stdout


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_a_rerun_skips_what_is_finished_and_notices_what_is_not(checkout):
    assert "unchanged" not in theorylab_command(checkout, "run", "--full")
    fresh = contents(checkout / "figures")
    assert set(fresh) == {"statistics/one.json", "statistics/one.png"}
    assert "unchanged" in theorylab_command(checkout, "run", "--full")

    (checkout / "figures/statistics/one.json").write_text('{"claims": [{"verdict": "ver')
    assert "unchanged" not in theorylab_command(checkout, "run", "--full")
    assert contents(checkout / "figures") == fresh

    (checkout / "figures/statistics/one.png").write_bytes(b"not a picture")
    assert "unchanged" not in theorylab_command(checkout, "run", "--full")
    assert contents(checkout / "figures") == fresh

    (checkout / "theorylab/statistics/unused.py").write_text("def double(x):\n    return 3 * x\n")
    assert "unchanged" in theorylab_command(checkout, "run", "--full")

    used = checkout / "theorylab/statistics/used.py"
    used.write_text("# A comment.\n" + used.read_text())
    assert "unchanged" in theorylab_command(checkout, "run", "--full")

    used.write_text("def double(x):\n    return 3 * x\n")
    failed = theorylab_command(checkout, "run", "--full", expect=1)
    assert "second" in failed
    assert "case 1 is false: 3 +- 1e-12 == 2" in failed


def test_a_changed_style_is_drawn(checkout):
    theorylab_command(checkout, "run", "--full")
    with (checkout / "theorylab/verify/theorylab.mplstyle").open("a") as style:
        style.write("\nlines.linewidth: 3\n")
    assert "unchanged" not in theorylab_command(checkout, "run", "--full")


def test_a_module_that_is_edited_during_the_run_does_not_pass_for_the_loaded_one(checkout):
    edit = "import pathlib, theorylab.statistics.used as u\n"
    edit += "pathlib.Path(u.__file__).write_text('def double(x):\\n    return 3 * x\\n')"
    (checkout / "experiments/statistics/one.py").write_text(script() + "\n" + edit)
    (checkout / "experiments/statistics/two.py").write_text(script())
    # The first script was judged with the old module, the second sees the new one.
    printed = json.loads(theorylab_command(checkout, "run", "--full", "--json", expect=1))
    failed = {c["claim"] for c in printed["claims"] if c["verdict"] == "failed"}
    assert failed == {"statistics/two:second"}
    again = theorylab_command(checkout, "run", "--full", expect=1)
    assert "unchanged" not in again


def test_a_module_that_stays_loaded_does_not_pass_for_its_edited_file(checkout):
    edit = """
from pathlib import Path
from theorylab import verify
for name in ("verify/kernel.py", "_validation.py"):
    with (Path(verify.__file__).parents[1] / name).open("a") as file:
        file.write("EDITED = True\\n")
"""
    (checkout / "experiments/statistics/one.py").write_text(script() + edit)
    (checkout / "experiments/statistics/two.py").write_text(script())
    theorylab_command(checkout, "run", "--full")
    for name in ("one", "two"):
        code = json.loads((checkout / f"figures/statistics/{name}.json").read_text())["code"]
        changed = {f for f, digest in code.items() if digest == "edited during the run"}
        assert changed == {"theorylab/verify/kernel.py", "theorylab/_validation.py"}
    assert "unchanged" not in theorylab_command(checkout, "run", "statistics/two", "--full")
    assert "unchanged" in theorylab_command(checkout, "run", "statistics/two", "--full")
    assert "edited" not in (checkout / "figures/statistics/two.json").read_text()


def test_a_compiled_kernel_follows_the_modules_that_it_was_compiled_with(checkout):
    kernel = "from theorylab.numerics.compiled import compiled\n{0}\n"
    kernel += "@compiled\ndef double(x):\n    return {1}\n"
    used, caller = (checkout / f"theorylab/statistics/{name}.py" for name in ("used", "caller"))
    used.write_text(kernel.format("", "2 * x"))
    caller.write_text(
        kernel.format("from theorylab.statistics.used import double as inner", "inner(x)")
    )
    (checkout / "experiments/statistics/one.py").write_text(script("caller"))
    theorylab_command(checkout, "run")
    used.write_text(kernel.format("", "3 * x"))
    assert "3 +- 1e-12 == 2" in theorylab_command(checkout, "run", expect=1)


def test_checks_and_panels_see_one_thread(checkout, monkeypatch):
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "2")
    alone = "assert all(p['num_threads'] == 1 for p in threadpoolctl.threadpool_info())"
    text = script().replace("import time", "import threadpoolctl, time")
    text = text.replace("    time.sleep", f"    {alone}\n    time.sleep")
    text = text.replace("    pen.points", f"    {alone}\n    pen.points")
    (checkout / "experiments/statistics/one.py").write_text(text)
    theorylab_command(checkout, "run", "--full")


def test_only_the_full_cases_are_drawn(checkout):
    text = script().replace("    pen.points", "    raise KeyError\n    pen.points")
    (checkout / "experiments/statistics/one.py").write_text(text)
    assert "verified" in theorylab_command(checkout, "run", "statistics/one")
    assert set(contents(checkout / ".theorylab/quick-0")) == {"statistics/one.json"}
    theorylab_command(checkout, "run", "statistics/one", "--save", "pdf", expect=2)
    theorylab_command(checkout, "run", "statistics/one", "--full", expect=1)


def test_the_vector_figure_and_what_it_draws_are_saved_on_request(checkout):
    theorylab_command(checkout, "run", "statistics/one", "--full")
    saved = checkout / ".theorylab" / "saved" / "full-0" / "statistics"
    assert not saved.exists()
    theorylab_command(checkout, "run", "statistics/one", "--full", "--save", "pdf,npz")
    assert (saved / "one.pdf").read_bytes().startswith(b"%PDF")
    arrays = np.load(saved / "one.npz")
    drawn = np.random.default_rng(0).normal(size=20)
    np.testing.assert_array_equal(arrays["first/0/judged/y"], drawn)
    np.testing.assert_array_equal(arrays["first/0/judged/x"], np.arange(20))


def test_a_figure_goes_with_its_last_panel(checkout):
    theorylab_command(checkout, "run", "--full")
    path = checkout / "experiments/statistics/one.py"
    text = path.read_text()
    path.write_text(text[: text.index("@panel")] + text[text.index("if __name__") :])
    theorylab_command(checkout, "run", "--full")
    assert set(contents(checkout / "figures")) == {"statistics/one.json"}
    assert "unchanged" in theorylab_command(checkout, "run", "--full")


def test_two_runs_at_once_leave_whole_files(checkout):
    for number in range(3):
        (checkout / f"experiments/statistics/slow{number}.py").write_text(script(pause=0.05))
    both = [
        subprocess.Popen(
            command(checkout, "run", "--full"),
            cwd=checkout,
            env=environment(checkout),
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert whole_files(checkout) == 4
    assert theorylab_command(checkout, "run", "--full").count("unchanged") == 4


def test_two_jobs_give_the_bytes_of_one(checkout):
    for name in ("two", "three"):
        (checkout / f"experiments/statistics/{name}.py").write_text(script())
    theorylab_command(checkout, "run", "--full", "--seeds", "2", "--jobs", "1")
    alone = contents(checkout / ".theorylab/full-1")
    assert len(alone) == 6
    shutil.rmtree(checkout / ".theorylab")
    theorylab_command(checkout, "run", "--full", "--seeds", "2", "--jobs", "2")
    assert contents(checkout / ".theorylab/full-1") == alone


@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.long)])
def test_killing_a_run_leaves_only_whole_files_and_a_rerun_finishes(checkout, kills):
    for number in range(6):
        (checkout / f"experiments/statistics/slow{number}.py").write_text(script(pause=0.05))
    delays = random.Random(kills)
    for _ in range(kills):
        with subprocess.Popen(
            command(checkout, "run", "--full"),
            cwd=checkout,
            env=environment(checkout),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            time.sleep(delays.uniform(0.5, 3.0))
            process.send_signal(signal.SIGKILL)
        whole_files(checkout)
    theorylab_command(checkout, "run", "--full")
    assert whole_files(checkout) == 7
    assert theorylab_command(checkout, "run", "--full").count("unchanged") == 7


def whole_files(checkout):
    figures = sorted((checkout / "figures").rglob("*.png"))
    evidence = sorted((checkout / "figures").rglob("*.json"))
    for path in figures:
        with Image.open(path) as picture:
            picture.load()
    for path in evidence + sorted((checkout / ".theorylab/done").rglob("*.json")):
        assert json.loads(path.read_text())
    assert len(figures) >= len(evidence)
    return len(evidence)


FIELDS = {"claim", "sources", "origin", "verdict", "grade", "parts", "controls", "seed"}
PART = {"name", "case", "relation", "measured", "error", "predicted", "margin", "marks"}


def test_the_record_file_holds_no_time_host_or_path(checkout):
    theorylab_command(checkout, "run", "--full")
    text = (checkout / "figures/statistics/one.json").read_text()
    record = json.loads(text)
    assert str(checkout) not in text
    assert os.uname().nodename not in text
    assert set(record) == {"claims", "code", "versions"}
    assert "theorylab/statistics/used.py" in record["code"]
    assert "theorylab/statistics/unused.py" not in record["code"]
    assert not any("cli.py" in file for file in record["code"])
    listed = json.loads(theorylab_command(checkout, "list", "--json"))["claims"]
    for claim in record["claims"] + listed:
        assert set(claim) >= FIELDS
        assert all(set(part) >= PART for part in claim["parts"])
        assert all(set(control) >= {"name", "decides"} for control in claim["controls"])


def test_json_output_and_exit_codes(checkout):
    printed = json.loads(theorylab_command(checkout, "run", "statistics/one:second", "--json"))
    assert [c["claim"] for c in printed["claims"]] == ["statistics/one:second"]
    assert printed["claims"][0]["verdict"] == "verified"
    assert set(printed["versions"]) >= {"python", "numpy", "theorylab"}
    seeds = json.loads(theorylab_command(checkout, "run", "statistics", "--seeds", "3", "--json"))
    assert [c["seeds"] for c in seeds["claims"]] == [{"of": 3, "passed": 3}] * 2
    theorylab_command(checkout, "run", "statistics/one:third", expect=2)
    theorylab_command(checkout, "run", "missing.py", expect=2)
    theorylab_command(checkout, "run", "statistics:second", expect=2)
    theorylab_command(checkout, "run", "statistics/one:", expect=2)
    theorylab_command(checkout, "run", "--seed", "1", "--seeds", "2", expect=2)
    theorylab_command(checkout, "run", "--seeds", "0", expect=2)
    theorylab_command(checkout, "falsify", "statistics/one:second", "--budget", "-1", expect=2)
    theorylab_command(checkout, "list", "--theme", "nonsense", expect=2)
    theorylab_command(checkout, "list", "--paper", "nonsense", expect=2)
    theorylab_command(checkout, "run", "theorylab/statistics/used.py", expect=1)
    theorylab_command(checkout, "run", "statistics/one:second", "--full", "--save", "pdf", expect=2)
    path = "./experiments/statistics/one.py"
    both = theorylab_command(checkout, "run", path, "statistics/one:second", "--json")
    assert len(json.loads(both)["claims"]) == 3

    wrong = checkout / "experiments/statistics/wrong.py"
    wrong.write_text(script(sides=3))
    printed = json.loads(theorylab_command(checkout, "run", "--json", expect=1))
    assert {c["claim"]: c["verdict"] for c in printed["claims"]}[
        "statistics/wrong:second"
    ] == "failed"
    wrong.write_text("raise RuntimeError('broken script')\n")
    theorylab_command(checkout, "run", "--json", expect=1)


def test_the_other_commands(checkout):
    theorylab_command(checkout, "run", "--full")
    listed = json.loads(theorylab_command(checkout, "list", "--json"))
    assert [c["verdict"] for c in listed["claims"]] == ["verified", "verified"]
    shown = theorylab_command(checkout, "show", "statistics/one")
    assert "2x = x + x" in shown
    assert "Adam: A Method" in shown
    assert "rejects sum moved by" in shown
    assert "statistics/one:second" in theorylab_command(checkout, "find", "x + x")
    assert "statistics/one:second" in theorylab_command(checkout, "find", "x Adam second = ours")
    theorylab_command(checkout, "find", "nothing like this", expect=1)
    path = checkout / "experiments/statistics/one.py"
    path.write_text(path.read_text().replace("2x = x + x", "2x = 2x"))
    listed = json.loads(theorylab_command(checkout, "list", "--json"))
    assert [c["verdict"] for c in listed["claims"]] == ["verified", None]
    assert "README.md" in complaint(checkout, "report", expect=2)
    (checkout / "README.md").write_text("no marks")
    assert "expected one table" in complaint(checkout, "report", expect=2)
    (checkout / "README.md").write_text(f"{START}\n{END}\n")
    assert "paper_index.md" in theorylab_command(checkout, "report")
    assert "| 2 | 1 | 0 | 1 |" in (checkout / "README.md").read_text()
    page = (checkout / "docs/papers/optimization.md").read_text()
    entry = page[page.index("### Adam: A Method for Stochastic Optimization") :]
    assert "[`first`](../../experiments/statistics/one.py#L14)" in entry
    assert "[double](../../theorylab/statistics/used.py#L1)" in entry
    assert "not checked yet" in entry

    theorylab_command(checkout, "new", "statistics/fresh")
    theorylab_command(checkout, "new", "statistics/fresh", expect=2)
    assert "__init__.pyi" in theorylab_command(checkout, "new", "attention/heads")
    program = "import theorylab as t; print(t.attention.heads(1.0), t.optimization.adam.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "4.0 adam\n"
    theorylab_command(checkout, "new", "nonsense/fresh", expect=2)
    for module in ("class", "two words", "_private", ""):
        assert "that Python can import" in complaint(
            checkout, "new", f"statistics/{module}", expect=2
        )
    assert "would hide it" in complaint(checkout, "new", "optimization/amsgrad", expect=2)
    shutil.copy(PACKAGE.parent / "pyproject.toml", checkout)
    for ruff in (["check"], ["format", "--check"]):
        written = [str(p) for p in checkout.rglob("*fresh.py")]
        assert len(written) == 3
        subprocess.run(
            [sys.executable, "-m", "ruff", *ruff, *written],
            cwd=checkout,
            check=True,
            capture_output=True,
        )
    assert "fresh as fresh" in (checkout / "theorylab/statistics/__init__.pyi").read_text()
    assert "1 verified" in theorylab_command(checkout, "run", "statistics/fresh", "--full")
    name = "statistics/fresh:todo-fresh-lies-above-its-tangent"
    found = theorylab_command(checkout, "falsify", name, "--instances", "60")
    assert "no counterexample" in found
    assert "(60 instances" in found
    done = subprocess.run(
        [sys.executable, "experiments/statistics/fresh.py", "--quick", "--json"],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["claims"][0]["claim"] == name


@pytest.mark.parametrize(
    "end", ["sys.exit(0)", "os._exit(0)", "raise KeyError('x')", "os.kill(os.getpid(), 9)"]
)
def test_a_script_that_ends_by_itself_has_failed_and_hides_no_other(checkout, end):
    one = checkout / "experiments/statistics/one.py"
    (checkout / "experiments/statistics/two.py").write_text(one.read_text())
    one.write_text(f"import os, sys\n{end}\n" + one.read_text())
    jobs = ["--jobs", "2"] if "os." in end else []
    printed = json.loads(theorylab_command(checkout, "run", "--json", *jobs, expect=1))
    if not jobs:
        assert {c["claim"].split(":")[0] for c in printed["claims"]} == {"statistics/two"}


def test_a_claim_that_loops_ends_at_its_time_limit(checkout):
    one = checkout / "experiments/statistics/one.py"
    one.write_text(one.read_text().replace("    noise(seed)", "    while True: pass"))
    printed = theorylab_command(checkout, "run", "--timeout", "0.5", expect=1)
    assert "the time limit of the claim is used up" in printed
    assert "1 verified, 1 failed" in printed


def test_a_script_elsewhere_overwrites_nothing(checkout):
    theorylab_command(checkout, "run", "--full")
    before = contents(checkout / "figures")
    copy = checkout / "backup" / "statistics" / "one.py"
    copy.parent.mkdir(parents=True)
    copy.write_text(script(pause=0.01))
    theorylab_command(checkout, "run", "--full", str(copy))
    assert contents(checkout / "figures") == before


def test_a_broken_script_or_record_does_not_end_list(checkout):
    theorylab_command(checkout, "run", "--full")
    (checkout / "experiments/statistics/broken.py").write_text("import nothing_like_this\n")
    (checkout / "figures/statistics/one.json").write_text('{"claims": [{"verdict": "ver')
    listed = theorylab_command(checkout, "list")
    assert "statistics/one:first\tours" in listed
    assert "not run" in listed
    assert "2x = x + x" in theorylab_command(checkout, "show", "statistics/one:second")


def test_temporary_files_of_a_killed_run_are_swept(checkout):
    left = checkout / "figures/statistics/.one.png.999999999.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a picture")
    theorylab_command(checkout, "run", "--full")
    assert not left.exists()


def test_a_misspelt_name_is_answered_with_the_closest(checkout):
    done = subprocess.run(
        command(checkout, "run", "statistics/on"),
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "did you mean statistics/one?" in done.stderr


def test_two_functions_of_one_name_are_refused(checkout):
    one = checkout / "experiments/statistics/one.py"
    one.write_text(one.read_text().replace("def second(", "def first("))
    theorylab_command(checkout, "run", expect=1)


@pytest.mark.parametrize("module", ["theorylab", "theorylab.verify.cli"])
def test_the_command_is_a_module_too(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"theorylab {theorylab.__version__}"


def test_without_a_checkout_the_command_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from theorylab.verify.cli import main; main()", "list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "carries none" in done.stderr


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'numpy', 'scipy', 'sympy', 'matplotlib', 'cvxpy', 'numba'}"
    code = f"import sys, theorylab; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------- clusters
CLUSTER = """
import sys
from distributed import LocalCluster

with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def cluster(checkout):
    """Start two workers that import the package of a checkout; return the options for them."""
    pytest.importorskip("distributed")
    started = []

    def start(folder=checkout):
        once = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", CLUSTER],
                cwd=folder,
                env=environment(folder) | once,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        return ("--backend", "dask", "--scheduler", started[-1].stdout.readline().strip())

    yield start
    for process in started:
        process.communicate("", timeout=120)


def complaint(checkout, *arguments, expect=1):
    done = finished(checkout, *arguments, expect=expect)
    assert not done.stdout.count("Traceback")
    return done.stdout + done.stderr


@pytest.mark.long
def test_a_cluster_gives_the_bytes_of_a_local_run(checkout, cluster):
    for name in ("two", "three"):
        (checkout / f"experiments/statistics/{name}.py").write_text(script())
    options = ("run", "--full", "--seeds", "2", "--save", "pdf,npz")
    here = json.loads(theorylab_command(checkout, *options, "--json"))
    alone = contents(checkout / ".theorylab")
    assert len(alone) == 3 * 2 * (1 + 2) + 3 * 2  # marker, PDF, arrays; record, figure of seed 1
    shutil.rmtree(checkout / ".theorylab")
    there = cluster()
    assert json.loads(theorylab_command(checkout, *options, *there, "--json")) == here
    assert contents(checkout / ".theorylab") == alone
    assert theorylab_command(checkout, "run", "--full", *there).count("unchanged") == 3
    shutil.rmtree(checkout / ".theorylab")
    single = theorylab_command(checkout, "run", "--full", "statistics/one:second", "--json", *there)
    claims = [c for c in here["claims"] if c["claim"] == "statistics/one:second"]
    for claim in claims:
        del claim["seeds"]
    assert json.loads(single)["claims"] == claims
    assert not (checkout / ".theorylab").exists()


@pytest.mark.long
def test_on_a_cluster_what_fails_has_a_name(checkout, cluster):
    there = cluster()
    folder = checkout / "experiments/statistics"
    (folder / "slow.py").write_text(script(pause=60))
    (folder / "gone.py").write_text(
        script().replace("    noise(seed)", "    __import__('os')._exit(3)")
    )
    printed = complaint(checkout, "run", "--timeout", "1", *there)
    assert "the time limit of the claim is used up" in printed
    assert "statistics/gone stopped:\na process ended with code 3" in printed
    assert printed.count("stopped:") == 1
    assert (checkout / ".theorylab/quick-0/statistics/one.json").exists()
    assert not (checkout / ".theorylab/quick-0/statistics/gone.json").exists()


@pytest.mark.long
def test_a_worker_that_dies_ends_the_run(checkout, cluster):
    kill = script().replace("    noise(seed)", "    import os; os.kill(os.getppid(), 9)")
    (checkout / "experiments/statistics/killer.py").write_text(kill)
    printed = complaint(checkout, "run", "statistics/killer", *cluster())
    assert "statistics/killer stopped:\nthe process ended: KilledWorker" in printed


@pytest.mark.long
def test_what_other_code_has_judged_is_refused(checkout, cluster, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(checkout / "theorylab", other / "theorylab")
    (other / "theorylab/statistics/used.py").write_text("def double(x):\n    return x + x\n")
    there = cluster(other)
    for name in ("statistics", "statistics/one:second"):
        printed = complaint(checkout, "run", name, *there)
        assert "the worker has another version of theorylab/statistics/used.py" in printed
    assert not (checkout / ".theorylab").exists()


@pytest.mark.long
def test_an_interrupted_run_leaves_a_cluster_that_judges(checkout, cluster):
    there = cluster()
    (checkout / "experiments/statistics/slow.py").write_text(script(pause=600))
    with subprocess.Popen(
        command(checkout, "run", *there), cwd=checkout, env=environment(checkout)
    ) as process:
        written = checkout / ".theorylab/quick-0/statistics/one.json"
        while not written.exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) != 0
    theorylab_command(checkout, "run", "statistics/one:second", *there)


@pytest.mark.long
def test_a_scheduler_that_is_not_there_is_said_in_a_line(checkout):
    pytest.importorskip("distributed")
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        options = ("--backend", "dask", "--scheduler", address)
        printed = complaint(checkout, "run", *options, expect=2)
        assert printed.startswith(f"no Dask scheduler at {address}: ")
        assert printed.count("\n") == 1


def test_options_of_a_cluster_that_do_not_fit_are_refused(monkeypatch):
    refused = {
        ("--backend", "dask"): "together with --scheduler",
        ("--scheduler", "tcp://127.0.0.1:9"): "together with --scheduler",
        ("--backend", "slurm"): "local or dask",
        ("--backend", "dask", "--scheduler", "x", "--jobs", "2"): "got both",
        ("--backend", "dask", "--scheduler", "x"): r"pip install 'theorylab[dask]'",
    }
    monkeypatch.setattr("theorylab.verify.cli.find_spec", lambda name: None)
    for options, words in refused.items():
        result = CliRunner().invoke(app, ["run", *options])
        assert result.exit_code == 2
        assert words in result.output


def test_a_call_in_a_child_returns_or_says_how_it_ended():
    assert call(divmod, 7, 4) == (1, 3)
    assert call(print, "not an answer") is None
    with pytest.raises(RuntimeError, match="ended with code 3"):
        call(os._exit, 3)
    with pytest.raises(RuntimeError, match="ended with code 1"):
        call(divmod, 1, 0)
    with pytest.raises(RuntimeError, match="ended with code 1"):
        call(threading.Lock)  # no answer can hold it


class Late:
    """What takes its time to be sent."""

    def __reduce__(self):
        time.sleep(0.5)
        return int, ()


def test_a_child_that_ends_before_the_call_or_amid_the_answer_says_so(monkeypatch):
    begun = r"__import__('os').write(3, b'\x80\x04\x95' + bytes([9] * 8))"  # a long frame
    with pytest.raises(RuntimeError, match="ended with code 3"):
        call(eval, f"{begun} and __import__('os')._exit(3)")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match="ended with code 1"):
        call(abs, Late())


def test_a_child_imports_what_its_caller_does(tmp_path, monkeypatch):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    for folder in (elsewhere, here):
        folder.mkdir()
    (elsewhere / "only_elsewhere.py").write_text("def seven():\n    return 7\n")
    (here / "pickle.py").write_text("raise SystemExit(9)\n")
    monkeypatch.syspath_prepend(elsewhere)
    monkeypatch.chdir(here)
    assert call(importlib.import_module("only_elsewhere").seven) == 7


def test_a_child_ends_with_its_caller():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], **pipes) as child:
        child.stdin.write(pickle.dumps((time.sleep, (600,))))
        child.stdin.close()
        assert child.wait(timeout=60) == 1
        assert child.stdout.read() == b""
