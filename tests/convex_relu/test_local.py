"""Active-set Newton descent and its steps: directional derivatives on every side of every kink,
lengths, and sums of neurons, written out in numpy."""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from scipy.optimize import nnls

from theorylab.convex_relu import _lengths
from theorylab.convex_relu._face_steps import project
from theorylab.convex_relu._lengths import _lasso, _step, merge, rescale
from theorylab.convex_relu._line_search import search
from theorylab.convex_relu._local import descend


class State(NamedTuple):
    """A quadratic data term, and neurons on their faces."""

    X: np.ndarray
    b: np.ndarray
    kappa: np.ndarray
    beta: float
    p: np.ndarray
    sigma: np.ndarray
    active: np.ndarray
    tight: np.ndarray
    linear: int

    def copy(self):
        return State(*(a.copy() if isinstance(a, np.ndarray) else a for a in self))


def drawn(seed, linear=0, held=0, m=5):
    """Some neurons hold as many rows; one row is zero."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(5, 11)), 2 + seed % 3
    X, b, p = rng.standard_normal((n, d)), 2.0 * rng.standard_normal(n), rng.standard_normal((m, d))
    X[n // 2] = 0.0
    tight = np.zeros((m, n), dtype=bool)
    for j in range(linear, m, 2) if held else ():
        # Rows 0 and 1 in turn, or both.
        rows = np.arange(min(held, d - 1)) + (j // 2) % 2 * (held == 1)
        tight[j, rows] = True
        p[j] -= np.linalg.pinv(X[rows]) @ (X[rows] @ p[j])
    p[:linear] *= seed % 2  # training starts from zero
    active = p @ X.T > 0.0
    active[tight] = rng.random(tight.sum()) < 0.5
    active[:linear] = True
    sigma = np.where(np.arange(m) % 2 ^ seed % 2, -1.0, 1.0)
    sigma[:linear] = 1.0
    beta = (0.03, 0.3, 1.0)[seed % 3]
    return State(X, b, rng.uniform(0.2, 3.0, n), beta, p, sigma, active, tight, linear)


def residuals(s):
    f = s.sigma @ np.where(s.active & ~s.tight, s.p @ s.X.T, 0.0)
    return s.b - s.kappa * f


def objective(s):
    f = s.sigma @ np.where(s.active & ~s.tight, s.p @ s.X.T, 0.0)
    penalty = np.linalg.norm(s.p[s.linear :], axis=1).sum()
    return 0.5 * f @ (s.kappa * f) - s.b @ f + s.beta * penalty


def steepest(s, crossing):
    """The steepest descent that a neuron finds on some side of its ties, or in its cell: the
    distance of its gradient from the dual of a cone."""
    v = residuals(s)
    worst = np.abs(s.X.T @ v).max() if s.linear else 0.0
    for p, sigma, active, tight in list(zip(s.p, s.sigma, s.active, s.tight, strict=True))[
        s.linear :
    ]:
        if not p.any():
            continue
        ties = np.abs(s.X @ p) <= 1e-9 * np.linalg.norm(p) * np.linalg.norm(s.X, axis=1)
        ties &= s.X.any(axis=1)
        assert np.all(ties[tight])
        rest = active & ~ties
        pull = s.beta * p / np.linalg.norm(p) - sigma * s.X[rest].T @ v[rest]
        every = np.array(list(product((False, True), repeat=int(ties.sum()))), dtype=bool)
        for sides in every if crossing else [active[ties]]:
            gradient = pull - sigma * s.X[ties][sides].T @ v[ties][sides]
            walls = np.where(sides, 1.0, -1.0)[:, None] * s.X[ties]
            found = nnls(walls.T, gradient)[1] if len(walls) else np.linalg.norm(gradient)
            worst = max(worst, float(found))
    return worst


def test_neurons_are_projected_onto_their_faces():
    for seed in range(6):
        s = drawn(seed, seed % 2, 2)
        m, d = s.p.shape
        s.p[:] = np.random.default_rng(seed).standard_normal((m, d))
        s.p[-2] = 0.0
        # A row of length 1e-3, and one in the span of the others.
        s.X[2] *= 1e-3 / np.linalg.norm(s.X[2])
        s.X[1] = -2.0 * s.X[0] + (s.X[2] if seed > 2 else 0.0)
        s.tight[-1, :3] = seed > 2
        end, basis, size, length = s.copy(), np.empty((m, d, d)), np.empty(m, int), np.empty(m)
        norms = np.linalg.norm(s.X, axis=1)
        total = project(s.X, norms, end.p, s.tight, s.linear, basis, size, length)
        for j, rows in enumerate(s.tight):
            face = np.eye(d) - np.linalg.pinv(s.X[rows]) @ s.X[rows]
            np.testing.assert_allclose(end.p[j], face @ s.p[j], atol=1e-12)
            dimension = round(np.trace(face)) if s.p[j].any() else 0
            assert size[j] == dimension
            assert length[j] == pytest.approx(np.linalg.norm(end.p[j]), rel=1e-14)
            if dimension:
                np.testing.assert_allclose(basis[j] @ basis[j].T, np.eye(d), atol=1e-14)
                free = basis[j, d - dimension :]
                np.testing.assert_allclose(free.T @ free, face, atol=1e-10)
            else:
                assert not end.p[j].any()
        assert total == size.sum()


CASES = [(seed, linear, held) for seed in range(12) for linear in (0, 1) for held in (0, 1, 2)]


@pytest.mark.parametrize("crossing", [True, False])
def test_descent_falls_to_a_point_from_which_no_side_descends(crossing):
    vanished, kept, steps = 0, 0, []
    for seed, linear, held in CASES:
        start = drawn(seed, linear, held)
        if not crossing:
            # Two of one sign in one cell.
            start.sigma[-1] = start.sigma[-2]
        largest = start.b @ start.b
        values = [objective(start)]
        for most in range(200):
            end = start.copy()
            taken, stationary, _ = descend(*end, crossing, most, 1e-12)
            values.append(objective(end))
            # A step falls, by rounding at least.
            assert values[-1] <= values[-2] + 1e-14 * largest
            # On a face of as many rows as there are inputs nothing is left.
            assert not end.p[end.tight.sum(axis=1) >= end.X.shape[1]].any()
            if stationary:
                break
            assert taken == most
        assert (taken, stationary) == (most - 1, 1)
        steps.append(taken)
        assert steepest(end, crossing) <= 1e-8 * np.abs(start.X).max() * np.abs(start.b).max()
        # Sides and outputs are what the weights say.
        z = end.p @ end.X.T
        assert np.abs(z[end.tight]).max(initial=0.0) <= 1e-12
        free = ~end.tight & (end.p != 0.0).any(axis=1)[:, None]
        free[:linear] = False
        assert np.all((z >= -1e-12) | ~end.active | ~free)
        assert np.all((z <= 1e-12) | end.active | ~free)
        vanished += np.count_nonzero(~end.p.any(axis=1))
        kept += np.count_nonzero(end.tight)
        if not crossing:
            gone = ~end.p.any(axis=1)
            assert np.array_equal(end.active[~gone], start.active[~gone])
    assert vanished > 20
    assert kept > 20
    assert max(steps) <= 30
    # Cut neurons that have to vanish do so at the next choice of lengths.
    assert sum(steps) <= (8.7 if crossing else 5.8) * len(CASES)


def face_gradient(s):
    """The largest part of the gradient along the faces, whose rows are independent."""
    v, worst = residuals(s), 0.0
    for j, p in enumerate(s.p):
        if p.any():
            on, rows = s.active[j] & ~s.tight[j], s.X[s.tight[j]]
            gradient = -s.sigma[j] * s.X[on].T @ v[on]
            if j >= s.linear:
                gradient += s.beta * p / np.linalg.norm(p)
            worst = max(worst, np.linalg.norm(gradient - np.linalg.pinv(rows) @ (rows @ gradient)))
    return worst


@pytest.mark.parametrize("tol", [1e-4, 1e-6])
def test_a_face_is_stationary_at_the_tolerance_that_is_asked_for(tol):
    near = 0
    for case in CASES:
        end = drawn(*case)
        assert descend(*end, True, 500, tol)[1] == 1
        gradient = face_gradient(end) / end.beta
        assert gradient <= np.sqrt(end.X.shape[1] * len(end.p)) * tol
        near += gradient > 1e-5 * tol
    assert near > 5


def test_gradients_that_stay_at_their_rounding_end_nothing_but_a_face():
    for case in CASES:
        end = drawn(*case)
        descend(*end, True, 200, 1e-14)
        assert steepest(end, True) <= 1e-8 * np.abs(end.X).max() * np.abs(end.b).max()


@pytest.mark.parametrize("crossing", [True, False])
def test_neurons_that_begin_on_kinks_are_held_there_or_leave(crossing):
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, d, m = int(rng.integers(1, 9)), 1 + seed % 3, 4
        X = np.vstack([rng.integers(-2, 3, (n, d)), np.eye(d)]) * 1.0
        n += d
        # Rows repeat, and some are zero; many outputs are.
        b, p = rng.integers(-3, 4, n) * 1.0, rng.integers(-1, 2, (m, d)) * 1.0
        active = (p @ X.T > 0.0) | ((p @ X.T == 0.0) & (rng.random((m, n)) < 0.5))
        sigma, kappa = np.where(np.arange(m) % 2, -1.0, 1.0), np.ones(n)
        end = State(X, b, kappa, 0.25, p, sigma, active, np.zeros((m, n), dtype=bool), 0)
        before = objective(end)
        assert descend(*end, crossing, 300, 1e-11)[1] == 1
        assert objective(end) <= before + 1e-13
        z = end.p @ X.T
        assert np.all(np.where(end.active, z, -z) >= -1e-11)
        assert face_gradient(end) <= 1e-8
        held += np.count_nonzero(end.tight[end.p.any(axis=1)])
    assert held > 5


def test_a_tolerance_that_no_gradient_reaches_is_not_reached():
    early = 0
    for case in CASES:
        end = drawn(*case)
        taken, stationary, _ = descend(*end, True, 100, 1e-30)
        assert not (stationary and end.p.any())
        early += taken < 100 and not stationary
    assert early > 5


def slope(s, delta, t, side):
    """The derivative of the objective along delta, on the right or the left of a step t."""
    p = s.p + t * delta
    z, dz = p @ s.X.T, delta @ s.X.T
    on = np.where(np.abs(z) <= 1e-11, side * dz > 0.0, z > 0.0) & ~s.tight
    on[: s.linear] = True
    v = s.b - s.kappa * (s.sigma @ np.where(on, z, 0.0))
    lengths = np.linalg.norm(p, axis=1)
    penalty = np.sum((p * delta).sum(axis=1)[s.linear :] / lengths[s.linear :])
    return s.beta * penalty - s.sigma @ np.where(on, dz, 0.0) @ v


@pytest.mark.parametrize("crossing", [True, False])
def test_a_search_ends_where_the_slope_first_changes_its_sign(crossing):
    ends = set()
    for seed, linear, held in CASES:
        s = drawn(seed, linear, held)
        rng = np.random.default_rng(seed)
        delta = rng.standard_normal(s.p.shape)
        for j, rows in enumerate(s.tight):
            delta[j] -= np.linalg.pinv(s.X[rows]) @ (s.X[rows] @ delta[j])
        if slope(s, delta, 0.0, 1) > 0.0 and seed != 5:
            delta = -delta
        m, n = s.active.shape
        size = np.array([s.X.shape[1] - rows.sum() for rows in s.tight])
        z, f = s.p @ s.X.T, s.sigma @ np.where(s.active & ~s.tight, s.p @ s.X.T, 0.0)
        cap = (0.2, 1.0, 30.0)[seed // 3 % 3]
        end = s.copy()
        work = np.empty(m * n), np.empty(m * n, dtype=np.int64)
        norms = np.linalg.norm(s.X, axis=1)
        alpha, which = search(
            *end[:8], norms, size, f, z, delta, np.empty((m, n)), linear, crossing, cap, *work
        )
        assert 0.0 <= alpha <= cap
        np.testing.assert_allclose(end.p, s.p + alpha * delta, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(z, end.p @ s.X.T, atol=1e-11)
        np.testing.assert_allclose(f, s.sigma @ np.where(end.active & ~s.tight, z, 0.0), atol=1e-12)
        small = 1e-9 * np.abs(s.b).max() * np.abs(delta).sum()
        shares = np.linspace(0.02, 0.999, 50) if alpha > 0.0 else ()
        assert all(slope(s, delta, t * alpha, 1) < small for t in shares)
        free = ~s.tight & (np.arange(m) >= linear)[:, None]
        assert np.all(np.where(end.active, z, -z)[free] >= -1e-11)
        if which >= 0:
            j, i = divmod(which, n)
            assert abs(z[j, i]) <= 1e-12
            # Where it came from.
            assert end.active[j, i] == (s.p[j] @ s.X[i] > 0.0)
            assert slope(s, delta, alpha, -1) <= small
            assert not crossing or slope(s, delta, alpha, 1) >= -small
        elif alpha < cap:
            assert alpha == 0.0 or abs(slope(s, delta, alpha, 1)) <= small
        assert crossing or np.array_equal(end.active, s.active)
        ends.add((which >= 0, alpha == cap, alpha == 0.0))
    assert {(True, False, False), (False, True, False), (False, False, False)} <= ends


@pytest.mark.parametrize("linear", [0, 1])
def test_lengths_are_best_in_the_directions_at_hand(linear):
    dropped = 0
    for seed in range(12):
        s = drawn(seed, linear, 1, m=8)
        s.p[-1] = 0.0
        end = s.copy()
        rescale(*end)
        np.testing.assert_array_equal(end.p[:linear], s.p[:linear])
        assert not end.p[-1].any()
        rest = slice(linear, -1)
        lengths, old = (np.linalg.norm(p[rest], axis=1) for p in (end.p, s.p))
        units = s.p[rest] / old[:, None]
        np.testing.assert_allclose(end.p[rest], lengths[:, None] * units, atol=1e-13)
        # The derivative in the length of every direction, of those left out too.
        on = (s.active & ~s.tight)[rest]
        atoms = s.sigma[rest, None] * np.where(on, units @ s.X.T, 0.0)
        slopes = s.beta - atoms @ residuals(end)
        small = 1e-9 * (s.b @ s.b)
        assert np.all(slopes >= -small)
        np.testing.assert_allclose(lengths * slopes, 0.0, atol=small)
        dropped += np.count_nonzero(lengths == 0.0)
    assert dropped > 10


def nonnegative(gram, slope):
    """The lengths that are best, by non-negative least squares."""
    root = np.linalg.cholesky(gram)
    return nnls(root.T, np.linalg.solve(root, slope))[0]


def test_lengths_leave_and_come_back_as_non_negative_least_squares_has_it():
    back = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        m = int(rng.integers(1, 12))
        # Atoms of one quarter of the space.
        atoms = rng.standard_normal((m, m + 2)) + 1.0
        if seed % 2 and m > 1:
            atoms[1] = atoms[0] + 1e-4 * atoms[1]
        gram, slope = atoms @ atoms.T, atoms @ rng.standard_normal(m + 2) * 3.0 - 0.1
        length = rng.uniform(0.01, 2.0, m)
        gone = (rng.random(m) < 0.2) & (np.arange(m) > 0)
        length[gone] = 0.0
        rest = np.ix_(~gone, ~gone)
        best = np.zeros(m)
        best[~gone] = nonnegative(gram[rest], slope[~gone])
        left, scale = length.copy(), float(np.diag(gram).max())
        # From where they are, or, of more than the rank, from zero.
        _lasso(gram.copy(), slope, 0.1, length, 100 * (seed // 2 % 2))
        # Its gradient, and exact zeros where it is not at zero.
        gradient = gram @ length - slope
        assert np.abs(gradient[length > 0.0]).max(initial=0.0) <= 1e-9 * scale
        assert gradient[~gone].min(initial=0.0) >= -1e-9
        np.testing.assert_array_equal(length[gone], 0.0)
        np.testing.assert_array_equal(length > 0.0, best > 0.0)
        # Where no slope is steep enough none comes back.
        _lasso(gram.copy(), slope, np.inf, left, m)
        back += np.count_nonzero((left == 0.0) & (length > 0.0))
    assert back > 10


def test_lengths_of_dependent_neurons_are_as_good_as_those_of_a_basis():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        atoms = np.abs(rng.standard_normal((3, 6)))
        # Repeated ones, a sum, and the zero one.
        every = np.vstack([atoms, atoms[0], atoms[0] + atoms[1], 0.0 * atoms[0]])
        penalties = 0.1 * np.array([1.0, 1.0, 1.0, 1.0, 2.0, 1.0])
        target = rng.standard_normal(6) + 1.0
        length = rng.uniform(0.1, 1.0, 6)
        slope = every @ target - penalties
        _lasso(every @ every.T, slope, 0.1, length, 100 * (seed % 2))
        assert length.min() >= 0.0
        assert length[5] == 0.0
        expected = nonnegative(atoms @ atoms.T, slope[:3]) @ atoms
        np.testing.assert_allclose(length @ every, expected, atol=1e-10)


def test_lengths_of_many_dependent_neurons_take_as_many_steps_as_few(monkeypatch):
    steps = []

    def counted(*args):
        steps.append(args[-1])
        return _step(*args)

    monkeypatch.setattr(_lengths, "_step", counted)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, m = rng.standard_normal((20, 2)), 100
        # Four bundles of neurons, each of two independent outputs and a little rounding.
        u = rng.standard_normal((4, 2))[rng.integers(4, size=m)]
        u = u + 1e-6 * rng.standard_normal((m, 2))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        atoms = np.where(rng.random(m) < 0.5, 1.0, -1.0)[:, None] * np.maximum(u @ X.T, 0.0)
        gram, slope = atoms @ atoms.T, atoms @ rng.standard_normal(20) - 1e-6
        values = []
        for rank, most in ((20, 100), (m, 200)):
            length = np.ones(m)
            steps.clear()
            _lasso.py_func(gram.copy(), slope, 1e-6, length, rank)
            assert len(steps) <= most
            assert max(steps) <= (20 if rank < m else m)
            values.append(0.5 * length @ gram @ length - slope @ length)
        # From zero and from all of them.
        assert values[0] == pytest.approx(values[1], rel=1e-12)
        assert values[0] < min(0.0, 0.5 * gram.sum() - slope.sum())


def test_of_neurons_with_proportional_outputs_the_longest_output_is_kept():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        atoms = rng.standard_normal((5, 7)) + 1.0
        atoms[1], atoms[2] = atoms[0], 2.0 * atoms[0]
        length, slope = rng.uniform(0.01, 2.0, 5), atoms @ rng.standard_normal(7) * 3.0 - 0.1
        gram = atoms @ atoms.T
        _lasso(gram.copy(), slope, 0.1, length, 100 * (seed % 2))
        gradient = gram @ length - slope
        assert length.min() >= 0.0
        assert gradient.min() >= -1e-8
        np.testing.assert_allclose(length * gradient, 0.0, atol=1e-8)
        assert not length[:2].any()


def test_neurons_of_one_sign_in_one_closed_cell_are_added():
    X = np.eye(2)
    inner, edge, left = [1.0, 1.0], [2.0, 0.0], [-1.0, 2.0]
    # Neurons, signs, whether the edge counts as above the second axis; sums where kinks are
    # crossed, and in cells.
    for points, sigma, above, crossed, within in (
        ([inner, inner], [1.0, 1.0], True, [[2.0, 2.0]], [[2.0, 2.0]]),
        ([inner, inner], [1.0, -1.0], True, None, None),
        ([inner, left], [1.0, 1.0], True, None, None),
        ([inner, edge], [-1.0, -1.0], True, [[3.0, 1.0]], [[3.0, 1.0]]),
        ([inner, edge], [1.0, 1.0], False, [[3.0, 1.0]], None),
        ([edge, inner], [1.0, 1.0], False, [[3.0, 1.0]], None),
        ([edge, edge], [1.0, 1.0], False, [[4.0, 0.0]], [[4.0, 0.0]]),
        ([edge, edge], [1.0, 1.0], True, [[4.0, 0.0]], [[4.0, 0.0]]),
        ([edge, [0.0, 0.0], inner], [1.0] * 3, True, [[3.0, 1.0]], [[3.0, 1.0]]),
    ):
        for crossing, expected in ((True, crossed), (False, within)):
            p, sigma = np.array(points), np.array(sigma)
            tight = (p == 0.0) & p.any(axis=1)[:, None]
            active = (p > 0.0) | (tight & above)
            before = sigma @ np.where(active & ~tight, p, 0.0)
            merge(X, p, sigma, active, tight, 0, crossing)
            if expected is None:
                expected = points
            np.testing.assert_array_equal(p[p.any(axis=1)], expected)
            # What was added lies on the sides it is said to, and what is held is at zero.
            assert np.array_equal((active & ~tight)[p.any(axis=1)], p[p.any(axis=1)] > 0.0)
            np.testing.assert_array_equal(sigma @ np.where(active & ~tight, p, 0.0), before)
    # Nor does what vanished in the cell of another take or give anything.
    for order in ([0, 1], [1, 0]):
        p = np.array([edge, [0.0, 0.0]])[order]
        active = np.array([[True, True], [True, True]])
        tight = np.array([[False, True], [False, False]])[order]
        before = p.copy(), active.copy(), tight.copy()
        merge(X, p, np.ones(2), active, tight, 0, True)
        for part, old in zip((p, active, tight), before, strict=True):
            np.testing.assert_array_equal(part, old)
    # The linear map is none of them.
    p, active = np.ones((2, 2)), np.ones((2, 2), dtype=bool)
    merge(X, p, np.ones(2), active, ~active, 1, True)
    np.testing.assert_array_equal(p, 1.0)


@pytest.mark.parametrize("tol", [1e-9, 1e-12, 1e-16])
def test_neurons_that_are_short_because_they_should_be_stay(tol):
    # Orthogonal rows, one neuron each, of signs that keep them apart.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = np.linalg.qr(rng.standard_normal((2, 2)))[0]
        wanted, beta = np.array([rng.uniform(1.0, 9.0), 10.0 ** rng.uniform(-8, -5)]), 0.1
        sigma, kappa = np.array([1.0, -1.0]), rng.uniform(0.5, 2.0, 2)
        b = sigma * (kappa * wanted + beta)
        p, held = rng.uniform(0.5, 2.0, (2, 1)) * X, ~np.eye(2, dtype=bool)
        descend(X, b, kappa, beta, p, sigma, ~held, held, 0, True, 60, tol)
        np.testing.assert_allclose(p, wanted[:, None] * X, rtol=1e-6, atol=1e-13)


def test_a_linear_map_alone_is_least_squares_in_two_steps():
    for seed in range(10):
        s = drawn(seed, 1, 0, m=1)
        root = np.sqrt(s.kappa)
        best = np.linalg.lstsq(root[:, None] * s.X, s.b / root, rcond=None)[0]
        # Penalised neurons could not turn around.
        for start in (-best, np.zeros_like(best), 1e-3 * s.b[: len(best)]):
            s.p[0] = start
            taken, stationary, _ = descend(*s, True, 9, 1e-8)
            assert stationary
            assert taken <= 2
            np.testing.assert_allclose(s.p[0], best, rtol=1e-8, atol=1e-9)


def test_a_step_leaves_a_hundredth_of_every_neuron():
    bound = 0
    for seed in range(300):
        # Signs that differ, so that neurons are never added.
        start = drawn(seed, 0, seed % 2, m=2)
        before = start.p.copy()
        for most in range(1, 9):
            end = start.copy()
            descend(*end, True, most, 1e-12)
            left = (end.p * before).sum(axis=1)
            assert np.all((left > 0.0) | ~end.p.any(axis=1) | ~before.any(axis=1))
            size = np.linalg.norm(before, axis=1)
            bound += np.any((left > 0.0) & (left <= 0.0101 * size**2))
            before = end.p
    assert bound > 5


def test_convergence_is_quadratic_on_the_faces_of_the_end():
    taken = []
    for seed, linear, held in CASES:
        end = drawn(seed, linear, held)
        descend(*end, True, 500, 1e-13)
        keep = end.p.any(axis=1)
        parts = (a[keep] for a in end[4:8])
        near = State(*end[:4], *parts, linear)
        noise = np.random.default_rng(seed).standard_normal(near.p.shape)
        near.p[:] += 1e-4 * np.linalg.norm(near.p, axis=1)[:, None] * noise
        for p, rows in zip(near.p, near.tight, strict=True):
            p -= np.linalg.pinv(near.X[rows]) @ (near.X[rows] @ p)
        sides = (near.p @ near.X.T > 0.0) | near.tight
        if np.array_equal(sides[linear:], (near.active | near.tight)[linear:]):
            taken.append(descend(*near, True, 500, 1e-10)[:2])
    assert len(taken) > 30
    assert all(steps <= 3 and stationary for steps, stationary in taken)
