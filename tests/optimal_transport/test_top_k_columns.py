"""Columns of the sparse semi-dual: optimality, derivatives, and every way to hold the curvature."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.optimal_transport import _top_k_columns, support_norm
from theorylab.optimal_transport._top_k_columns import Columns, support_norms


@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0.01, 10.0))
def test_smoothed_columns_and_their_jacobian(seed, k, delta):
    """The inner maximum of the proximal semi-dual: stationary, and its derivatives are right."""
    rng = np.random.default_rng(seed)
    n, m = 7, 3
    f, C, b = rng.normal(size=n), rng.uniform(size=(n, m)), rng.dirichlet(np.ones(m)) * 3
    a = rng.dirichlet(np.ones(n))
    columns = Columns(C.T, b, 0.8, k)
    value, slope = columns.semidual(f, a, delta)
    P = np.zeros((n, m))
    P[columns.rows, columns.cols] = columns.mass
    assert_allclose(P.sum(0), b, rtol=1e-10)
    norms = sum(support_norm(p, k=k) for p in P.T)
    direct = ((f[:, None] - C) * P).sum() - 0.4 * norms - delta / 2 * (P**2).sum()
    assert_allclose(f @ a - value, direct, rtol=1e-9, atol=1e-9)
    for _ in range(20):  # no other plan does better
        Q = P + rng.uniform() * (rng.dirichlet(np.ones(n), m).T * b - P)
        other = (
            ((f[:, None] - C) * Q).sum()
            - 0.4 * sum(support_norm(q, k=k) for q in Q.T)
            - delta / 2 * (Q**2).sum()
        )
        assert other <= direct + 1e-9
    H = columns.curvature(delta).matrix
    H = H if isinstance(H, np.ndarray) else H.toarray()
    assert_allclose(H, H.T, atol=1e-9)
    assert np.linalg.eigvalsh(H)[0] >= -1e-9
    step = 1e-7 * rng.normal(size=n)
    up, down = (columns.semidual(f + s * step, a, delta)[1] for s in (1, -1))
    middle = columns.semidual(f, a, delta)
    assert_allclose((down - up) / 2, H @ step, rtol=1e-3, atol=3e-8 / delta + 1e-9)
    assert middle[0] == value
    assert_allclose(slope, middle[1])


@pytest.mark.parametrize("delta", [0.0, 0.05, 0.3, 3.0])
def test_the_jacobian_is_exact_between_kinks(delta):
    """The gradient is linear as long as the same entries are full and mixed."""
    met = mixed = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n, m, k = 9, 4, 1 + seed % 4
        f, b, a = 0.3 * rng.normal(size=n), 3 * rng.dirichlet(np.ones(m)), np.zeros(n)
        columns = Columns(rng.uniform(size=(m, n)), b, 0.8, k)
        step = 1e-4 * rng.normal(size=n)
        ends, pieces = [], []
        for s in (1, -1, 0):
            ends.append(columns.semidual(f + s * step, a, delta)[1])
            pieces.append((columns.rows.tolist(), columns.start.tolist(), columns.full.tolist()))
        if pieces[0] == pieces[1] == pieces[2]:
            met += 1
            mixed += bool(columns.mixed.any())
            H = columns.curvature(delta).matrix
            H = H if isinstance(H, np.ndarray) else H.toarray()
            assert_allclose((ends[1] - ends[0]) / 2, H @ step, rtol=1e-7, atol=1e-12)
    assert met > 10
    assert mixed > 4 or delta == 0


@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_every_way_to_hold_the_curvature(monkeypatch, delta):
    rng = np.random.default_rng(0)
    n, m = 30, 12
    f, C, b = 0.2 * rng.normal(size=n), rng.uniform(size=(n, m)), 10 * rng.dirichlet(np.ones(m))
    columns = Columns(C.T, b, 0.8, 3)
    columns.project(f, delta)
    assert delta == 0 or columns.mixed.any()
    calls = []

    def counted(solver):
        def inner(*args, **kwargs):
            calls.append(solver)
            assert len(calls) < 200, "a singular matrix is factored without end"
            return solver(*args, **kwargs)

        return inner

    for name in ("dpotrf", "splu"):
        monkeypatch.setattr(_top_k_columns, name, counted(getattr(_top_k_columns, name)))
    held = []
    for filled, crowded in ((1e9, 1e9), (0, 1e9), (0, 0)):
        monkeypatch.setattr(_top_k_columns, "_FILLED", filled)
        monkeypatch.setattr(_top_k_columns, "_CROWDED", crowded)
        held.append(columns.curvature(delta))
    dense = [c.matrix if isinstance(c.matrix, np.ndarray) else c.matrix.toarray() for c in held]
    assert isinstance(held[1].matrix, np.ndarray)
    assert not isinstance(held[0].matrix, np.ndarray)
    for matrix, curvature in zip(dense, held, strict=True):
        assert_allclose(matrix, dense[0], atol=1e-12)
        slope = rng.normal(size=n)
        step = curvature.solve(slope, 0.01)
        assert_allclose(matrix @ step + 0.01 * step, slope, atol=1e-9)
        before = curvature.matrix.copy()
        assert np.isfinite(curvature.solve(slope, 0.0)).all()  # singular: damped until it is not
        assert abs(curvature.matrix - before).max() == 0


def test_entries_are_found_where_room_is_short_and_rows_are_few():
    rng = np.random.default_rng(1)
    for n in (1, 2, 7, 8, 9, 17, 40):
        C, b = rng.uniform(size=(n, 25)), np.full(25, 1 / 25)
        columns = Columns(C.T, b, 1e3, n)  # every entry has mass
        columns._row, columns._mass = np.empty(1, np.int64), np.empty(1)
        columns.project(np.zeros(n), 0.0)
        P = np.zeros((n, 25))
        P[columns.rows, columns.cols] = columns.mass
        assert (P > 0).all()
        assert_allclose(P, (P.mean(axis=0) - (C - C.mean(axis=0)) / 1e3), rtol=1e-10)
        assert_allclose(columns.sums, P.sum(axis=1), rtol=1e-12)
        rows, cols, mass = columns.entries(1 / (1.0001 * n))
        assert_allclose(mass, P[rows, cols])
        assert (mass > 1 / (1.0001 * 25 * n)).all()
        above = 1 / (1.0001 * 25 * n) < P
        assert rows.size == np.count_nonzero(above) > 0


def test_support_norms_of_entries_in_any_order():
    rng = np.random.default_rng(2)
    P = rng.uniform(size=(7, 4)) ** 4 * (rng.uniform(size=(7, 4)) < 0.7)
    rows, cols = np.nonzero(P)
    order = rng.permutation(rows.size)
    mass = P[rows, cols][order]
    for k in (1, 2, 5, 7):
        total = sum(support_norm(p, k=k) for p in P.T)
        assert_allclose(support_norms(cols[order], mass, k, 4), total, rtol=1e-13)
    # One entry far above the others does not hide them.
    assert_allclose(support_norm([1e9, 1.0, 1.0, 1.0, 1.0], k=2) - 1e18, 16.0, atol=300)
    assert_allclose(support_norm([1e4, 1.0, 1.0, 1.0, 1.0], k=2) - 1e8, 16.0, rtol=1e-6)
