"""The second-moment operator against enumeration, fractions and simulation; its bounds attained."""

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.linalg import eigh, null_space

from theorylab import implicit_regularization as ir
from theorylab.verify import compare, within

SAMPLINGS = ("replacement", "without", "bernoulli")


def family(n, d, rank, seed):
    roots = np.random.default_rng(seed).standard_normal((n, d, rank))
    return roots @ np.swapaxes(roots, 1, 2)


def batch_hessians(hessians, B, sampling):
    """Every batch and its probability, written out."""
    n = len(hessians)
    if sampling == "bernoulli":
        for taken in product((0, 1), repeat=n):
            p = np.prod([B / n if t else 1 - B / n for t in taken])
            yield p, sum(t * H for t, H in zip(taken, hessians, strict=True)) / B
    else:
        drawn = list(
            product(range(n), repeat=B) if sampling == "replacement" else combinations(range(n), B)
        )
        for batch in drawn:
            yield 1 / len(drawn), sum(hessians[i] for i in batch) / B


def brute_operator(hessians, step, B, sampling):
    d = hessians.shape[-1]
    total = np.zeros((d * d, d * d))
    for p, H in batch_hessians(hessians, B, sampling):
        A = np.eye(d) - step * H
        total += p * np.kron(A, A)
    return total


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(("n", "d", "B"), [(1, 2, 1), (3, 2, 1), (3, 3, 2), (4, 2, 3), (3, 2, 3)])
def test_operator_against_all_batches(n, d, B, sampling):
    H = family(n, d, d, n)
    step = 0.37
    found = ir.second_moment_operator(H, step_size=step, batch_size=B, sampling=sampling)
    brute = brute_operator(H, step, B, sampling)
    assert_allclose(found.growth, np.linalg.eigvals(brute).real.max(), rtol=1e-10)
    # Entry by entry, in the basis that the docstring states.
    rows, columns = np.triu_indices(d)
    v = found.basis
    units = [
        np.outer(v[:, k], v[:, k])
        if k == m
        else (np.outer(v[:, k], v[:, m]) + np.outer(v[:, m], v[:, k])) / np.sqrt(2)
        for k, m in zip(rows, columns, strict=True)
    ]
    table = [[np.sum(a * (brute @ b.ravel()).reshape(d, d)) for b in units] for a in units]
    assert_allclose(found.matrix, table, atol=1e-10 * found.growth)
    assert_allclose(brute @ found.mode.ravel(), found.growth * found.mode.ravel(), atol=1e-8)
    assert_allclose(np.trace(found.mode), 1)
    assert np.linalg.eigvalsh(found.mode)[0] > -1e-9


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_threshold_is_where_the_enumerated_growth_passes_one(sampling):
    for seed, (n, d, rank, B) in enumerate(
        [(2, 1, 1, 1), (3, 2, 1, 2), (4, 3, 2, 2), (3, 3, 1, 1)]
    ):
        H = family(n, d, rank, seed)
        found = ir.stability_threshold(H, batch_size=B, sampling=sampling)
        assert found.lower <= found.step_size <= found.upper <= found.lower * (1 + 1e-9)
        growth = [
            np.linalg.eigvalsh(brute_operator(H, f * found.step_size, B, sampling))[-1]
            for f in (1 - 1e-4, 1, 1 + 1e-4)
        ]
        assert growth[0] < 1 < growth[2]
        assert_allclose(growth[1], 1, atol=1e-9)


def test_full_batch_is_gradient_descent():
    H = family(5, 3, 1, 0)
    top = np.linalg.eigvalsh(H.mean(axis=0))[-1]
    for sampling in ("without", "bernoulli"):
        found = ir.stability_threshold(H, batch_size=5, sampling=sampling)
        assert_allclose(found.step_size, 2 / top)
    assert ir.trace_bound(np.eye(5), batch_size=5, sampling="without") == np.inf
    assert ir.trace_bound([[2.0]], batch_size=1, sampling="without") == np.inf
    assert_allclose(ir.coherence_bound(H, batch_size=5), 2 / top)
    assert_allclose(ir.curvature_bound(H, batch_size=5), 2 / top)


@pytest.mark.parametrize("step", [0.5, 1.0])
def test_modes_of_repeated_eigenvalues_are_moments(step):
    # All second moments grow alike: of their eigenvectors only some are positive semidefinite.
    H = np.tile(np.eye(3), (4, 1, 1))
    mode = ir.stability_threshold(H, batch_size=4, sampling="without").mode
    assert_allclose(mode, np.eye(3) / 3, atol=1e-12)
    found = ir.second_moment_operator(H, step_size=step, batch_size=1)
    assert_allclose(found.growth, (1 - step) ** 2, atol=1e-15)
    assert_allclose(found.mode, np.eye(3) / 3, atol=1e-12)


def test_an_exact_threshold_in_fractions():
    # Gradients 1 and 2 in one dimension: E(1 - h a)^2 <= 1 iff h <= 2 E a / E a^2 = 2 * 5 / 17.
    found = ir.stability_threshold(ir.rank_one_hessians([[1.0], [2.0]]), batch_size=1)
    assert_allclose(found.step_size, float(Fraction(10, 17)), rtol=1e-14)
    assert_allclose(ir.moment_bound(ir.rank_one_hessians([[1.0], [2.0]]), batch_size=1), 10 / 17)


def test_flat_directions_are_left_out():
    g = np.random.default_rng(3).standard_normal((3, 3))
    Q = np.linalg.qr(np.random.default_rng(4).standard_normal((7, 7)))[0][:, :3]
    one = ir.stability_threshold(ir.rank_one_hessians(g), batch_size=1)
    two = ir.stability_threshold(ir.rank_one_hessians(g @ Q.T), batch_size=1)
    assert_allclose(two.step_size, one.step_size, rtol=1e-10)
    assert_allclose(two.mode, Q @ one.mode @ Q.T, atol=1e-7)
    still = ir.second_moment_operator(
        ir.rank_one_hessians(g @ Q.T), step_size=0.1 * two.step_size, batch_size=1
    )
    assert still.growth < 1
    assert still.basis.shape == (7, 3)
    nearly = ir.rank_one_hessians([[1.0, 0.0], [0.0, 1e-6]])
    assert ir.second_moment_operator(nearly, step_size=0.1, batch_size=1).basis.shape == (2, 2)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("s", [1e-200, 1e-8, 1e8, 1e200])
def test_units_rotations_and_order(s, sampling):
    H = family(4, 3, 2, 5)
    Q = np.linalg.qr(np.random.default_rng(6).standard_normal((3, 3)))[0]
    how = {"batch_size": 2, "sampling": sampling}
    one = ir.stability_threshold(H, **how).step_size
    assert_allclose(ir.stability_threshold(s * H, **how).step_size * s, one, rtol=1e-12)
    moved = Q @ H[::-1] @ Q.T
    assert_allclose(ir.stability_threshold(moved, **how).step_size, one, rtol=1e-10)
    assert_allclose(ir.moment_bound(s * H, **how) * s, ir.moment_bound(H, **how))
    assert_allclose(ir.coherence(s * H), ir.coherence(H))
    for bound in (ir.coherence_bound, ir.curvature_bound):
        assert_allclose(bound(s * H, batch_size=2) * s, bound(H, batch_size=2))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 6))
def test_bounds_are_bounds(seed, n, d, B):
    B = min(B, n)
    g = np.random.default_rng(seed).standard_normal((n, d))
    H = ir.rank_one_hessians(g)
    for sampling in SAMPLINGS:
        how = {"batch_size": B, "sampling": sampling}
        found = ir.stability_threshold(H, **how).step_size
        assert found <= ir.moment_bound(H, **how) * (1 + 1e-9)
        assert found <= ir.trace_bound(g, **how) * (1 + 1e-9)
        assert found <= 2 / np.linalg.eigvalsh(H.mean(axis=0))[-1] * (1 + 1e-9)
    sharp = ir.curvature_bound(H, batch_size=B)
    assert found <= sharp * (1 + 1e-9)
    assert sharp <= ir.coherence_bound(H, batch_size=B) * (1 + 1e-9)


def test_bounds_are_attained():
    equal = np.random.default_rng(0).choice([-1.0, 1.0], size=(6, 4))
    H = ir.rank_one_hessians(equal)
    found = ir.stability_threshold(H, batch_size=1).step_size
    assert_allclose(found, 2 / 4)
    assert_allclose(ir.trace_bound(equal, batch_size=1), found)
    assert_allclose(ir.moment_bound(H, batch_size=1), found)
    pairs = ir.grouped_hessians(4, group_size=1)
    found = ir.stability_threshold(pairs, batch_size=2, sampling="bernoulli").step_size
    assert_allclose(found, 4)
    assert_allclose(ir.curvature_bound(pairs, batch_size=2), 4)
    assert_allclose(ir.coherence_bound(pairs, batch_size=2), 4)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("B", [1, 2, 4])
def test_moment_bound_against_all_batches(B, sampling):
    H = family(4, 3, 2, 7)
    square = sum(p * np.sum(batch**2) for p, batch in batch_hessians(H, B, sampling))
    found = ir.moment_bound(H, batch_size=B, sampling=sampling)
    assert_allclose(found, 2 * np.trace(H.mean(axis=0)) / square)


def test_large_batches_are_bounded_by_the_mean():
    for bound in (ir.coherence_bound, ir.curvature_bound):
        assert_allclose(bound(ir.grouped_hessians(1, group_size=4), batch_size=3), 2)


def test_bounds_that_are_just_false_are_noticed():
    g = np.random.default_rng(1).choice([-1.0, 1.0], size=(5, 3))
    found = ir.stability_threshold(ir.rank_one_hessians(g), batch_size=3)
    measured = within(found.step_size, found.upper - found.lower, "rounding")
    assert compare(measured, "<=", ir.trace_bound(g, batch_size=3)).holds
    assert compare(measured, "<=", ir.trace_bound(g, batch_size=1)).decisively_false


def test_coherence_by_hand():
    a, b = np.array([1.0, 0.0]), np.array([0.6, 0.8])
    # S = [[1, 0.6], [0.6, 1]] and both Hessians have norm 1.
    assert_allclose(ir.coherence(ir.rank_one_hessians([a, b])), 1.6)
    assert_allclose(ir.coherence(ir.grouped_hessians(3, group_size=4)), 4)
    # Of rank 2: tr H_1 H_2 = 3, tr H_1^2 = 5, tr H_2^2 = 2; the largest norm is 2.
    family = np.array([[[2.0, 0], [0, 1.0]], [[1.0, 0], [0, 1.0]]])
    assert_allclose(ir.coherence(family), np.linalg.eigvalsh(np.sqrt([[5, 3], [3, 2]]))[-1] / 2)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.05, 3))
def test_loss_grows_at_least_by_its_bound(seed, d, share):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((d + 2, d))
    H = g.T @ g / len(g)
    step = share / np.trace(H)
    bound = ir.loss_growth_bound(g, step_size=step)
    for w in rng.standard_normal((20, d)):
        moved = w - step * g * (g @ w)[:, None]
        growth = np.mean(np.einsum("ni,ij,nj->n", moved, H, moved)) / (w @ H @ w)
        assert growth >= bound * (1 - 1e-9)


def test_alignment_by_hand_and_where_it_vanishes():
    # One dimension: mu = (E a^2 - (E a)^2) / (E a)^2 with a = g^2 = 1, 4.
    assert_allclose(ir.noise_alignment([[1.0], [2.0]]), (8.5 - 6.25) / 6.25)
    assert_allclose(ir.loss_growth_bound([[1.0], [2.0]], step_size=0.3), 1 - 0.6 * 2.5 + 0.09 * 8.5)
    # Two dimensions: H = I / 2 and M = I / 8.
    assert_allclose(ir.noise_alignment(np.eye(2)), 0.5)
    assert ir.noise_alignment([[1.0, 2.0], [-1.0, -2.0]]) < 1e-15
    # By another formula for M, in generalised eigenvalues.
    g = np.random.default_rng(2).standard_normal((5, 3)) * [1.0, 2.0, 0.5]
    H = g.T @ g / 5
    M = (g * np.einsum("ni,ij,nj->n", g, H, g)[:, None]).T @ g / 5 - H @ H @ H
    assert_allclose(ir.noise_alignment(g), eigh(M, H, eigvals_only=True)[0] / np.sum(H**2))
    for s in (1e-100, 1e100):
        assert_allclose(ir.noise_alignment([[s], [2 * s]]), (8.5 - 6.25) / 6.25)


def test_softmax_hessians_against_differences():
    rng = np.random.default_rng(7)
    x, p = rng.standard_normal((1, 2)), rng.dirichlet(np.ones(3), size=1)
    W = np.linalg.lstsq(x, np.log(p), rcond=None)[0].ravel()

    def loss(w):
        z = x[0] @ w.reshape(2, 3)
        return np.log(np.sum(np.exp(z))) - p[0] @ z

    h, unit = 1e-4, np.eye(6)
    H = [
        [
            (
                loss(W + h * (a + b))
                - loss(W + h * (a - b))
                - loss(W - h * (a - b))
                + loss(W - h * (a + b))
            )
            / (4 * h * h)
            for b in unit
        ]
        for a in unit
    ]
    found = ir.softmax_hessians(x, p)
    assert_allclose(found[0], H, atol=1e-6)
    assert np.linalg.matrix_rank(found[0], tol=1e-9) == 2


def test_diagonal_gradients_against_differences():
    rng = np.random.default_rng(8)
    x, u, v = rng.standard_normal((3, 4)), rng.standard_normal(4), rng.standard_normal(4)
    w, h = np.concatenate([u, v]), 1e-6

    def predict(w):
        return x @ (w[:4] ** 2 - w[4:] ** 2)

    slopes = [(predict(w + h * e) - predict(w - h * e)) / (2 * h) for e in np.eye(8)]
    g = ir.diagonal_net_gradients(x, u, v)
    assert_allclose(g, np.transpose(slopes), atol=1e-8)


def test_complexities_against_vertices_of_the_balls():
    rng = np.random.default_rng(9)
    x = rng.standard_normal((4, 3))
    signs = np.array(list(product((-1, 1), repeat=4)))
    boxes = np.array(list(product((-1, 1), repeat=3)))
    crosses = np.concatenate([np.eye(3), -np.eye(3)])
    values = [np.mean(np.max(signs @ x @ b.T / 4, axis=1)) for b in (crosses, boxes)]
    assert_allclose(ir.rademacher_complexities(x), values)
    assert_allclose(ir.rademacher_complexities(1e200 * x), 1e200 * np.array(values))
    assert_allclose(ir.rademacher_complexities([[2.0, -1.0]]), (2, 3))
    # More signs than are taken at once: of equal inputs the mean of |sum of 12 signs| / 12.
    mean = Fraction(462, 2048)
    assert_allclose(ir.rademacher_complexities(np.ones((12, 90))), [float(mean), 90 * float(mean)])


@pytest.mark.parametrize("s", [2.0**-700, 2.0**700])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 2), (2, 9), (5, 6), (5, 30), (4, 3)])
def test_vertices_are_invisible_and_at_the_walls(n, d, s):
    rng = np.random.default_rng(n + d)
    for x in (rng.standard_normal((n, d)), rng.choice([-1.0, 1.0], size=(n, d)), np.ones((n, d))):
        found = ir.invisible_vertex(s * x)
        assert np.abs(x @ found).max() < 1e-12 * d
        assert np.abs(found).max() <= 1
        assert np.sum(np.abs(found) == 1) >= d - n
        assert (ir.invisible_vertex(x) == found).all()
        # Nothing is left to move: on the entries inside, the columns are independent.
        inside = np.abs(found) < 1
        if inside.any():
            assert np.linalg.matrix_rank(x[:, inside]) == inside.sum()


def test_what_gradient_descent_may_keep_that_sgd_may_not():
    # A net that fits, with a part that no sample sees: stable for descent, not for SGD.
    rng = np.random.default_rng(10)
    x = rng.choice([-1.0, 1.0], size=(4, 20))
    hidden = null_space(x)[:, 0]
    hidden *= 1 / np.abs(hidden).max()
    u, v = np.sqrt(np.maximum(hidden, 0)), np.sqrt(np.maximum(-hidden, 0))
    g = ir.rank_one_hessians(ir.diagonal_net_gradients(x, u, v))
    sgd = ir.stability_threshold(g, batch_size=1).step_size
    gd = ir.stability_threshold(g, batch_size=4, sampling="without").step_size
    assert_allclose(sgd, 1 / (2 * np.abs(hidden).sum()))
    assert gd > 1.4 * sgd


def test_bad_families_are_refused_by_name():
    with pytest.raises(ValueError, match="hessians: expected positive semidefinite"):
        ir.coherence([[[1.0, 0.0], [0.0, -0.1]]])
    with pytest.raises(ValueError, match="hessians: expected one that is not 0"):
        ir.stability_threshold(np.zeros((2, 2, 2)), batch_size=1)
    with pytest.raises(ValueError, match="hessians: expected a mean of rank at most 40"):
        ir.stability_threshold(ir.grouped_hessians(41, group_size=1), batch_size=1)
    with pytest.raises(ValueError, match="batch_size"):
        ir.moment_bound(ir.grouped_hessians(2, group_size=1), batch_size=3, sampling="without")
    with pytest.raises(ValueError, match="probabilities: expected rows that sum to 1"):
        ir.softmax_hessians([[1.0]], [[0.5, 0.6]])
    with pytest.raises(ValueError, match="inputs: expected at most 20 rows"):
        ir.rademacher_complexities(np.ones((21, 1)))
    with pytest.raises(ValueError, match="inputs: expected 2"):
        ir.rademacher_complexities(np.ones((20, 100)))
    with pytest.raises(ValueError, match="inputs: expected d"):
        ir.invisible_vertex(np.ones((1000, 200)))


def test_the_exact_threshold_is_between_its_bounds():
    # One dimension, in fractions: E(1 - h a)^2 <= 1 iff h <= 2 E a / E a^2.
    rng = np.random.default_rng(11)
    for n in (2, 3, 7):
        for a in rng.integers(1, 1000, (40, n)):
            exact = Fraction(2 * int(a.sum()), int((a * a).sum()))
            found = ir.stability_threshold(a[:, None, None].astype(float), batch_size=1)
            assert Fraction(found.lower) <= exact <= Fraction(found.upper)
            assert found.upper <= found.lower * (1 + 1e-12)


def test_the_loss_of_two_eigenvalues_grows_by_the_smaller_factor():
    # Gradients that are orthogonal: mu ||H||_F^2 and min (1 - h lambda)^2, by hand.
    g = np.sqrt(2 * np.diag([1.0, 4.0]))  # H = diag(1, 4)
    # The noise is diag(1, 64) over diag(1, 4), of least quotient 1.
    for step, least in ((0.5, 0.25), (0.3, 0.04), (0.1, 0.36)):
        found = ir.loss_growth_bound(g, step_size=step)
        assert_allclose(found, step**2 * 1.0 + least)
        assert_allclose(ir.loss_growth_bound(1e60 * g, step_size=1e-120 * step), found)
