import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from theorylab import neural_collapse as nc


def equal_decay(value, n_layers):
    return np.full(n_layers + 1, value)


def brute_force(sigma, total, price, depth):
    """Least value of the scalar problem on a fine grid, refined around its best cell."""

    def value(p):
        return (sigma - p) ** 2 / (2 * total) + depth / 2 * price * p ** (2 / depth)

    grid = np.linspace(0, sigma, 20001)
    at = int(np.argmin(value(grid)))
    best = minimize_scalar(
        value,
        bounds=(grid[max(at - 1, 0)], grid[min(at + 1, 20000)]),
        method="bounded",
        options={"xatol": 1e-13},
    )
    return min(best.fun, value(0.0)), best.x if best.fun < value(0.0) else 0.0


def draw(rng):
    """Return a random squared-loss model whose weight decay lies on a given side of some class's
    jump."""
    M, K = int(rng.integers(1, 4)), int(rng.integers(2, 6))
    counts = rng.integers(1, 10, size=K)
    factor = rng.choice([0.1, 0.5, 0.9, 0.97, 1.03, 1.1, 2.0])
    product = factor * nc.jump_threshold(M) * rng.choice(counts) ** M / counts.sum() ** (M + 1)
    skew = 0.5 * rng.normal(size=M + 1)
    lams = product ** (1 / (M + 1)) * np.exp(skew - skew.mean())
    return counts, int(rng.integers(max(1, K - 1), K + 2)), lams, bool(rng.integers(2))


def agree(counts, d, lams, bias, seed):
    solution = nc.deep_linear_minimizer(counts, dimension=d, lams=lams, bias=bias)
    attained = nc.deep_linear_objective(
        solution.features, solution.layers, counts, lams, bias=solution.bias
    )
    assert attained == pytest.approx(solution.objective, rel=1e-13)
    certificate = solution.certificate
    assert certificate.lower <= solution.objective <= certificate.upper * (1 + 1e-14)
    assert certificate.gap < 2e-10
    # A start can end in a local minimum; the search doubles its starts until it attains the closed
    # form, and never undercuts it.
    n_starts, found = 10, math.inf
    while found > solution.objective * (1 + 1e-10) and n_starts <= 160:
        search = nc.search_deep_linear(
            counts, dimension=d, lams=lams, bias=bias, n_starts=n_starts, seed=seed + n_starts
        )
        found = min(found, search.objective)
        n_starts *= 2
    assert found == pytest.approx(solution.objective, rel=1e-10)
    assert found >= certificate.lower


@pytest.mark.parametrize("seed", range(12))
def test_minimizers_agree_with_multistart_search(seed):
    agree(*draw(np.random.default_rng(seed)), seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 400))
def test_minimizers_agree_with_multistart_search_long(seed):
    agree(*draw(np.random.default_rng(seed)), seed)


@pytest.mark.parametrize("M", [1, 2, 3, 6])
def test_lengths_minimise_the_scalar_problem_on_both_sides_of_the_jump(M):
    counts, N = np.array([9, 4, 1]), 14
    for k in range(3):
        for factor in (0.2, 0.99, 1.01, 1.3):
            lam = (factor * nc.jump_threshold(M) * counts[k] ** M / N ** (M + 1)) ** (1 / (M + 1))
            s = nc.deep_linear_minimizer(counts, dimension=3, lams=equal_decay(lam, M))
            values, lengths = zip(
                *(brute_force(np.sqrt(n), N, lam, M + 1) for n in counts), strict=True
            )
            assert s.objective == pytest.approx(sum(values), rel=1e-12)
            assert np.allclose(s.singular_values, lengths, atol=1e-5)
            assert (s.singular_values[k] > 0) == (factor < 1)
            ratios = nc.collapse_ratio(N ** (M + 1) * lam ** (M + 1) / counts.astype(float) ** M, M)
            assert np.allclose(ratios * np.sqrt(counts), s.singular_values, atol=1e-12)


@pytest.mark.parametrize("M", [2, 3, 6])
def test_the_largest_root_of_the_equation_in_x(M):
    """In the other form q = x^M / (1 + x^M) and b / n = M x^(M-1) / (x^M + 1)^2, with b = M N (N
    Lambda)^(1/M)."""
    counts, N = np.array([9, 4, 1]), 14
    product = 0.6 * nc.jump_threshold(M) / N ** (M + 1)
    b = M * N * (N * product) ** (1 / M)
    for n in counts:
        root = brentq(
            lambda x, n=n: M * x ** (M - 1) / (x**M + 1) ** 2 - b / n,
            ((M - 1) / (M + 1)) ** (1 / M),
            1e6,
        )
        q = root**M / (1 + root**M)
        tau = N ** (M + 1) * product / n**M
        assert nc.stationary_ratio([tau], M)[0] == pytest.approx(q, rel=1e-10)
    critical = [nc.jump_threshold(M) * f for f in (1 - 1e-12, 1 + 1e-12)]
    alive, dead = nc.collapse_ratio(critical, M)
    assert alive == pytest.approx(1 - 1 / M, rel=1e-10)
    assert dead == 0.0
    assert (M * N * (N * nc.jump_threshold(M) / N ** (M + 1)) ** (1 / M)) == pytest.approx(
        (M - 1) ** ((M - 1) / M) / M, rel=1e-12
    )


@pytest.mark.parametrize("M", [1, 2, 3, 5])
def test_beyond_the_jump_a_local_minimum_remains_up_to_the_spinodal(M):
    tau = nc.spinodal(M)
    assert tau >= nc.jump_threshold(M)
    below, beyond = nc.stationary_ratio([tau * (1 - 1e-9), tau * (1 + 1e-9)], M)
    assert np.isnan(beyond)
    assert below == pytest.approx((M - 1) / (2 * M), abs=1e-4)
    q = np.linspace(0, 1, 100001)
    assert tau == pytest.approx(((1 - q) ** (M + 1) * q ** (M - 1)).max(), rel=1e-8)


def test_one_layer_is_the_unconstrained_features_model():
    counts = np.array([7, 3, 3, 1])
    for loss in ("mse", "ce"):
        for bias in (False, True):
            flat = nc.ufm_minimizer(
                nc.UnconstrainedFeatures(counts, lam_w=0.03, lam_h=0.01, loss=loss, bias=bias),
                dimension=4,
            )
            deep = nc.deep_linear_minimizer(
                counts, dimension=4, lams=[0.03, 0.01], loss=loss, bias=bias
            )
            assert deep.objective == pytest.approx(flat.objective, rel=1e-14)
            assert np.allclose(deep.class_logits, flat.class_logits, atol=1e-14)
            assert 0 <= deep.certificate.gap < 2e-10


def test_factors_share_the_penalty():
    counts, lams = np.array([9, 4, 2]), np.array([0.01, 0.05, 0.02, 0.03])
    s = nc.deep_linear_minimizer(counts, dimension=4, lams=lams)
    penalties = [lam * np.sum(W**2) for lam, W in zip(lams, (*s.layers, s.features), strict=True)]
    assert np.allclose(penalties, penalties[0], rtol=1e-12)
    assert np.linalg.svd(s.class_logits * np.sqrt(counts), compute_uv=False) == pytest.approx(
        s.singular_values, rel=1e-12
    )
    # Lengths of the last layer and of the features: Lambda^(1/L) / lambda p^(2/L).
    price, p = lams.prod() ** 0.25, s.singular_values
    assert np.sum(s.layers[0] ** 2, axis=1) == pytest.approx(price / lams[0] * p**0.5, rel=1e-12)
    assert counts * np.sum(s.class_features**2, axis=0) == pytest.approx(
        price / lams[-1] * p**0.5, rel=1e-12
    )


@pytest.mark.parametrize("loss", ["mse", "ce"])
def test_certified_objective_encloses_the_value_in_extended_precision(loss):
    rng = np.random.default_rng(4)
    counts, lams, lam_b = np.array([3, 1, 2]), np.array([0.1, 0.02, 0.3]), 0.07
    H, layers, b = (
        rng.normal(size=(4, 6)),
        [rng.normal(size=(3, 2)), rng.normal(size=(2, 4))],
        rng.normal(size=3),
    )
    with mpmath.workdps(40):
        Z = mpmath.matrix(layers[0]) * mpmath.matrix(layers[1]) * mpmath.matrix(H)
        value = mpmath.mpf(0)
        for i, label in enumerate(np.repeat(np.arange(3), counts)):
            column = [Z[k, i] + mpmath.mpf(b[k]) for k in range(3)]
            if loss == "mse":
                value += sum((z - (k == label)) ** 2 for k, z in enumerate(column)) / 12
            else:
                value += (mpmath.log(sum(mpmath.exp(z) for z in column)) - column[label]) / 6
        for lam, W in zip([*lams, lam_b], [*layers, H, b[:, None]], strict=True):
            value += mpmath.mpf(lam) * sum(mpmath.mpf(w) ** 2 for w in W.ravel()) / 2
        upper = nc.certified_objective(H, layers, counts, lams, loss=loss, bias=b, lam_b=lam_b)
        assert 0 <= upper - value <= 1e-14 * value
    assert nc.deep_linear_objective(
        H, layers, counts, lams, loss=loss, bias=b, lam_b=lam_b
    ) == pytest.approx(upper, rel=1e-13)


def test_von_neumann_bound_is_below_every_point():
    rng = np.random.default_rng(5)
    for bias in (False, True):
        for d in (1, 3):
            counts, lams = np.array([5, 5, 2]), np.array([0.05, 0.02, 0.03])
            bound = nc.von_neumann_bound(counts, dimension=d, lams=lams, bias=bias)
            search = nc.search_deep_linear(
                counts, dimension=d, lams=lams, bias=bias, n_starts=8, seed=int(rng.integers(99))
            )
            assert bound <= search.objective
            assert bound == pytest.approx(
                nc.deep_linear_minimizer(counts, dimension=d, lams=lams, bias=bias).objective,
                rel=2e-10,
            )


# (classes, linear layers, weight decay, value of the pairs, value of the best ETF), both rounded
# away from the gap.
CHECKED = [
    (6, 2, 3e-3, 0.08040753, 0.0858314),
    (6, 2, 1e-2, 0.23546346, 0.2522387),
    (4, 3, 1e-2, 0.13989881, 0.1528773),
]


@pytest.mark.parametrize(("K", "M", "lam", "upper", "lower"), CHECKED)
def test_cross_polytope_beats_the_simplex_at_independently_computed_instances(
    K, M, lam, upper, lower
):
    n, lams = np.ones(K, int), equal_decay(lam, M)
    pairs = nc.best_scale(nc.simplex_sum_logits([2] * (K // 2)), n, lams)
    assert nc.certified_objective(pairs.features, pairs.layers, n, lams, loss="ce") <= upper
    assert nc.etf_bound(K, n_per_class=1, lams=lams) >= lower - 5e-8
    mirrored = np.block([[np.eye(K // 2), -np.eye(K // 2)], [-np.eye(K // 2), np.eye(K // 2)]])
    order = np.r_[0:K:2, 1:K:2]
    assert np.array_equal(nc.simplex_sum_logits([2] * (K // 2))[np.ix_(order, order)], mirrored)


def test_five_classes_and_two_layers():
    n, lams = np.ones(5, int), equal_decay(3e-3, 2)
    witness = nc.best_scale(nc.pairs_and_one_logits(5), n, lams)
    assert nc.certified_objective(
        witness.features, witness.layers, n, lams, loss="ce"
    ) < nc.etf_bound(5, n_per_class=1, lams=lams)
    found = nc.deep_linear_minimizer(n, dimension=5, lams=lams, loss="ce", n_starts=8)
    assert found.objective == pytest.approx(0.0679993, abs=5e-8)
    assert found.certificate is None


@pytest.mark.parametrize(("K", "n", "M"), [(3, 1, 2), (6, 2, 3), (10, 1, 4), (4, 5, 1)])
def test_etf_bound_is_the_minimum_over_scales(K, n, M):
    lams = 0.004 * np.exp(np.linspace(-0.5, 0.5, M + 1))
    L, product = M + 1, float(np.prod(lams))

    def value(s):
        return np.log1p((K - 1) * np.exp(-s)) + L / 2 * product ** (1 / L) * (K - 1) * (
            s * np.sqrt(n)
        ) ** (2 / L)

    grid = np.linspace(0, 40, 400001)
    least = value(grid).min()
    bound = nc.etf_bound(K, n_per_class=n, lams=lams)
    assert bound <= least
    assert bound == pytest.approx(least, rel=1e-8)
    etf = nc.best_scale(nc.simplex_sum_logits([K]), np.full(K, n), lams)
    assert bound <= etf.objective <= least * (1 + 1e-10)
    value_there = nc.deep_linear_objective(etf.features, etf.layers, np.full(K, n), lams, loss="ce")
    assert value_there == pytest.approx(etf.objective, rel=1e-12)


def test_no_etf_at_random_scale_with_random_bias_is_below_its_bound():
    rng = np.random.default_rng(6)
    lams, K = equal_decay(5e-3, 2), 4
    bound = nc.etf_bound(K, n_per_class=1, lams=lams)
    etf = nc.best_scale(nc.simplex_sum_logits([K]), np.ones(K, int), lams)
    for _ in range(50):
        scale = np.exp(0.1 * rng.normal())
        layers = [W * scale for W in etf.layers]
        bias = 0.3 * rng.normal(size=K) * rng.choice([0, 1])
        permuted = etf.class_features[:, rng.permutation(K) if rng.random() < 0.3 else np.arange(K)]
        value = nc.deep_linear_objective(
            permuted, layers, np.ones(K, int), lams, loss="ce", bias=bias
        )
        assert value >= bound


def test_one_layer_has_no_better_shape_than_the_simplex():
    K, lams = 6, np.array([0.01, 0.01])
    minimum = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(np.ones(K, int), lam_w=0.01, lam_h=0.01, loss="ce"), dimension=K
    ).objective
    assert nc.etf_bound(K, n_per_class=1, lams=lams) == pytest.approx(minimum, rel=2e-10)
    assert nc.simplex_sum_bound([2, 2, 2], n_per_class=1, lams=lams) > minimum
    assert nc.simplex_sum_bound([3, 3], n_per_class=1, lams=lams) > minimum


def test_price_of_blocks_is_the_schatten_sum():
    for blocks in ([2, 2, 2], [2, 3], [5], [1, 1, 2], [4, 3, 2]):
        for depth in (2, 3, 5):
            s = np.linalg.svd(nc.simplex_sum_logits(blocks), compute_uv=False)
            expected = np.sum(s[s > 1e-9] ** (2 / depth))
            assert nc.simplex_sum_price(blocks, depth) == pytest.approx(expected, rel=1e-12)


def test_pairs_are_cheaper_than_the_simplex_by_exact_powers():
    """r 2^(2/L) < 2 r - 1 iff 4 r^L < (2 r - 1)^L, in integers."""
    for L in range(2, 8):
        for r in range(1, 40):
            cheaper = 4 * r**L < (2 * r - 1) ** L
            assert cheaper == (nc.simplex_sum_price([2] * r, L) < 2 * r - 1)
            assert cheaper == ((L >= 3 and r >= 3) or (L >= 4 and r >= 2))


def test_gap_between_and_inside_blocks():
    blocks = [2, 3, 4]
    logits = nc.simplex_sum_logits(blocks)
    of = np.repeat(np.arange(3), blocks)
    gaps = np.diag(logits) - logits
    for j in range(9):
        for k in range(9):
            size = blocks[of[k]]
            expected = 0 if j == k else Fraction(size, size - 1) if of[j] == of[k] else 1
            assert gaps[j, k] == pytest.approx(float(expected), abs=1e-15)
    polygon = nc.polygon_logits(7)
    assert np.linalg.matrix_rank(polygon) == 2
    assert np.min((np.diag(polygon) - polygon)[~np.eye(7, dtype=bool)]) == pytest.approx(
        1.0, rel=1e-12
    )


def test_a_search_ends_at_its_target():
    counts, lams = (4, 2), equal_decay(1e-3, 3)
    every = nc.search_deep_linear(counts, dimension=2, lams=lams, n_starts=6)
    enough = nc.von_neumann_bound(counts, dimension=2, lams=lams) * (1 + 3e-10)
    found = nc.search_deep_linear(counts, dimension=2, lams=lams, n_starts=6, target=enough)
    first = int(np.argmax(every.ends <= enough))
    np.testing.assert_array_equal(found.ends, every.ends[: first + 1])
    assert found.objective == every.ends[first] <= enough
    unreached = nc.search_deep_linear(
        counts, dimension=2, lams=lams, n_starts=6, target=0.9 * enough
    )
    np.testing.assert_array_equal(unreached.ends, every.ends)


def test_the_bias_free_search_returns_the_simplex_for_three_classes():
    lams = equal_decay(1e-2, 3)
    bias_free = nc.search_deep_linear(
        np.ones(3, int), dimension=3, lams=lams, loss="ce", n_starts=10
    )
    assert bias_free.objective == pytest.approx(nc.etf_bound(3, n_per_class=1, lams=lams), rel=1e-9)
    free = nc.search_deep_linear(
        np.ones(3, int), dimension=3, lams=lams, loss="ce", bias=True, n_starts=20
    )
    assert free.objective == pytest.approx(0.0983814, abs=5e-8)


@pytest.mark.parametrize(("M", "level"), [(1, 0.3), (2, 0.1), (2, 0.97), (3, 0.6), (2, 1.5)])
def test_radius_of_the_logits_covers_every_move_and_is_attained(M, level):
    rng, L = np.random.default_rng(M), M + 1
    counts = np.array([7, 4, 2, 2])
    lam = (level * nc.jump_threshold(M) * 2.0**M / 15 ** (M + 1)) ** (1 / L)
    Y = np.repeat(np.eye(4), counts, axis=1)
    fits = np.diag(nc.collapse_ratio(level * nc.jump_threshold(M) * (2 / counts) ** M, M))

    def value(Z):
        s = np.linalg.svd(Z, compute_uv=False)
        return np.sum((Z - Y) ** 2) / 30 + L / 2 * lam * np.sum(s ** (2 / L))

    best, shares = fits @ Y, []
    moves = [np.diag(rng.standard_normal(4) * size) @ Y for size in (1e-4, 0.1, 1.0)]
    moves += [rng.standard_normal(Y.shape) * 0.1, np.diag([0, 0, 0, -fits[3, 3]]) @ Y]
    moves += [1e-4 * np.diag(row) @ Y for row in np.eye(4)]
    turn = np.linalg.qr(np.eye(4) + 0.03 * rng.standard_normal((4, 4)))[0]
    for move in [*moves, (turn * np.sign(np.diag(turn)) - np.eye(4)) @ best]:
        excess, distance = value(best + move) - value(best), np.linalg.norm(move)
        shares.append(
            distance / nc.von_neumann_radius(counts, np.full(L, lam), excess=excess + 1e-16)
        )
    assert max(shares) <= 1
    assert max(shares) > 0.6


def test_radius_close_to_a_jump_is_no_bound():
    lams = np.full(3, (2 * nc.jump_threshold(2) * 2 / 4**3) ** (1 / 3))
    far, at = (nc.von_neumann_radius([2, 2], lams * c, excess=1e-9) for c in (1.001, 1 + 1e-15))
    assert far < 1e-2
    assert at > 2  # the distance of the two minimizers is 1


def test_radius_covers_a_turn_of_the_last_survivor_towards_a_class_that_has_died():
    counts, angle = np.array([100, 99]), 0.1
    tau = nc.jump_threshold(2) * (100 / 99) / (np.array([100, 99]) / 99) ** 2
    lams = np.full(3, (tau[0] * 100**2 / 199**3) ** (1 / 3))
    p, sigma = nc.collapse_ratio(tau, 2) * np.sqrt(counts), np.sqrt(counts)
    assert p[1] == 0 < p[0]
    # The logits p u v' turn with both vectors; singular values, and so the penalty, stay.
    turned = np.array([np.cos(angle), np.sin(angle)])
    Z, best = p[0] * np.outer(turned, turned), np.diag(p)
    excess = (np.sum((Z - np.diag(sigma)) ** 2) - np.sum((best - np.diag(sigma)) ** 2)) / (2 * 199)
    radius = nc.von_neumann_radius(counts, lams, excess=excess)
    assert 0.5 * radius < np.linalg.norm(Z - best) <= radius
