"""What runs in NumPy while machine code is made does what the kernel does."""

import os
import subprocess
import sys

PROGRAM = """
import importlib
import pkgutil
import sys
import warnings
from collections import Counter
from functools import partial

import numpy as np

from theorylab import convex_relu
from theorylab.numerics import compiled

warnings.simplefilter("ignore")  # of small budgets
compiled._Race._start = classmethod(lambda cls: None)  # no machine code is made
compiled._Racing._loaded = lambda kernel, *args: None
kernels, compared = set(), Counter()


def both(kernel, meanwhile, *args):
    try:
        return compare(kernel, meanwhile, *args)
    except Exception as error:  # machine code would be waited for, and run
        sys.exit(f"{kernel.py_func.__name__}: {error!r}")


def compare(kernel, meanwhile, *args):
    compared[kernel] += 1
    if compared[kernel] > 100:
        return meanwhile(*args)
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    results, wanted = meanwhile(*copies), kernel.py_func(*args)
    if results is not None:
        np.testing.assert_allclose(results, wanted, rtol=1e-9, atol=1e-11)
    name = kernel.py_func.__name__
    if name == "solve" and wanted:  # up to the conditioning
        upper, right = np.triu(before[0]), before[1]
        system = upper + np.triu(upper, 1).T
        error = np.abs(system @ copies[1] - right)
        assert np.all(error <= 1e-12 * (np.abs(system) @ np.abs(copies[1]) + np.abs(right)))
        return wanted
    for k, (copy, a) in enumerate(zip(copies, args)):
        if isinstance(a, np.ndarray):
            if (name, k) == ("solve", 0):  # its remains are of no use to anybody
                continue
            if (name, k) == ("face", 3):  # another basis of the same face
                np.testing.assert_allclose(copy @ copy.T, np.eye(len(copy)), atol=1e-12)
                copy, a = (b[:wanted].T @ b[:wanted] for b in (copy, a))
            np.testing.assert_allclose(copy, a, rtol=1e-9, atol=1e-11, err_msg=f"{name}, {k}")
    return wanted


for info in pkgutil.iter_modules(convex_relu.__path__, "theorylab.convex_relu."):
    for kernel in vars(importlib.import_module(info.name)).values():
        if isinstance(kernel, compiled._Racing) and kernel.meanwhile is not kernel.py_func:
            if kernel not in kernels:
                kernel.meanwhile = partial(both, kernel, kernel.meanwhile)
                kernels.add(kernel)

rng = np.random.default_rng(0)
X, y = rng.normal(size=(12, 3)), rng.normal(size=12)
X[3] = 0.0
threshold = convex_relu.zero_threshold(X, y)
convex_relu.train(X, y, threshold / 8, skip=True)
convex_relu.train(X, y, threshold / 30)
patterns = convex_relu.sample_arrangements(X, 20, rng=rng)
convex_relu.train(X, y, threshold / 20, arrangements=patterns)
gated = rng.normal(size=(60, 3))  # conjugate gradients that end
gates = convex_relu.sample_arrangements(gated, 4, rng=rng)
convex_relu.train_gated(gated, rng.normal(size=60), 1.0, gates)
convex_relu.train_admm(X[:6], y[:6], threshold / 20, max_iter=100)
convex_relu.enumerate_arrangements(rng.normal(size=(7, 3)))
missing = {kernel.py_func.__name__ for kernel in kernels - set(compared)}
assert kernels and not missing, missing
"""


def test_both_ways_agree(tmp_path):
    environment = os.environ | {"THEORYLAB_KERNELS": "race", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
