"""Closed forms against semidefinite programs, constrained local search, polynomial roots and exact
arithmetic."""

from contextlib import nullcontext
from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest
from flint import fmpq, fmpq_mat
from scipy.optimize import minimize

from theorylab.convex_relu import (
    StartsStatus,
    _layer_descent,
    branch_dual_norm,
    certify_linear,
    certify_rank_one_relu,
    fit_factored,
    fit_penalized_biases,
    linear_minimum_norm,
    network_cost,
    network_output,
    parallel_relu_minimum_norm,
    rank_one_relu_minimum_norm,
    search_minimum_norm,
    shrink_singular_values,
    shrinkage_jump,
)
from theorylab.convex_relu._norm_certificates import _is_positive_definite
from theorylab.numerics.balls import rational, rational_matrix

FORMS = [
    (architecture, penalty)
    for architecture in ("standard", "parallel")
    for penalty in ("squared", "power")
]
C = np.array([1.0, 2.0, -1.0, 0.5, -0.3])


def data(seed, n=4, d=3, k=2):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, X @ rng.normal(size=(d, k))


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize(("architecture", "penalty"), FORMS)
def test_dual_value_is_the_value_of_the_semidefinite_program(depth, architecture, penalty):
    X, Y = data(depth)
    solution = linear_minimum_norm(X, Y, depth, architecture=architecture, penalty=penalty)
    multiplier = cp.Variable(Y.shape)
    gauge = cp.Problem(
        cp.Maximize(cp.sum(cp.multiply(multiplier, Y))), [cp.sigma_max(X.T @ multiplier) <= 1]
    ).solve(solver=cp.CLARABEL)
    expected = depth / 2 * (gauge ** (2 / depth) if penalty == "squared" else gauge)
    assert solution.dual == pytest.approx(expected, rel=1e-6)
    assert np.linalg.norm(X.T @ solution.dual_point, 2) == pytest.approx(1)
    assert np.sum(solution.dual_point * Y) == pytest.approx(gauge, rel=1e-6)


@pytest.mark.parametrize(("architecture", "penalty"), FORMS)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_local_search_ends_at_the_linear_primal_value(depth, architecture, penalty):
    X, Y = data(7, n=3, d=2, k=2)
    solution = linear_minimum_norm(X, Y, depth, architecture=architecture, penalty=penalty)
    width = 1 if (architecture, penalty) == ("parallel", "power") else 2
    found = search_minimum_norm(
        X,
        Y,
        [width] * (depth - 1),
        n_branches=2 if architecture == "parallel" else 1,
        penalty=penalty,
        n_starts=6,
    )
    assert found.primal == pytest.approx(solution.primal, rel=1e-7)


@pytest.mark.parametrize(("architecture", "penalty"), FORMS)
@pytest.mark.parametrize("gamma", [1.0, 0.3, -0.3, -1.0])
def test_local_search_ends_at_the_rank_one_relu_primal_value(gamma, architecture, penalty):
    a = np.array([1.2])
    y = np.maximum(C, 0) + gamma * np.maximum(-C, 0)
    solution = rank_one_relu_minimum_norm(
        C, a, alpha=1.0, gamma=gamma, architecture=architecture, penalty=penalty
    )
    n_branches = 2 if architecture == "parallel" else 1
    found = search_minimum_norm(
        C[:, None] * a,
        y[:, None],
        [3, 2],
        n_branches=n_branches,
        activation="relu",
        penalty=penalty,
        n_starts=8,
    )
    assert found.primal == pytest.approx(solution.primal, rel=1e-7)
    zero_gap = gamma > 0 or (architecture, penalty) == ("parallel", "power")
    assert (abs(solution.gap) < 1e-14) == zero_gap


def test_search_result_is_consistent():
    X, Y = data(1)
    found = search_minimum_norm(X, Y, [3], n_starts=4, seed=5)
    assert network_cost(found.branches) == found.primal == found.ends.min()
    np.testing.assert_allclose(network_output(X, found.branches), Y, atol=1e-7)
    # A value that a start attains ends the search there.
    first = search_minimum_norm(X, Y, [3], n_starts=4, target=float(found.ends[0]), seed=5)
    np.testing.assert_array_equal(first.ends, found.ends[:1])
    beyond = search_minimum_norm(X, Y, [3], n_starts=4, target=0.9 * found.primal, seed=5)
    np.testing.assert_array_equal(beyond.ends, found.ends)
    infeasible = search_minimum_norm([[1.0], [1.0]], [[1.0], [2.0]], [2], n_starts=2)
    assert np.isinf(infeasible.primal)
    assert infeasible.branches == ()


def test_rank_one_relu_values_by_hand():
    opposite = rank_one_relu_minimum_norm(C, [1.0], alpha=1.0, gamma=-1.0)
    assert opposite.primal == pytest.approx(3, rel=1e-15)
    assert opposite.dual == pytest.approx(1.5 * 2 ** (2 / 3), rel=1e-15)
    parallel = rank_one_relu_minimum_norm(
        C, [1.0], alpha=1.0, gamma=-1.0, architecture="parallel", penalty="power"
    )
    assert parallel.primal == pytest.approx(3, rel=1e-15)
    assert parallel.dual == pytest.approx(3, rel=1e-15)


@pytest.mark.parametrize(("architecture", "penalty"), FORMS)
@pytest.mark.parametrize(
    ("alpha", "gamma"), [(1.0, 0.4), (-2.0, 0.7), (-1.0, -1.0), (0.0, 0.5), (0.0, 0.0)]
)
def test_rank_one_relu_weights_fit_and_certificate_brackets(alpha, gamma, architecture, penalty):
    a = np.array([0.3, -1.1, 0.4])
    solution = rank_one_relu_minimum_norm(
        C, a, alpha=alpha, gamma=gamma, architecture=architecture, penalty=penalty
    )
    fitted = network_output(np.outer(C, a), solution.branches, activation="relu")[:, 0]
    np.testing.assert_allclose(
        fitted, alpha * np.maximum(C, 0) + gamma * np.maximum(-C, 0), atol=1e-14
    )
    certificate = certify_rank_one_relu(
        C, a, solution.branches, solution.dual_point, penalty=penalty
    )
    assert certificate.lower <= certificate.upper
    np.testing.assert_allclose(
        [certificate.upper, certificate.lower], [solution.primal, solution.dual], rtol=1e-13
    )
    if (architecture, penalty) == ("parallel", "power") or alpha * gamma >= 0:
        assert certificate.gap <= 1e-13


@pytest.mark.parametrize(("architecture", "penalty"), FORMS)
def test_linear_weights_fit_and_certificate_brackets(architecture, penalty):
    for depth in (2, 3, 4):
        X, Y = data(depth + 10, n=6, d=4, k=3)
        solution = linear_minimum_norm(X, Y, depth, architecture=architecture, penalty=penalty)
        np.testing.assert_allclose(network_output(X, solution.branches), Y, atol=1e-12)
        certificate = certify_linear(X, solution.branches, solution.dual_point, penalty=penalty)
        np.testing.assert_allclose(
            [certificate.upper, certificate.lower], [solution.primal, solution.dual], rtol=1e-12
        )
        if depth == 2 or (architecture, penalty) == ("parallel", "power"):
            assert certificate.gap <= 1e-12


def test_no_network_beats_the_certified_bound_of_its_own_outputs():
    rng = np.random.default_rng(3)
    for _ in range(40):
        depth, width, n_branches = rng.integers(2, 5), rng.integers(1, 4), rng.integers(1, 4)
        widths = [3, *[width] * (depth - 1), 2]
        branches = [
            [rng.normal(size=shape) for shape in pairwise(widths)] for _ in range(n_branches)
        ]
        X = rng.normal(size=(5, 3))
        best = linear_minimum_norm(X, network_output(X, branches), int(depth)).dual_point
        for penalty in ("squared", "power"):
            for dual_point in (best, rng.normal(size=(5, 2))):
                certificate = certify_linear(X, branches, dual_point, penalty=penalty)
                assert certificate.lower <= certificate.upper


def test_tampering_with_the_weights_or_the_multiplier_opens_the_gap():
    X, Y = data(5)
    solution = linear_minimum_norm(X, Y, 3, architecture="parallel", penalty="power")
    first, *others = solution.branches
    unbalanced = ((first[0] * 1.1, *first[1:-1], first[-1] / 1.1), *others)
    assert certify_linear(X, unbalanced, solution.dual_point, penalty="power").gap > 1e-3
    skewed = solution.dual_point * np.array([1.0, 1.05])
    assert certify_linear(X, solution.branches, skewed, penalty="power").gap > 1e-3
    assert certify_linear(X, solution.branches, -solution.dual_point, penalty="power").lower == 0


@pytest.mark.parametrize(("architecture", "penalty"), FORMS)
def test_values_scale_and_ignore_rotations_and_spare_inputs(architecture, penalty):
    rng = np.random.default_rng(11)
    X, Y = data(11)
    options = {"architecture": architecture, "penalty": penalty}
    base = linear_minimum_norm(X, Y, 3, **options)
    exponent = 2 / 3 if penalty == "squared" else 1
    scaled = linear_minimum_norm(X, 5 * Y, 3, **options)
    turned = linear_minimum_norm(X @ np.linalg.qr(rng.normal(size=(3, 3)))[0], Y, 3, **options)
    padded = linear_minimum_norm(
        np.hstack([X, np.zeros((4, 2))]), np.hstack([Y, np.zeros((4, 1))]), 3, **options
    )
    for other, factor in ((scaled, 5**exponent), (turned, 1), (padded, 1)):
        np.testing.assert_allclose(
            [other.primal, other.dual], factor * np.array([base.primal, base.dual]), rtol=1e-10
        )


def test_rank_one_targets_leave_no_gap():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(5, 4))
    Y = X @ np.outer(rng.normal(size=4), rng.normal(size=3))
    for depth in (3, 4, 6):
        assert abs(linear_minimum_norm(X, Y, depth).gap) < 1e-12


def test_outputs_outside_the_range_are_refused():
    with pytest.raises(ValueError, match="Y: expected a matrix in the range of X"):
        linear_minimum_norm([[1.0], [1.0]], [[1.0], [2.0]], 3)
    with pytest.raises(ValueError, match="c: expected entries of both signs"):
        rank_one_relu_minimum_norm([1.0, 2.0], [1.0], alpha=1.0, gamma=1.0)
    with pytest.raises(ValueError, match="branches"):
        network_output(np.eye(2), (((np.eye(2)), np.ones((3, 1))),))


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_shrinkage_is_the_best_root_of_the_stationarity_polynomial(depth):
    beta = 0.4
    sigma = np.linspace(0, 4, 61)
    shrunk = shrink_singular_values(sigma, beta, depth=depth)
    for target, found in zip(sigma, shrunk, strict=True):
        # With u = s^(1/L) stationarity reads u^(2L-2) - sigma u^(L-2) + beta = 0.
        coefficients = np.zeros(2 * depth - 1)
        coefficients[0] += 1
        coefficients[depth] -= target
        coefficients[-1] += beta
        roots = np.roots(coefficients)
        candidates = np.append(
            roots[(abs(roots.imag) < 1e-9) & (roots.real > 0)].real ** depth, 0.0
        )
        values = 0.5 * (candidates - target) ** 2 + beta * depth / 2 * candidates ** (2 / depth)
        assert found == pytest.approx(candidates[values.argmin()], abs=1e-9)


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_both_sides_of_the_jump_have_equal_value_at_the_threshold(depth):
    jump = shrinkage_jump(0.7, depth=depth)
    at_zero = 0.5 * jump.threshold**2
    at_height = 0.5 * (jump.height - jump.threshold) ** 2 + 0.7 * depth / 2 * jump.height ** (
        2 / depth
    )
    assert at_height == pytest.approx(at_zero, rel=1e-14)
    below, above = shrink_singular_values(
        jump.threshold * np.array([1 - 1e-9, 1 + 1e-9]), 0.7, depth=depth
    )
    assert below == 0
    assert above == pytest.approx(jump.height, rel=1e-8)


def test_shrinkage_is_what_weight_decay_does_to_a_factorized_matrix():
    target = np.diag([2.0, 1.2, 0.1])
    beta, depth, rng = 0.3, 3, np.random.default_rng(0)

    def objective(theta):
        A, B, D = theta.reshape(3, 3, 3)
        residual = A @ B @ D - target
        gradient = [residual @ (B @ D).T, A.T @ residual @ D.T, (A @ B).T @ residual]
        return 0.5 * np.sum(residual**2) + beta / 2 * theta @ theta, (
            np.stack(gradient) + beta * theta.reshape(3, 3, 3)
        ).ravel()

    best = min(
        (
            minimize(
                objective,
                rng.normal(size=27),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": 3000, "ftol": 1e-15},
            )
            for _ in range(10)
        ),
        key=lambda result: result.fun,
    )
    A, B, D = best.x.reshape(3, 3, 3)
    expected = shrink_singular_values(np.diag(target), beta, depth=depth)
    np.testing.assert_allclose(np.linalg.svd(A @ B @ D)[1], expected, atol=1e-5)


@pytest.mark.parametrize(("depth", "beta"), [(2, 0.4), (3, 0.3), (4, 0.1)])
def test_factored_descent_is_the_scalar_problem_on_a_grid(depth, beta):
    sigma, grid = 1.2, np.linspace(0, 2, 200001)
    fit = fit_factored(np.eye(1), [[sigma]], beta, depth=depth)
    values = 0.5 * (grid - sigma) ** 2 + beta * depth / 2 * grid ** (2 / depth)
    assert fit.objective == pytest.approx(values.min(), abs=1e-8)
    assert fit.outputs[0, 0] == pytest.approx(grid[values.argmin()], abs=2e-4)
    assert fit.objective == fit.ends.min()
    own = 0.5 * (fit.outputs[0, 0] - sigma) ** 2 + beta / 2 * sum(np.sum(W**2) for W in fit.layers)
    assert own == pytest.approx(fit.objective, rel=1e-12)


def test_factored_descent_with_relu_is_the_optimum_of_one_input_and_bias():
    rng = np.random.default_rng(1)
    x, y, beta = rng.normal(size=5), rng.normal(size=5), 0.3
    exact = fit_penalized_biases(x, y, beta).objective
    rows = np.column_stack([x, np.ones(5)])
    fit = fit_factored(rows, y[:, None], beta, depth=2, width=8, relu=True, n_random=6)
    assert exact * (1 - 1e-9) <= fit.objective <= exact * (1 + 1e-6)


def test_a_shift_just_below_the_spectral_norm_is_refused():
    gram = fmpq_mat([[2, 1], [1, 2]])
    assert _is_positive_definite(fmpq(301, 100), gram)
    assert not _is_positive_definite(fmpq(299, 100), gram)
    # The largest eigenvalue is 3 exactly.
    assert not _is_positive_definite(fmpq(3), gram)
    assert not _is_positive_definite(fmpq(3) - fmpq(1, 10**30), gram)
    assert _is_positive_definite(fmpq(3) + fmpq(1, 10**30), gram)


def has_positive_minors(shift, gram):
    """Sylvester's criterion for ``shift I - gram`` in rationals."""
    n = gram.nrows()
    rows = [[(shift if i == j else fmpq(0)) - gram[i, j] for j in range(n)] for i in range(n)]
    return all(fmpq_mat([row[:k] for row in rows[:k]]).det() > 0 for k in range(1, n + 1))


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e150])
def test_the_lower_bound_holds_in_rational_arithmetic_and_hardly_more_would(scale):
    rng = np.random.default_rng(8)
    for k in range(12):
        X, W = rng.normal(size=(6, 5)), rng.normal(size=(5, 4))
        multiplier = np.linalg.qr(rng.normal(size=(6, 4)))[0]
        multiplier[:, 0] *= k % 2
        branch = (W, np.eye(4))
        lower = certify_linear(scale * X, [branch], multiplier).lower
        inputs = rational_matrix(scale * X)
        product = inputs.transpose() * rational_matrix(multiplier)
        inner = sum(
            (p * q for p, q in zip(product.entries(), rational_matrix(W).entries(), strict=True)),
            fmpq(0),
        )
        if inner <= 0:
            assert lower == 0
            continue
        # Two layers: the bound is <Lambda, Y> / ||X^T Lambda||.
        gram = product.transpose() * product
        assert has_positive_minors((inner / rational(lower)) ** 2, gram)
        assert not has_positive_minors((inner / rational(lower * (1 + 1e-14))) ** 2, gram)


def test_the_rank_one_certificate_looks_at_both_half_lines():
    rng = np.random.default_rng(9)
    for alpha, gamma in ((1.0, 0.1), (0.1, 1.0), (-1.0, 0.3), (0.2, -1.0)):
        best = rank_one_relu_minimum_norm(C, [1.0], alpha=alpha, gamma=gamma)
        for half in (C > 0, C < 0):
            multiplier = best.dual_point * np.where(half, 100.0, 1.0)[:, None]
            bounds = certify_rank_one_relu(C, [1.0], best.branches, multiplier)
            assert bounds.lower <= bounds.upper
        for multiplier in rng.normal(size=(20, C.size, 1)):
            bounds = certify_rank_one_relu(C, [1.0], best.branches, multiplier)
            assert bounds.lower <= best.dual * (1 + 1e-14)


@pytest.mark.parametrize(("architecture", "penalty"), FORMS)
def test_slopes_whose_product_underflows_have_opposite_signs_all_the_same(architecture, penalty):
    options = {"architecture": architecture, "penalty": penalty}
    small = rank_one_relu_minimum_norm(C, [1.0], alpha=1e-200, gamma=-2e-200, **options)
    unit = rank_one_relu_minimum_norm(C, [1.0], alpha=1.0, gamma=-2.0, **options)
    factor = 1e-200 ** (2 / 3 if penalty == "squared" else 1)
    assert small.primal == pytest.approx(factor * unit.primal, rel=1e-12)
    fitted = network_output(C[:, None], small.branches, activation="relu")[:, 0]
    expected = np.maximum(C, 0) - 2 * np.maximum(-C, 0)
    np.testing.assert_allclose(fitted * 1e200, expected, rtol=1e-12)


@pytest.mark.parametrize("depth", [3, 4])
def test_factored_descent_stays_in_the_valley_just_above_the_jump(depth):
    jump = shrinkage_jump(0.3, depth=depth)
    for excess in (1.002, 1.01, 1.05, 1.1):
        sigma = excess * jump.threshold
        fit = fit_factored(np.eye(1), [[sigma]], 0.3, depth=depth)
        expected = shrink_singular_values([sigma], 0.3, depth=depth)[0]
        assert fit.outputs[0, 0] == pytest.approx(expected, rel=1e-4)
        assert expected > 0.9 * jump.height


@pytest.mark.parametrize("size", [1e-6, 1e6])
@pytest.mark.parametrize("depth", [2, 3])
def test_factored_descent_does_not_depend_on_units(size, depth):
    X, Y = data(3)
    base = fit_factored(X, Y, 0.3, depth=depth)
    # Layers scale as the root of the outputs.
    scaled = fit_factored(X, size * Y, 0.3 * size ** (2 - 2 / depth), depth=depth)
    assert scaled.objective == pytest.approx(size**2 * base.objective, rel=1e-8)
    np.testing.assert_allclose(scaled.outputs, size * base.outputs, atol=1e-4 * size)


def test_a_stopped_search_keeps_what_it_found():
    X, Y = data(1)
    whole = search_minimum_norm(X, Y, [3], n_starts=4, seed=5)
    seen = []
    search_minimum_norm(X, Y, [3], n_starts=1, seed=5, callback=seen.append)
    assert [record.iteration for record in seen] == list(range(1, len(seen) + 1))
    # The last descent of a start ends at the fit.
    assert seen[-1].error <= 1e-9 < seen[0].error
    assert seen[-1].objective == whole.ends[0]
    with pytest.warns(RuntimeWarning, match="by the callback"):
        early = search_minimum_norm(
            X, Y, [3], n_starts=4, seed=5, callback=lambda r: r.error <= 1e-9
        )
    np.testing.assert_array_equal(early.ends, whole.ends[:1])
    with pytest.warns(RuntimeWarning, match="by the callback"):
        none = search_minimum_norm(X, Y, [3], n_starts=4, seed=5, callback=lambda r: True)
    assert np.isinf(none.ends).all()
    assert none.branches == ()
    assert whole.status is StartsStatus.COMPLETE
    assert early.status is none.status is StartsStatus.STOPPED
    fit = fit_factored(X, Y, 0.3, depth=3)
    values = []
    with pytest.warns(RuntimeWarning, match="by the callback"):
        third = fit_factored(
            X, Y, 0.3, depth=3, callback=lambda r: values.append(r.objective) or r.iteration == 3
        )
    assert fit.status is StartsStatus.COMPLETE
    assert third.status is StartsStatus.STOPPED
    np.testing.assert_array_equal(third.ends, fit.ends[:3])
    np.testing.assert_array_equal(values, np.minimum.accumulate(fit.ends[:3]))
    assert third.objective == values[-1]


def warns_if(early):
    return pytest.warns(RuntimeWarning, match="max_evaluations") if early else nullcontext()


def test_a_search_ends_where_its_evaluations_do():
    X, Y = data(1)
    whole = search_minimum_norm(X, Y, [3], n_starts=4, seed=5)
    for most in (1, 10, 300, 10**6):
        with warns_if(most < 10**6):
            part = search_minimum_norm(X, Y, [3], n_starts=4, seed=5, max_evaluations=most)
        made = np.isfinite(part.ends)
        assert part.status.name == ("EVALUATIONS" if most < 10**6 else "COMPLETE")
        np.testing.assert_array_equal(part.ends[made], whole.ends[: len(part.ends)][made])
        assert made.all() or not made[-1]
        assert made.any() == (most > 100)
        assert len(part.ends) < 4 or most == 10**6
    found = search_minimum_norm(X, Y, [3], n_starts=4, target=float(whole.ends[0]), seed=5)
    assert found.status is StartsStatus.TARGET


def test_factored_descent_ends_where_its_evaluations_do():
    X, Y = data(3)
    whole = fit_factored(X, Y, 0.3, depth=3)
    for most in (1, 20, 150, 10**6):
        with warns_if(most < 10**6):
            part = fit_factored(X, Y, 0.3, depth=3, max_evaluations=most)
        assert part.status.name == ("EVALUATIONS" if most < 10**6 else "COMPLETE")
        # All but the last of the starts ended as without a budget.
        np.testing.assert_array_equal(part.ends[:-1], whole.ends[: len(part.ends) - 1])
        assert part.ends[-1] >= whole.ends[len(part.ends) - 1]
        assert part.objective == part.ends.min()
        squares = sum(np.sum(W**2) for W in part.layers)
        own = 0.5 * np.sum((part.outputs - Y) ** 2) + 0.15 * squares
        assert own == pytest.approx(part.objective, rel=1e-12)


def test_the_default_budget_of_evaluations_is_what_takes_a_minute(monkeypatch):
    costs = []

    def forty(nanoseconds, most):
        costs.append(nanoseconds)
        return 40

    monkeypatch.setattr(_layer_descent, "steps_in_a_minute", forty)
    rng = np.random.default_rng(0)
    for n, width in ((30, 3), (300, 30)):
        X, Y = rng.normal(size=(n, 5)), rng.normal(size=(n, 3))
        with pytest.warns(RuntimeWarning, match="max_evaluations"):
            fit_factored(X, Y, 0.1, depth=4, width=width, relu=True)
        with pytest.warns(RuntimeWarning, match="max_evaluations"):
            search_minimum_norm(X, Y, [width] * 3, activation="relu", n_branches=2)
    small, _, large, branched = costs
    assert 5 * small < large < branched


def test_parallel_relu_program_by_hand():
    # One unit of weight (1, 1) fits both outputs; on one input of length 2, |v| = y / 2.
    assert parallel_relu_minimum_norm(np.eye(2), [1.0, 1.0]).primal == pytest.approx(
        1.5 * np.sqrt(2), rel=1e-6
    )
    assert parallel_relu_minimum_norm([[0.0, 2.0]], [-3.0]).primal == pytest.approx(2.25, rel=1e-6)
    # Outputs of opposite signs cost their sum, in parallel.
    opposite = parallel_relu_minimum_norm(np.eye(2), [1.0, -1.0])
    assert opposite.primal == pytest.approx(3.0, rel=1e-6)
    assert opposite.dual == pytest.approx(3.0, rel=1e-6)
    with pytest.raises(ValueError, match="fits them"):
        parallel_relu_minimum_norm([[1.0], [2.0]], [1.0, 1.0])
    with pytest.raises(ValueError, match="at most 6"):
        branch_dual_norm(np.ones((7, 1)), np.ones(7))


@pytest.mark.parametrize("seed", [0, 1])
def test_parallel_relu_network_is_balanced_fits_and_meets_its_dual(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(3, 2)), 7 * rng.normal(size=3)
    best = parallel_relu_minimum_norm(X, y)
    out = network_output(X, best.branches, activation="relu")[:, 0]
    np.testing.assert_allclose(out, y, atol=1e-5 * np.abs(y).max())
    assert network_cost(best.branches, penalty="power") == pytest.approx(best.primal, rel=1e-5)
    assert best.dual == pytest.approx(best.primal, rel=1e-5)
    assert best.dual == pytest.approx(1.5 * float(best.dual_point[:, 0] @ y), rel=1e-12)
    assert branch_dual_norm(X, best.dual_point[:, 0]) == pytest.approx(1.0, rel=1e-5)
    for branch in best.branches:
        norms = [np.linalg.norm(W) for W in branch]
        np.testing.assert_allclose(norms, norms[0], rtol=1e-9)


def test_no_branch_passes_the_dual_norm_and_search_comes_close():
    rng = np.random.default_rng(4)
    X, multiplier = rng.normal(size=(4, 2)), rng.normal(size=4)
    norm = branch_dual_norm(X, multiplier)

    def value(flat):
        W1, W2 = flat[:8].reshape(2, 4), flat[8:]
        out = multiplier @ np.maximum(np.maximum(X @ W1, 0) @ W2, 0)
        return -abs(out) / (np.linalg.norm(W1) * np.linalg.norm(W2))

    found = max(-minimize(value, w).fun for w in rng.normal(size=(30, 12)))
    assert 0.98 * norm < found < norm * (1 + 1e-6)
    assert branch_dual_norm(X, -3 * multiplier) == pytest.approx(3 * norm, rel=1e-5)
