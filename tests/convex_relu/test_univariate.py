"""Exact fits against cvxpy, the mean-field dual against adaptive quadrature and particles, splines
against linear programs."""

from dataclasses import replace
from itertools import pairwise, product

import cvxpy as cp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import linprog, minimize

from theorylab.convex_relu import (
    Knots,
    _mean_field,
    _particles,
    balance,
    certificate_knots,
    descend_particles,
    fit_penalized_biases,
    maurey_errors,
    maurey_mean_squared_error,
    mean_field_fit,
    minimal_path_norm,
    minimal_path_norm_network,
    path_norm,
    sample_particles,
    train,
)
from theorylab.convex_relu._sinusoids import arcs, peaks
from theorylab.convex_relu.univariate import Status

X = np.array([-1.5, -0.3, 0.4, 1.3])
Y = np.array([0.5, -1.0, 0.2, -1.2])


def h_on(x, z, phi):
    return z @ np.maximum(np.outer(x, np.cos(phi)) + np.sin(phi), 0)


@pytest.mark.parametrize("seed", range(6))
def test_exact_fit_agrees_with_the_program_over_all_activation_patterns(seed):
    rng = np.random.default_rng(seed)
    x, y, beta = rng.normal(size=5), rng.normal(size=5), 10 ** rng.uniform(-2, 0)
    rows = np.column_stack([x, np.ones_like(x)])
    angles = np.linspace(0, 2 * np.pi, 20001)
    patterns = np.unique(rows @ np.array([np.cos(angles), np.sin(angles)]) > 0, axis=1).T
    prediction, norms, constraints = 0, 0, []
    for pattern in patterns:
        for sign in (1, -1):
            v = cp.Variable(2)
            prediction = prediction + sign * cp.multiply(pattern, rows @ v)
            norms = norms + cp.norm(v)
            constraints.append(cp.multiply(2 * pattern - 1, rows @ v) >= 0)
    objective = 0.5 * cp.sum_squares(prediction - y) + beta * norms
    expected = cp.Problem(cp.Minimize(objective), constraints).solve(solver=cp.CLARABEL)
    fit = fit_penalized_biases(x, y, beta)
    assert fit.objective == pytest.approx(expected, rel=1e-6)
    assert abs(fit.gap) < 1e-10


@pytest.mark.parametrize("n", [4, 25])
def test_exact_fit_agrees_with_the_solver_for_any_dimension(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n), rng.normal(size=n)
    solution = train(np.column_stack([x, np.ones(n)]), y, 0.1)
    assert fit_penalized_biases(x, y, 0.1).objective == pytest.approx(solution.objective, rel=1e-7)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_exact_fit_is_certified_on_a_dense_grid(n):
    rng = np.random.default_rng(n)
    x, y, beta = rng.normal(size=n), rng.normal(size=n), 0.05
    fit = fit_penalized_biases(x, y, beta)
    assert fit.status is Status.SOLVED
    assert np.abs(h_on(x, fit.residual, np.linspace(0, 2 * np.pi, 20000))).max() <= beta * (
        1 + 1e-9
    )
    net = fit.network
    np.testing.assert_allclose(net(x), y - fit.residual, atol=1e-12)
    decay = 0.5 * np.sum(net.weights**2 + net.biases**2 + net.output_weights**2)
    assert 0.5 * np.sum((net(x) - y) ** 2) + beta * decay == pytest.approx(fit.objective, rel=1e-12)


def test_no_local_search_beats_the_exact_fit():
    rng = np.random.default_rng(0)
    fit = fit_penalized_biases(X, Y, 0.1)

    def objective(theta):
        a, w, b = theta.reshape(3, 6)
        return 0.5 * np.sum((np.maximum(np.outer(X, w) + b, 0) @ a - Y) ** 2) + 0.05 * theta @ theta

    ends = [minimize(objective, rng.normal(size=18), method="L-BFGS-B").fun for _ in range(8)]
    assert min(ends) >= fit.dual_objective


def test_strong_weight_decay_gives_the_zero_network():
    threshold = np.abs(h_on(X, Y, np.linspace(0, 2 * np.pi, 200001))).max()
    assert fit_penalized_biases(X, Y, threshold * (1 + 1e-6)).network.weights.size == 0
    assert fit_penalized_biases(X, Y, threshold * (1 - 1e-4)).network.weights.size > 0


def test_certificate_knots_contain_those_of_the_network_and_obey_the_gap_bounds():
    rng = np.random.default_rng(4)
    interior = 0
    for _ in range(60):
        x, y = rng.normal(size=6), rng.normal(size=6)
        fit = fit_penalized_biases(x, y, 0.05)
        knots = certificate_knots(x, fit.residual, 0.05)
        heavy = np.abs(fit.network.output_weights) > 1e-3
        for place in fit.network.knots[heavy & (np.abs(fit.network.weights) > 1e-6)]:
            # |h| is flat at its maximum: a relative gap of 1e-10 fixes the angle of a unit to its
            # square root.
            assert np.min(np.abs(knots.position - place)) <= 1e-4 * (1 + place**2)
        opened, closed = knots.per_gap(x)
        assert opened.max() <= 2
        assert closed.max() <= 3
        assert np.all((opened < 2) | (closed == 2))
        interior += opened.sum()
    assert interior > 0


def test_certificate_knots_are_local_maxima_with_their_side_and_sign():
    rng = np.random.default_rng(4)
    on_data = 0
    for _ in range(60):
        x, y = rng.normal(size=6), rng.normal(size=6)
        residual = fit_penalized_biases(x, y, 0.05).residual
        # Far below the threshold maxima beside a data point are among those that count.
        for tol in (1e-9, 0.5):
            knots = certificate_knots(x, residual, 0.05, tol=tol)
            phi = np.where(knots.right, 0.0, np.pi) - np.arctan(knots.position)
            height = knots.sign * h_on(x, residual, phi)
            assert height.min() >= 0.05 * (1 - 1.01 * tol)
            for near in (-1e-5, 1e-5):
                assert (height >= knots.sign * h_on(x, residual, phi + near) - 1e-14).all()
            at = knots.on_data >= 0
            np.testing.assert_array_equal(x[knots.on_data[at]], knots.position[at])
            on_data += at.sum()
        # Values a little below the penalty count up to the tolerance only.
        shrunk = residual * (1 - 1e-7)
        assert certificate_knots(x, shrunk, 0.05).position.size == 0
        assert certificate_knots(x, shrunk, 0.05, tol=1e-6).position.size > 0
    assert on_data > 0


def test_reflected_data_have_the_reflected_fit():
    fit, mirrored = fit_penalized_biases(X, Y, 0.05), fit_penalized_biases(-X, Y, 0.05)
    np.testing.assert_allclose(mirrored.residual, fit.residual, atol=1e-10)
    knots = certificate_knots(X, fit.residual, 0.05)
    reflected = certificate_knots(-X, mirrored.residual, 0.05)
    np.testing.assert_allclose(np.sort(-reflected.position), np.sort(knots.position), atol=1e-8)
    assert sorted(~reflected.right) == sorted(knots.right)


def test_repeated_inputs_count_once():
    fit = fit_penalized_biases(X, Y, 0.05)
    twice = fit_penalized_biases(np.append(X, X[1]), np.append(Y, Y[1]), 0.05)
    knots = certificate_knots(np.append(X, X[1]), twice.residual, 0.05)
    assert knots.per_gap(np.append(X, X[1]))[0].size == 3
    assert knots.position.size > 0
    phi = np.where(knots.right, 0.0, np.pi) - np.arctan(knots.position)
    height = knots.sign * h_on(np.append(X, X[1]), twice.residual, phi)
    np.testing.assert_allclose(height, 0.05, rtol=1e-9)
    moved = fit_penalized_biases(np.append(X, X[1] + 1e-9), np.append(Y, Y[1]), 0.05)
    assert twice.objective == pytest.approx(moved.objective, rel=1e-6)
    assert twice.objective > fit.objective


@pytest.mark.parametrize(("beta", "temperature"), [(0.4, 0.05), (0.1, 1.0), (0.05, 1e-3)])
def test_mean_field_residual_is_stationary_under_adaptive_quadrature(beta, temperature):
    fit = mean_field_fit(X, Y, beta, temperature=temperature)
    z = fit.residual
    bends = np.sort(np.concatenate([-np.arctan(X), np.pi - np.arctan(X)]))

    def average(i):
        def weight(phi, power):
            h = h_on(X, z, np.array([phi]))[0]
            kappa = beta - h**2 / beta
            feature = max(X[i] * np.cos(phi) + np.sin(phi), 0)
            return 1 / kappa if power == 0 else 2 * h * feature / (beta * kappa**2)

        edges = np.concatenate([bends, bends[:1] + 2 * np.pi])
        total = [
            sum(quad(weight, lo, hi, args=(p,), limit=400)[0] for lo, hi in pairwise(edges))
            for p in (0, 1)
        ]
        return total[1] / total[0]

    predicted = temperature * np.array([average(i) for i in range(X.size)])
    np.testing.assert_allclose(predicted, Y - z, atol=1e-8)
    np.testing.assert_allclose(fit(X), Y - z, atol=1e-8)
    assert fit.quadrature_error < 1e-12


def test_mean_field_matches_particles_up_to_their_number():
    beta, temperature = 0.4, 0.2
    fit = mean_field_fit(X, Y, beta, temperature=temperature)
    runs = np.array(
        [
            sample_particles(
                X,
                Y,
                beta,
                temperature=temperature,
                n_particles=40,
                n_sweeps=4000,
                burn_in=1500,
                seed=s,
            )
            for s in range(12)
        ]
    )
    error = runs.std(axis=0, ddof=1) / np.sqrt(12)
    infinite = Y - fit.residual
    np.testing.assert_array_less(
        np.abs(runs.mean(axis=0) - infinite - fit.finite_size_shift() / 40), 5 * error + 1e-3
    )
    assert np.abs(fit.finite_size_shift() / 40).max() > 5 * error.min()


def test_finite_size_shift_of_one_input_by_adaptive_quadrature():
    x, y, beta, temperature, step = 0.7, -1.3, 0.5, 0.3, 0.02
    fit = mean_field_fit([x], [y], beta, temperature=temperature)
    bend = -np.arctan(x)
    ends = (bend, bend + np.pi, bend + 2 * np.pi)

    def log_partition(tilt):
        def barrier(t):
            h = temperature * tilt * max(x * np.cos(t) + np.sin(t), 0)
            return 1 / (beta - h**2 / beta)

        return np.log(sum(quad(barrier, *e, epsabs=1e-13, epsrel=1e-13)[0] for e in pairwise(ends)))

    tilt = fit.residual[0] / temperature
    at = [log_partition(tilt + k * step) for k in range(-3, 4)]
    second = np.dot(at, [2, -27, 270, -490, 270, -27, 2]) / (180 * step**2)
    third = np.dot(at, [1, -8, 13, 0, -13, 8, -1]) / (8 * step**3)
    # The rate function has the second derivative 1 / second and the third -third / second^3.
    inverse = 1 / (1 / second + 1 / temperature)
    shift = -0.5 * inverse * third / second**3 * (second - inverse)
    np.testing.assert_allclose(fit.finite_size_shift(), shift, rtol=1e-3)


def test_knots_on_data_count_in_both_gaps_that_they_end():
    knots = Knots(
        np.array([1.0, 0.5]), np.array([True, False]), np.array([1.0, -1.0]), np.array([1, -1])
    )
    opened, closed = knots.per_gap([0.0, 1.0, 2.0])
    assert opened.tolist() == [1, 0]
    assert closed.tolist() == [2, 1]


def test_knots_of_both_orientations_at_one_place_count_once():
    knots = Knots(
        np.array([0.5, 0.5, 1.5]), np.array([True, False, False]), np.ones(3), np.full(3, -1)
    )
    opened, closed = knots.per_gap([2.0, 0.0, 1.0])
    assert opened.tolist() == closed.tolist() == [1, 1]


def test_a_unit_that_never_bends_has_no_knot():
    # By symmetry the optimum is constant, the unit b > 0 with w = 0.
    fit = fit_penalized_biases([-1.0, 1.0], [1.0, 1.0], 0.5)
    np.testing.assert_allclose(fit.network([-3.0, 0.0, 3.0]), 0.75, rtol=1e-9)
    assert certificate_knots([-1.0, 1.0], fit.residual, 0.5).position.size == 0


def test_a_gap_is_never_negative_beyond_rounding():
    fit = fit_penalized_biases(X, Y, 0.05)
    assert fit.gap <= 1e-10
    with pytest.raises(ArithmeticError, match="exceeds the upper bound"):
        _ = replace(fit, dual_objective=fit.objective * (1 + 1e-9)).gap


def test_finite_size_shift_of_repeated_inputs_is_the_limit_of_close_ones():
    y, shifts = np.array([0.5, -1.0, 0.2, -1.2]), []
    for apart in (0.0, 1e-3):
        fit = mean_field_fit([-1.5, -0.3, -0.3 + apart, 1.3], y, 0.4, temperature=0.1)
        shifts.append(fit.finite_size_shift())
    np.testing.assert_allclose(*shifts, rtol=0.02, atol=1e-3)
    assert shifts[0][1] == pytest.approx(shifts[0][2], rel=1e-9)


def test_mean_field_curvature_is_the_second_derivative():
    fit = mean_field_fit(X, Y, 0.1, temperature=0.02)
    t = np.linspace(-2, 2, 41) + 0.013
    step = 1e-4
    difference = (fit(t + step) - 2 * fit(t) + fit(t - step)) / step**2
    np.testing.assert_allclose(fit.curvature(t), difference, rtol=1e-4, atol=1e-6)
    grid = np.linspace(X.min(), X.max(), 200001)
    dense = np.abs(fit.curvature(grid))
    assert fit.curvature_mass([], 0.1) == pytest.approx(np.trapezoid(dense, grid), rel=1e-4)
    away = np.where(np.abs(grid - 0.3) > 0.2, dense, 0)
    assert fit.curvature_mass([0.3], 0.2) == pytest.approx(np.trapezoid(away, grid), rel=1e-3)


def test_the_quadrature_error_is_that_of_the_nodes_taken(monkeypatch):
    monkeypatch.setattr(_mean_field, "_panels", lambda x, z, beta: np.unique(arcs(x)[:2]))
    fit = mean_field_fit(X, Y, 0.1, temperature=0.02)

    def barrier(t):
        return 1 / (0.1 - h_on(X, fit.residual, np.array([t]))[0] ** 2 / 0.1)

    edges = np.unique(arcs(X)[:2])
    parts = [quad(barrier, *e, epsabs=0, epsrel=1e-11, limit=400)[0] for e in pairwise(edges)]
    nodes, weights = np.polynomial.legendre.leggauss(16)
    coarse = sum(
        w * barrier((lo + hi + (hi - lo) * s) / 2) * (hi - lo) / 2
        for lo, hi in pairwise(edges)
        for s, w in zip(nodes, weights, strict=True)
    )
    error = abs(coarse / sum(parts) - 1)
    assert error > 1e-6
    assert fit.quadrature_error == pytest.approx(error, rel=0.3)


def test_mean_field_tends_to_the_exact_fit_within_its_duality_gap():
    cold = fit_penalized_biases(X, Y, 0.05)
    distances = []
    for temperature in (1e-2, 1e-4, 1e-6):
        z = mean_field_fit(X, Y, 0.05, temperature=temperature).residual
        assert np.abs(h_on(X, z, np.linspace(0, 2 * np.pi, 5000))).max() < 0.05
        distances.append(np.linalg.norm(z - cold.residual))
        # The dual objective is strongly concave, and z is strictly feasible.
        assert 0.5 * distances[-1] ** 2 <= cold.objective - (z @ Y - 0.5 * z @ z) + 1e-14
    assert distances[0] > 10 * distances[1] > 100 * distances[2]


def test_mean_field_at_high_temperature_is_almost_zero():
    # Small h leaves the angle uniform, so that f = 2 tau E[relu relu^T] z / beta^2.
    fit = mean_field_fit(X, 1e-4 * Y, 1.0, temperature=1.0)
    angles = np.linspace(0, 2 * np.pi, 200001)[:-1]
    features = np.maximum(np.outer(X, np.cos(angles)) + np.sin(angles), 0)
    kernel = 2 * features @ features.T / angles.size
    np.testing.assert_allclose(
        fit.residual, np.linalg.solve(np.eye(4) + kernel, 1e-4 * Y), rtol=1e-6
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("skip", [True, False])
def test_minimal_path_norm_is_the_value_of_a_linear_program(seed, skip):
    rng = np.random.default_rng(seed)
    x, y = (
        np.sort(rng.normal(size=5)),
        rng.normal(size=5) + (4 * seed if seed > 4 else 0) * rng.normal(),
    )
    y = y + (3 if seed % 2 else 0) * x
    knots = np.concatenate([x, np.linspace(x[0] - 2, x[-1] + 2, 61)])
    right, left = np.maximum(x[:, None] - knots, 0), np.maximum(knots - x[:, None], 0)
    free = np.column_stack([np.ones(5), x][: 2 if skip else 1])
    system = np.hstack([right, left, -right, -left, free])
    cost = np.concatenate([np.ones(4 * knots.size), np.zeros(free.shape[1])])
    bounds = [(0, None)] * (4 * knots.size) + [(None, None)] * free.shape[1]
    value = linprog(cost, A_eq=system, b_eq=y, bounds=bounds).fun
    assert minimal_path_norm(x, y, skip=skip) == pytest.approx(value, rel=1e-8)
    for other in ((-x, y), (x, -y), (-x, 5.0 - y)):
        assert minimal_path_norm(*other, skip=skip) == pytest.approx(value, rel=1e-8)
    network = minimal_path_norm_network(x, y, skip=skip)
    np.testing.assert_allclose(network(x), y, atol=1e-10)
    assert network.weight_decay == pytest.approx(value, rel=1e-8)
    assert network.path_norm == pytest.approx(value, rel=1e-8)
    if skip:
        assert network.knots.size <= 3
        middle = (x[1:] + x[:-1]) / 2
        np.testing.assert_allclose(network(middle), (y[1:] + y[:-1]) / 2, atol=1e-10)


def test_minimal_path_norm_of_a_line_and_of_shuffled_data():
    assert minimal_path_norm([0.0, 1.0, 3.0], [1.0, 3.0, 7.0]) == 0
    assert minimal_path_norm([0.0, 1.0, 3.0], [1.0, 3.0, 7.0], skip=False) == pytest.approx(2)
    assert minimal_path_norm([3.0, 0.0, 1.0], [7.0, 1.0, 3.0], skip=False) == pytest.approx(2)
    with pytest.raises(ValueError, match="x: expected at least two distinct"):
        minimal_path_norm([1.0, 1.0], [0.0, 1.0])


def test_balance_attains_the_path_norm_and_nothing_else_does():
    rng = np.random.default_rng(1)
    W, v = rng.normal(size=(6, 3)), rng.normal(size=6)
    balanced = balance(W, v)
    np.testing.assert_allclose(
        np.abs(balanced.output_weights), np.linalg.norm(balanced.weights, axis=1)
    )
    points = rng.normal(size=(10, 3))
    np.testing.assert_allclose(
        np.maximum(points @ balanced.weights.T, 0) @ balanced.output_weights,
        np.maximum(points @ W.T, 0) @ v,
    )

    def decay(log_scale):
        return 0.5 * np.sum((v * np.exp(-log_scale)) ** 2) + 0.5 * np.sum(
            (W * np.exp(log_scale)[:, None]) ** 2
        )

    assert minimize(decay, np.zeros(6)).fun == pytest.approx(path_norm(W, v), rel=1e-8)
    assert np.all(balance(np.array([[1.0], [0.0]]), [0.0, 2.0]).weights == 0)


@pytest.mark.parametrize("probabilities", [None, [0.2, 0.3, 0.5]])
def test_maurey_error_is_the_average_over_all_draws(probabilities):
    rng = np.random.default_rng(0)
    atoms, c = rng.normal(size=(4, 3)), np.array([1.0, -2.0, 0.5])
    p = np.abs(c) / np.abs(c).sum() if probabilities is None else np.array(probabilities)
    for n_atoms in (1, 2, 3):
        expected = sum(
            np.prod(p[list(draw)])
            * np.sum((atoms[:, draw] @ (c / p)[list(draw)] / n_atoms - atoms @ c) ** 2)
            for draw in product(range(3), repeat=n_atoms)
        )
        assert maurey_mean_squared_error(
            atoms, c, n_atoms, probabilities=probabilities
        ) == pytest.approx(expected)
    errors = maurey_errors(atoms, c, 3, n_draws=20000, probabilities=probabilities, seed=1)
    assert abs(errors.mean() - expected) < 5 * errors.std() / np.sqrt(errors.size)


def test_unused_units_need_no_probability():
    atoms = np.eye(3)
    assert maurey_mean_squared_error(atoms, [1.0, 0.0, 0.0], 2) == 0
    assert np.all(maurey_errors(atoms, [1.0, 0.0, 0.0], 2) == 0)
    with pytest.raises(ValueError, match="probabilities"):
        maurey_mean_squared_error(atoms, [1.0, 1.0, 0.0], 2, probabilities=[1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="coefficients"):
        maurey_errors(atoms, [0.0, 0.0, 0.0], 2)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_descent_of_particles_is_descent_on_the_stated_loss(exponent):
    x, y, n, steps, step = np.array([-1.0, 0.3, 2.0]), np.array([1.0, -0.5, 0.2]), 7, 3, 0.2
    theta = np.random.default_rng(5).normal(size=(n, 3)).ravel()

    def outputs(flat):
        a, w, b = flat.reshape(n, 3).T
        return np.maximum(np.outer(x, w) + b, 0) @ a / n**exponent

    def loss(flat):
        return 0.5 * np.mean((outputs(flat) - y) ** 2)

    for _ in range(steps):
        moves = 1e-6 * np.eye(theta.size)
        slopes = [(loss(theta + m) - loss(theta - m)) / 2e-6 for m in moves]
        theta = theta - step * n ** (2 * exponent - 1) * np.array(slopes)
    options = {"n_steps": steps, "step": step, "exponent": exponent, "n_networks": 2, "seed": 5}
    found = descend_particles(x, y, n, **options)
    np.testing.assert_allclose(found[0], outputs(theta), rtol=1e-7)
    assert np.abs(found[1] - found[0]).min() > 0.01
    seen = []
    first = descend_particles(x, y, n, **options, callback=lambda r: seen.append(r) or True)
    np.testing.assert_array_equal(first, found[:1])
    assert seen[0].objective == pytest.approx(loss(theta), rel=1e-6)


def test_particles_that_take_no_step_are_a_sum_of_independent_units():
    f = descend_particles([1.0], [0.0], 50, n_steps=0, n_networks=20000)
    # E (a relu(w + b))^2 = 1, E a relu(w + b) = 0; the variance of f is known to 1 %.
    assert abs(f.mean()) < 5 / np.sqrt(50 * 20000)
    assert 50 * f.var() == pytest.approx(1.0, rel=0.05)


def test_a_fit_that_ends_early_reports_what_it_returns():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 15))
    best = fit_penalized_biases(x, y, 0.01)
    seen = []
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        stopped = fit_penalized_biases(
            x, y, 0.01, callback=lambda r: seen.append(r) or r.iteration == 2
        )
    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        short = fit_penalized_biases(x, y, 0.01, max_iter=2)
    assert (stopped.status, short.status) == (Status.STOPPED, Status.MAX_ITER)
    assert [r.iteration for r in seen] == [0, 1, 2]
    assert seen[0].objective == pytest.approx(0.5 * y @ y, rel=1e-15)
    assert seen[-1].error == pytest.approx(stopped.gap, rel=1e-12)
    for fit in (stopped, short):
        net = fit.network
        decay = 0.5 * np.sum(net.weights**2 + net.biases**2 + net.output_weights**2)
        own = 0.5 * np.sum((net(x) - y) ** 2) + 0.01 * decay
        assert fit.objective == pytest.approx(own, rel=1e-12)
        assert fit.dual_objective < best.objective < fit.objective
        # The dual value is that of the residual scaled into the constraint.
        peak = np.abs(h_on(x, fit.residual, np.linspace(0, 2 * np.pi, 200001))).max()
        dual = fit.residual * min(1.0, 0.01 / peak)
        assert fit.dual_objective == pytest.approx(dual @ y - 0.5 * dual @ dual, rel=1e-6)


def test_a_mean_field_fit_that_ends_early_knows_how_far_it_is():
    seen = []
    best = mean_field_fit(X, Y, 0.1, temperature=0.02, callback=seen.append)
    last = [r for r in seen if r.error > 1e-6][-1]
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        stopped = mean_field_fit(
            X, Y, 0.1, temperature=0.02, callback=lambda r: r.iteration == last.iteration
        )
    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        short = mean_field_fit(X, Y, 0.1, temperature=0.02, max_iter=last.iteration)
    assert (stopped.status, short.status) == (Status.STOPPED, Status.MAX_ITER)
    np.testing.assert_array_equal(short.residual, stopped.residual)
    assert stopped.residual_error == pytest.approx(last.error * np.abs(Y).max(), rel=1e-12)
    off = np.abs(stopped.residual - best.residual).max()
    assert stopped.residual_error == pytest.approx(off, rel=0.05)
    assert short.residual_error == stopped.residual_error
    # The objective there, at the temperature asked for, is just below the optimum of the dual.
    z, angles = best.residual, np.linspace(0, 2 * np.pi, 400001)[:-1]
    mass = 2 * np.pi * np.mean(1 / (0.1 - h_on(X, z, angles) ** 2 / 0.1))
    optimum = z @ Y - 0.5 * z @ z - 0.02 * np.log(mass)
    assert optimum - 1e-4 < last.objective < optimum + 1e-8


def test_particles_do_not_depend_on_the_legs_in_which_they_move(monkeypatch):
    options = {"temperature": 0.2, "n_particles": 5, "seed": 3}
    whole = sample_particles(X, Y, 0.4, n_sweeps=40, burn_in=20, **options)
    part = sample_particles(X, Y, 0.4, n_sweeps=13, burn_in=20, **options)
    descended = descend_particles(X, Y, 6, n_steps=7, n_networks=2)
    monkeypatch.setattr(_particles, "_LEG", 5 * (X.size + 10))
    np.testing.assert_array_equal(
        sample_particles(X, Y, 0.4, n_sweeps=40, burn_in=20, **options), whole
    )
    np.testing.assert_array_equal(descend_particles(X, Y, 6, n_steps=7, n_networks=2), descended)
    seen = []
    stopped = sample_particles(
        X,
        Y,
        0.4,
        n_sweeps=40,
        burn_in=20,
        callback=lambda r: seen.append(r) or r.iteration == 33,
        **options,
    )
    np.testing.assert_allclose(stopped, part, rtol=1e-12)
    assert [r.iteration for r in seen] == list(range(1, 34))
    # Where they stop before the average begins, the outputs are those of the last sweep.
    first = sample_particles(X, Y, 0.4, n_sweeps=40, burn_in=20, callback=lambda r: True, **options)
    once = sample_particles(X, Y, 0.4, n_sweeps=1, burn_in=0, **options)
    np.testing.assert_allclose(first, once, rtol=1e-12)


def test_long_steps_of_a_particle_leave_no_bias():
    # One particle a relu(b) at the input 0: the mean of its law by quadrature.
    grid = np.linspace(-6.0, 6.0, 401)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    f = a * np.maximum(b, 0.0)
    law = np.exp(-((f - 2.0) ** 2 + 0.5 * (a**2 + b**2)) / 2 / 0.5)
    options = {"temperature": 0.5, "n_particles": 1, "n_sweeps": 300_000, "step": 0.3}
    found = sample_particles([0.0], [2.0], 0.5, **options)
    assert found[0] == pytest.approx((f * law).sum() / law.sum(), rel=0.02)


def test_energy_of_particles_settles_at_the_temperature():
    # A single particle far from the data (zero outputs): beta |theta|^2 / 2 has the mean 3/2 tau.
    energies = []
    sample_particles(
        [0.0],
        [0.0],
        1e3,
        temperature=0.2,
        n_particles=400,
        n_sweeps=2,
        burn_in=0,
        callback=lambda r: energies.append(r.objective),
    )
    assert energies[-1] == pytest.approx(1.5 * 0.2, rel=0.2)


@pytest.mark.parametrize(
    ("x", "z"),
    [
        ([-1.5, -0.3, 0.4, 1.3], [0.5, -1.0, 0.2, -1.2]),
        # The sinusoid right of the first point has its maximum there.
        ([0.0, 1.0, 2.0], [-1.0, 0.0, 1.0]),
        ([0.7], [-2.0]),
    ],
)
def test_peaks_are_the_largest_values_on_closed_arcs_and_know_the_points_at_their_ends(x, z):
    x, z = np.array(x), np.array(z)
    starts, ends, at_start = arcs(x)
    found = peaks(x, z)
    both = np.tile(starts, 2), np.tile(ends, 2)
    at_ends = np.tile(at_start, 2), np.tile(np.roll(at_start, -1), 2)
    for height, angle, sign, at, start, end, first, last in zip(
        found.height, found.angle, found.sign, found.at_data, *both, *at_ends, strict=True
    ):
        inside = np.linspace(start, end, 2001)
        assert height == pytest.approx((sign * h_on(x, z, inside)).max(), abs=1e-5)
        assert height == pytest.approx(float(sign * h_on(x, z, np.array([angle]))[0]), abs=1e-12)
        assert at == (first if angle == start else last if angle == end else -1)
