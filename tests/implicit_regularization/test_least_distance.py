"""Shortest vectors by the column-wise active set, which large problems take, against SciPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import nnls

from theorylab.implicit_regularization import _least_distance as module
from theorylab.implicit_regularization import max_margin


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 20), st.booleans())
def test_least_squares_are_optimal_from_any_start(seed, m, n, whole):
    rng = np.random.default_rng(seed)
    E, target = rng.standard_normal((m, n)), rng.standard_normal(m)
    if whole:  # columns that repeat, depend on each other or vanish
        E = rng.integers(-1, 2, (m, n)).astype(float)
    best, size = nnls(E, target)
    for support in (None, best > 0, rng.random(n) < 0.3, np.ones(n, bool)):
        u = module._active_set(E, target, 1000, support)
        assert (u >= 0).all()
        slope = E.T @ (target - E @ u)
        assert slope.max(initial=0.0) <= 1e-12
        assert np.abs(slope[u > 0]).max(initial=0.0) <= 1e-12
        assert_allclose(np.linalg.norm(E @ u - target), size, atol=1e-12)


def test_a_start_at_the_solution_takes_no_step():
    rng = np.random.default_rng(0)
    E, target = rng.standard_normal((30, 60)), rng.standard_normal(30)
    u = module._active_set(E, target, 1000)
    assert 1 < np.count_nonzero(u) < 30
    assert_allclose(module._active_set(E, target, 1, u > 0), u, atol=1e-13)
    with pytest.raises(RuntimeError, match="steps"):
        module._active_set(E, target, 1)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (300, 6), (12, 30)])
@pytest.mark.parametrize("free", [False, True])
def test_both_active_sets_give_one_margin(monkeypatch, n, d, free):
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, d))
    y = np.where(X[:, 0] > 0, 1.0, -1.0)
    X[:, 0] += 0.05 * y
    small = max_margin(X, y, intercept=free)
    monkeypatch.setattr(module, "LARGE", 0.0)
    large = max_margin(X, y, intercept=free)
    assert large.verify().accepted
    assert large.support.tolist() == small.support.tolist()
    assert_allclose(large.weights, small.weights, rtol=1e-12, atol=1e-13)
    budget = {"max_iter": 1, "intercept": free}
    with pytest.warns(RuntimeWarning, match="not decided"):
        assert max_margin(X, y, **budget).status.name == "UNDECIDED"
