"""The wheel, installed where the repository is not, solves a problem of each core theme."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
from importlib.metadata import metadata
import numpy as np
import theorylab
from theorylab.convex_relu import train
from theorylab.implicit_regularization import max_margin
from theorylab.matrix_sensing import gradient_descent
from theorylab.neural_collapse import UnconstrainedFeatures, ufm_minimizer
from theorylab.optimal_transport import exact_plan
from theorylab.optimization import adam_step_supremum
from theorylab.random_features import random_feature_risk

assert "site-packages" in theorylab.__file__, theorylab.__file__
told = metadata("theorylab")
assert told["Author"] and told["License-Expression"] and told.get_all("Classifier")
assert all(", https://" in line for line in told.get_all("Project-URL"))
assert train([[1.0], [-1.0]], [1.0, 2.0], 0.1).certificate.verify().accepted
assert max_margin([[3.0, 1.0], [1.0, 3.0]], [1.0, -1.0]).verify().accepted
start = [[0.5], [0.2]]
run = gradient_descent(np.diag([1.0, 0.0]), search_rank=1, step_size=0.2, steps=200, initial=start)
assert run.errors[-1] < 1e-10
model = UnconstrainedFeatures([3, 2], lam_w=0.01, lam_h=0.01)
assert ufm_minimizer(model, dimension=2).certificate.gap < 1e-9
assert abs(exact_plan([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]]).value) < 1e-12
assert 7 < adam_step_supremum(None, beta1=0.9, beta2=0.999) < 8
sizes = {"n_samples": 30, "n_features": 50}
assert 0 < random_feature_risk(1 / np.arange(1.0, 99), np.ones(98), ridge=1e-3, **sizes).test_risk
"""


@pytest.mark.long
def test_the_wheel_works_without_the_repository(tmp_path):
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}

    def run(*command: str) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("theorylab-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    run(python, "-m", "pip", "install", "--quiet", *constraints, str(wheel))
    run(python, "-c", PROGRAM)
    assert "a numerical laboratory" in run(python, "-m", "theorylab", "--help").lower()
    assert not (tmp_path / "theorylab").exists()
