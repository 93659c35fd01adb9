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
from theorylab.convex_relu import _cones, _face_steps, _lengths, _line_search
from theorylab.numerics import compiled

warnings.simplefilter("ignore")  # of small budgets
compiled._Race._start = classmethod(lambda cls: None)  # no machine code is made
compiled._Racing._loaded = lambda kernel, *args: None
kernels, compared = set(), Counter()


def of_faces(X, tight, norms, basis, size, *rest):
    # Bases differ, but not what they span: the rows held, and what is left.
    d = len(X.T)
    for b in basis[size > 0]:
        np.testing.assert_allclose(b @ b.T, np.eye(d), atol=1e-12)
    spans = np.array([b[: d - k].T @ b[: d - k] for b, k in zip(basis, size)])
    return X, tight, norms, spans, size, *rest


def of_cones(X, norms, patterns, g, threshold, support, multipliers, nearest, values):
    # Rows are listed in any order, and what is below the threshold is any bound.
    outward = np.where(patterns, 1.0, -1.0)
    each = np.zeros(patterns.shape)
    for p, (rows, lam) in enumerate(zip(support, multipliers)):
        np.add.at(each[p], rows[rows >= 0], lam[rows >= 0])
    np.testing.assert_allclose(nearest, g + (each * outward) @ X, atol=1e-11)
    np.testing.assert_allclose(values, np.linalg.norm(nearest, axis=1), atol=1e-11)
    assert np.all(each >= 0.0)
    above = values > threshold + 1e-11
    return above, each[above], nearest[above], values[above]


seen_of = {
    "_elementary.solve": lambda a, _: a[1:],  # the system's remains are of no use to anybody
    # What rounding leaves of a row that depends on those before it has no direction.
    "_elementary.orthonormalise": lambda a, rest: (a[0][: a[1] + (rest > 1e-11)],),
    "_face_steps.face": lambda a, k: of_faces(*a[:3], a[3][None], np.array([a[3].shape[0] - k])),
    "_face_steps.project": lambda a, _: of_faces(a[0], a[3], a[1], *a[5:], a[2]),
    "_cones.project": lambda a, _: of_cones(*a),
}


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
    name = kernel.py_func.__module__.split(".")[-1] + "." + kernel.py_func.__name__
    if name == "_elementary.solve" and wanted:  # up to the conditioning
        upper, right = np.triu(before[0]), before[1]
        system = upper + np.triu(upper, 1).T
        error = np.abs(system @ copies[1] - right)
        assert np.all(error <= 1e-12 * (np.abs(system) @ np.abs(copies[1]) + np.abs(right)))
        return wanted
    seen = [seen_of.get(name, lambda a, _: a)(a, wanted) for a in (copies, args)]
    for k, (copy, a) in enumerate(zip(*seen)):
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(copy, a, rtol=1e-9, atol=1e-11, err_msg=f"{name}, {k}")
    return wanted


for info in pkgutil.iter_modules(convex_relu.__path__, "theorylab.convex_relu."):
    for kernel in vars(importlib.import_module(info.name)).values():
        if isinstance(kernel, compiled._Racing) and kernel.meanwhile is not kernel.py_func:
            if kernel not in kernels:
                kernel.meanwhile = partial(both, kernel, kernel.meanwhile)
                kernels.add(kernel)

rng = np.random.default_rng(0)
for _ in range(30):  # rows held that depend on others, more of them than dimensions, no neuron
    X, p, tight = rng.normal(size=(8, 3)), rng.normal(size=(6, 3)), rng.random((6, 8)) < 0.2
    X[[1, 6, 7]] = [2.0 * X[0], X[0] - X[5], 0.0 * X[0]]
    tight[:, 1], tight[:, 7] = tight[:, 0], False
    p[rng.random(6) < 0.2] = 0.0
    sigma, active = np.sign(rng.normal(size=6)), rng.random((6, 8)) < 0.5
    # Of what fits on the first, two may not fit together.
    sigma[:3], active[:3] = 1.0, active[0] ^ (tight[0] & (np.arange(3)[:, None] == 1))
    norms, linear, crossing = np.linalg.norm(X, axis=1), rng.integers(2), rng.random() < 0.5
    rows = np.tile([[4, -1, -1], [3, 6, 0], [-1, -1, -1]], (20, 1))
    lam = np.where(rows >= 0, rng.random((60, 3)), 0.0)
    g, found = rng.normal(size=(60, 3)), (np.empty((60, 3)), np.empty(60))
    patterns = rng.normal(size=(60, 3)) @ X.T > 0.0
    _cones.project.meanwhile(X, norms, patterns, g, rng.random(), rows, lam, *found)
    _lengths.merge.meanwhile(X, p, sigma, active, tight, linear, crossing)
    work = np.zeros((6, 3, 3)), np.zeros(6, dtype=np.int64), np.zeros(6)
    _face_steps.project.meanwhile(X, norms, p, tight, linear, *work)
    neurons = X, rng.normal(size=8), 0.1, p, sigma, active, tight, norms
    _face_steps.release.meanwhile(*neurons, work[2], work[1], linear, crossing)
    moves = p @ X.T, rng.normal(size=(6, 3)), np.zeros((6, 8)), linear, rng.exponential()
    lists = np.zeros((3, 6)), np.zeros(8), np.zeros(48), np.zeros(48, dtype=np.int64)
    _line_search._kinks.meanwhile(X, *neurons[3:], work[1], *moves, *lists)
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
