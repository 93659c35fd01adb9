import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

from theorylab.matrix_sensing import (
    MeasurementOperator,
    best_rank_solutions,
    gaussian_operator,
    global_margin,
    gradient_descent,
    incremental_law,
    population_visit,
    staircase,
)

EIGENVALUES = np.array([3.0, 1.3, 0.5])
IDENTITY = MeasurementOperator(np.eye(10), 4, 4, True)  # A*A = Id: the population problem


def rng(seed=0):
    return np.random.default_rng(seed)


def problem(n=4, m=100, seed=0):
    Q = np.linalg.qr(rng(seed).standard_normal((n, n)))[0][:, :3]
    M = (Q * EIGENVALUES) @ Q.T
    return (M + M.T) / 2, gaussian_operator(n, m, rng=rng(seed + 100))


def test_best_solutions_agree_with_least_squares_on_the_measurements():
    M, operator = problem()
    best = best_rank_solutions(M, operator, max_rank=3, rng=rng(1), starts=4)
    y = operator.forward(M)
    for s in (1, 2, 3):
        runs = []
        for seed in range(
            4
        ):  # Gauss-Newton on residuals, nothing shared with the Gram matrix or L-BFGS
            start = rng(seed).standard_normal(4 * s)
            runs.append(
                least_squares(
                    lambda flat, s=s: (
                        operator.forward(flat.reshape(4, s) @ flat.reshape(4, s).T) - y
                    ),
                    start,
                    xtol=1e-15,
                    ftol=1e-15,
                )
            )
        U = min(runs, key=lambda run: run.cost).x.reshape(4, s)
        np.testing.assert_allclose(best.solutions[s - 1], U @ U.T, atol=2e-6)
        assert best.objectives[s - 1] == pytest.approx(min(run.cost for run in runs) / 2, abs=1e-10)
    assert (best.gradients < 1e-12).all()
    assert (best.curvatures > 0).all()
    assert (best.attained == 1).all()
    np.testing.assert_allclose(best.solutions[2], M, atol=1e-10)


def test_in_the_population_the_best_solutions_truncate_and_curvatures_are_eigenvalue_gaps():
    M = np.diag([3.0, 1.3, 0.5, 0.0])
    best = best_rank_solutions(M, IDENTITY, max_rank=3, rng=rng(1), starts=3)
    for s in (1, 2, 3):
        np.testing.assert_allclose(
            best.solutions[s - 1], np.diag(np.where(np.arange(4) < s, np.diag(M), 0)), atol=1e-12
        )
    # Directions u_s -> u_{s+1} have curvature lambda_s - lambda_{s+1}; inside the range the least
    # is lambda_i + lambda_j.
    np.testing.assert_allclose(best.curvatures, [1.7, 0.8, 0.5], rtol=1e-10)
    law = incremental_law(M, IDENTITY, best, search_rank=4, step_size=1e-9)
    np.testing.assert_allclose(law.escape[:2], [1.3, 0.5], rtol=1e-10)
    np.testing.assert_allclose(law.spare[0], 1 - 1.3 / 3, rtol=1e-8)
    # tau_0 = 1/3, tau_1 = (1 - 1.3/3)/1.3, then the third direction is left at 1 - 0.5 (tau_0 +
    # tau_1)
    np.testing.assert_allclose(law.spare[1], 1 - 0.5 / 1.3, rtol=1e-7)
    np.testing.assert_allclose(law.exponents[0], 2 * (1 - 1.3 / 3) * 1.7 / (1.7 + 2.6), rtol=1e-7)


def test_rotating_the_problem_rotates_the_solutions():
    M, operator = problem()
    Q = np.linalg.qr(rng(5).standard_normal((4, 4)))[0]
    rotated = gaussian_operator(4, 100, rng=rng(0))
    matrices = Q @ operator.matrices @ Q.T
    flat = np.array([rotated._flatten(np.ascontiguousarray(A)) for A in matrices])
    best = best_rank_solutions(M, operator, max_rank=2, rng=rng(1), starts=3)
    turned = best_rank_solutions(
        Q @ M @ Q.T, MeasurementOperator(flat, 4, 4, True), max_rank=2, rng=rng(2), starts=3
    )
    np.testing.assert_allclose(turned.solutions, Q @ best.solutions @ Q.T, atol=1e-9)
    np.testing.assert_allclose(turned.curvatures, best.curvatures, rtol=1e-7)


def test_a_step_that_overshoots_is_refused():
    M, operator = problem()
    best = best_rank_solutions(M, operator, max_rank=1, rng=rng(1), starts=2)
    for step_size in (1.01 / best.curvatures[0], 1e3):
        with pytest.raises(ValueError, match="step_size"):
            incremental_law(M, operator, best, search_rank=3, step_size=step_size)
    few = gaussian_operator(
        4, 2, rng=rng(3)
    )  # flat directions, in which no curvature bounds the step
    flat = best_rank_solutions(M, few, max_rank=1, rng=rng(1), starts=2)
    with pytest.raises(ValueError, match="step_size"):
        incremental_law(M, few, flat, search_rank=3, step_size=100.0)


def test_staircase_is_gradient_descent():
    M, operator = problem()
    start = 0.1 * rng(3).standard_normal((4, 3))
    other = gradient_descent(
        M,
        search_rank=3,
        step_size=0.02,
        steps=300,
        operator=operator,
        initial=start,
        record=np.arange(301),
    )
    run = staircase(M, operator, initial=start, targets=M[None], step_size=0.02, steps=300)
    np.testing.assert_allclose(run.U @ run.U.T, other.X @ other.X.T, atol=1e-12)
    assert np.array_equal(run.iterations, np.arange(301))
    np.testing.assert_allclose(run.distances[:, 0], other.errors[run.iterations], atol=1e-12)
    assert run.closest[0] == pytest.approx(other.errors.min(), abs=1e-12)
    assert run.visits[0] == np.argmin(other.errors)
    # At rest every step is as close: the first one counts.
    rest = staircase(M, operator, initial=0 * start, targets=M[None], step_size=0.02, steps=30)
    assert rest.visits.tolist() == [0]
    np.testing.assert_allclose(
        run.spectra[-1], np.linalg.eigvalsh(run.U.T @ run.U)[::-1], atol=1e-12
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_first_exponent_and_time_are_reached(seed):
    M, operator = problem(seed=seed)
    best = best_rank_solutions(M, operator, max_rank=2, rng=rng(1), starts=3)
    law = incremental_law(M, operator, best, search_rank=4, step_size=0.03)
    start = rng(seed + 50).standard_normal((4, 4))
    top = np.linalg.eigh(operator.normal(M))[1][:, ::-1]
    start = start @ np.linalg.qr(start.T @ top)[0]
    alphas = np.array([1e-10, 1e-12, 1e-14])
    runs = [
        staircase(
            M,
            operator,
            initial=a * start,
            targets=best.solutions[:1],
            step_size=0.03,
            steps=int(-1.3 * law.times[0] * np.log(a)),
        )
        for a in alphas
    ]
    slopes = np.diff(np.log([run.closest[0] for run in runs])) / np.diff(np.log(alphas))
    error = np.abs(slopes - law.exponents[0])
    assert error[1] < 0.01  # an eigenvalue misread by 1 % moves the exponent by more
    times = np.diff([run.visits[0] for run in runs]) / -np.diff(np.log(alphas))
    assert abs(times.mean() - law.times[0]) < 0.03 * law.times[0] + 2 / np.log(
        1e4
    )  # two roundings to whole steps


def test_a_full_search_rank_is_needed_to_leave():
    M, operator = problem()
    best = best_rank_solutions(M, operator, max_rank=2, rng=rng(1), starts=3)
    law = incremental_law(M, operator, best, search_rank=2, step_size=0.03)
    assert np.isfinite(law.exponents[0])
    assert law.exponents[1] == np.inf
    run = staircase(
        M,
        operator,
        initial=1e-4 * rng(2).standard_normal((4, 2)),
        targets=best.solutions,
        step_size=0.03,
        steps=6000,
    )
    np.testing.assert_allclose(run.U @ run.U.T, best.solutions[1], atol=1e-9)


@pytest.mark.parametrize("stage", [1, 2])
def test_population_visit_against_the_flow(stage):
    lam, alpha = np.array([3.0, 2.0, 1.0]), 0.05
    flow = solve_ivp(
        lambda _, u: 2 * u * (lam - u),
        (0, 8),
        np.full(3, alpha**2),
        rtol=1e-11,
        atol=1e-14,
        dense_output=True,
    )
    t = np.linspace(0, 8, 40_001)
    u = flow.sol(t)
    distance = np.sqrt(np.sum((u - np.where(np.arange(3) < stage, lam, 0.0)[:, None]) ** 2, axis=0))
    visit = population_visit(lam, init_scale=alpha, stage=stage)
    assert visit.distance == pytest.approx(distance.min(), rel=1e-6)
    assert visit.time == pytest.approx(t[distance.argmin()], abs=1e-3)


@pytest.mark.parametrize("stage", [1, 2])
def test_population_visit_at_tiny_starts_against_mpmath(stage):
    lam, alpha = [mpmath.mpf(v) for v in (3, 2, 1)], mpmath.mpf(10) ** -40
    visit = population_visit([3.0, 2.0, 1.0], init_scale=1e-40, stage=stage)

    def distance(t):
        u = [
            v * alpha**2 * mpmath.e ** (2 * v * t) / (v + alpha**2 * (mpmath.e ** (2 * v * t) - 1))
            for v in lam
        ]
        return mpmath.sqrt(
            sum(
                (a - (v if i < stage else 0)) ** 2
                for i, (a, v) in enumerate(zip(u, lam, strict=True))
            )
        )

    with mpmath.workdps(120):
        exact = distance(mpmath.mpf(visit.time))
        assert abs(mpmath.mpf(visit.distance) / exact - 1) < 1e-9
        assert all(distance(mpmath.mpf(visit.time) + step) >= exact for step in (-1e-3, 1e-3))
    assert visit.leading == pytest.approx(visit.distance, rel=max(visit.remainder, 1e-9))
    other = population_visit([3.0, 2.0, 1.0], init_scale=1e-42, stage=stage)
    assert np.log(visit.distance / other.distance) / np.log(100) == pytest.approx(
        visit.exponent, rel=1e-6
    )


@pytest.mark.parametrize(
    ("eigenvalues", "alpha", "stage"),
    [
        # Squares of the distance, and what is left of e^(-2 lambda t), are no float64.
        ([0.035, 0.023, 0.0017, 0.0003], 2e-87, 2),
        ([0.6, 0.26, 0.1, 1e-3], 1e-149, 3),
        ([0.13, 0.026, 0.0014], 5e-94, 2),
    ],
)
def test_population_visit_where_squares_leave_float64_against_mpmath(eigenvalues, alpha, stage):
    visit = population_visit(eigenvalues, init_scale=alpha, stage=stage)
    assert visit.distance < 1e-142
    with mpmath.workdps(640):
        lam, small = [mpmath.mpf(v) for v in eigenvalues], mpmath.mpf(alpha) ** 2

        def distance(t):
            grown = [mpmath.e ** (2 * v * t) for v in lam]
            u = [v * small * g / (v + small * (g - 1)) for v, g in zip(lam, grown, strict=True)]
            ends = [*lam[:stage], *(0 for _ in lam[stage:])]
            return mpmath.norm([a - b for a, b in zip(u, ends, strict=True)])

        time = mpmath.mpf(visit.time)
        assert abs(visit.distance / distance(time) - 1) < 1e-9
        assert all(distance(time * (1 + step)) >= distance(time) for step in (-1e-4, 1e-4))
    assert visit.leading == pytest.approx(visit.distance, rel=max(visit.remainder, 1e-9))


@pytest.mark.parametrize(
    ("eigenvalues", "alpha"), [([1.0, 0.1], 1e-4), ([0.5877, 0.2277, 0.0219], 5.754e-6)]
)
def test_the_remainder_of_a_visit_is_met_within_a_factor_of_three(eigenvalues, alpha):
    visit = population_visit(eigenvalues, init_scale=alpha, stage=len(eigenvalues) - 1)
    assert visit.remainder / 3 < abs(visit.leading / visit.distance - 1) < visit.remainder / 2


def test_bad_problems_are_refused():
    M, operator = problem()
    general = gaussian_operator(4, 20, symmetric=False, rng=rng())
    with pytest.raises(ValueError, match="operator"):
        best_rank_solutions(M, general, max_rank=1, rng=rng())
    with pytest.raises(ValueError, match="truth"):
        best_rank_solutions(-np.eye(4), operator, max_rank=1, rng=rng())
    with pytest.raises(ValueError, match="step_size"):
        staircase(M, operator, initial=np.eye(4), targets=M[None], step_size=5.0, steps=200)
    with pytest.raises(ValueError, match="eigenvalues"):
        population_visit([1.0, 2.0], init_scale=0.1, stage=1)
    with pytest.raises(ValueError, match="eigenvalues: expected more than 2"):
        population_visit([2.0, 1.0], init_scale=0.1, stage=2)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e6, 1e8, 1e150])
def test_population_visit_does_not_depend_on_units(scale):
    lam = np.array([3.0, 2.0, 0.7])
    visit = population_visit(lam, init_scale=1e-3, stage=1)
    scaled = population_visit(scale * lam, init_scale=1e-3 * np.sqrt(scale), stage=1)
    assert scaled.distance / scale == pytest.approx(visit.distance, rel=1e-9)
    assert scaled.time * scale == pytest.approx(visit.time, rel=1e-6)
    assert scaled.leading / scale == pytest.approx(visit.leading, rel=1e-12)
    assert scaled.remainder == pytest.approx(visit.remainder, rel=1e-6)


@pytest.mark.parametrize("k", [1, 2])
def test_the_global_margin_bounds_the_objective_from_below_along_rank_k(k):
    """f(W) - f(Z) >= margin * tau / 2, tau the trace of W off the range of Z."""
    truth, operator = np.diag([3.0, 1.0, 0.3, 0.0]), problem(m=900)[1]
    U = best_rank_solutions(truth, operator, max_rank=k, rng=rng(1)).factors[-1]
    margin = global_margin(truth, operator, U)
    assert margin > 0

    def value(W):
        return np.sum(operator.forward(W - truth) ** 2) / 4

    off = np.eye(4) - U @ np.linalg.pinv(U)
    generator = rng(2)
    for scale in np.geomspace(0.01, 3, 200):
        V = U + scale * generator.standard_normal(U.shape)
        tau = np.trace(off @ V @ V.T @ off)
        assert value(V @ V.T) - value(U @ U.T) >= margin * tau / 2 * (1 - 1e-9)


def test_the_global_margin_is_exact_in_the_population_and_refuses_a_saddle():
    operator = MeasurementOperator(np.eye(3), 2, 2, True)
    truth = np.diag([3.0, 1.0])
    # The infimum of 2 (f(W) - f(Z)) / tau over rank one is 3 - 1, approached along the second axis.
    assert global_margin(truth, operator, np.array([[3.0**0.5], [0.0]])) == pytest.approx(2.0)
    assert global_margin(truth, operator, np.array([[0.0], [1.0]])) == pytest.approx(-2.0)
    few = problem(m=5)[1]
    assert global_margin(np.diag([3.0, 1, 0, 0]), few, np.diag([3.0**0.5, 1, 0, 0])[:, :2]) <= 1e-9


def test_a_callback_sees_the_staircase_in_legs_and_stops_it():
    rng = np.random.default_rng(0)
    truth, operator = np.diag([3.0, 1.0, 0.0]), gaussian_operator(3, 40, rng=rng)
    start, first = 1e-2 * rng.standard_normal((3, 2)), np.diag([3.0, 0.0, 0.0])
    call = {"initial": start, "targets": [truth, first], "step_size": 0.02, "steps": 900}
    told = []
    alone = staircase(truth, operator, **call)
    watched = staircase(truth, operator, **call, callback=told.append)
    assert len(told) >= 10
    for name in ("closest", "visits", "U", "iterations", "distances", "states"):
        np.testing.assert_array_equal(getattr(watched, name), getattr(alone, name))
    misfit = operator.forward(alone.U @ alone.U.T - truth)
    assert told[-1].objective == pytest.approx(np.sum(misfit**2) / 4)
    stopped = staircase(truth, operator, **call, callback=lambda progress: progress.iteration > 300)
    shorter = staircase(truth, operator, **call | {"steps": told[3].iteration})
    for name in ("closest", "visits", "U"):
        np.testing.assert_array_equal(getattr(stopped, name), getattr(shorter, name))
    assert stopped.iterations[-1] <= told[3].iteration
    np.testing.assert_array_equal(stopped.states, alone.states[: len(stopped.states)])


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_said_after_a_matrix_that_is_learned(seed):
    # The gradient at Z_2 = M is rounding, of either sign.
    Q = np.linalg.qr(rng(seed).standard_normal((4, 4)))[0][:, :2]
    M, operator = (Q * [3.0, 1.3]) @ Q.T, gaussian_operator(4, 100, rng=rng(seed + 100))
    best = best_rank_solutions(M, operator, max_rank=3, rng=rng(1), starts=3)
    law = incremental_law(M, operator, best, search_rank=4, step_size=0.03)
    assert law.times[1] == np.inf
    assert law.exponents[1] == pytest.approx(2 * law.spare[1])
    for row in (law.exponents, law.times, law.spare, law.approach, law.escape):
        assert np.isnan(row[2])
        assert not np.isnan(row[:2]).any()


@pytest.mark.parametrize("unit", [2.0**-40, 2.0**40])
def test_the_law_does_not_depend_on_units(unit):
    M = np.diag([3.0, 1.3, 0.0, 0.0])
    operator = gaussian_operator(4, 100, rng=rng(7))
    one, other = (
        incremental_law(
            u * M,
            operator,
            best_rank_solutions(u * M, operator, max_rank=2, rng=rng(1), starts=3),
            search_rank=4,
            step_size=0.03 / u,
        )
        for u in (1.0, unit)
    )
    assert other.times[1] == np.inf
    for name, size in (("exponents", 1), ("times", 1), ("spare", 1), ("approach", unit)):
        np.testing.assert_allclose(getattr(other, name), size * getattr(one, name), rtol=1e-6)
    np.testing.assert_allclose(other.growth, one.growth, rtol=1e-9)


def test_negative_eigenvalues_do_not_escape():
    M = np.diag([3.0, 1.3, -0.5, -0.2])
    best = best_rank_solutions(M, IDENTITY, max_rank=2, rng=rng(1), starts=3)
    law = incremental_law(M, IDENTITY, best, search_rank=4, step_size=0.1)
    np.testing.assert_allclose(law.escape, [1.3, -0.2], rtol=1e-9)
    assert np.isfinite(law.times[0])
    assert law.times[1] == np.inf
    assert law.exponents[1] == pytest.approx(2 * law.spare[1])


def test_the_law_of_the_population_at_a_finite_step():
    # Growth and decay per step are log(1 + eta lambda) and -log(1 - eta (lambda_s - lambda_s+1)).
    eta, M = 0.2, np.diag([3.0, 1.3, 0.5, 0.2])
    best = best_rank_solutions(M, IDENTITY, max_rank=4, rng=rng(1), starts=3)
    law = incremental_law(M, IDENTITY, best, search_rank=4, step_size=eta)
    g = np.log1p(eta * np.diag(M))
    np.testing.assert_allclose(law.growth, g, rtol=1e-10)
    spare, arrival = np.ones(4), 0.0
    for s, gap in enumerate((1.7, 0.8, 0.3)):
        # The leading exponent grows at its rate until it is 0, and all others meanwhile.
        tau = spare[0] / g[s]
        arrival, spare = arrival + tau, spare[1:] - tau * g[s + 1 :]
        decay = -np.log1p(-eta * gap)
        wait = 2 * spare[0] / (decay + 2 * g[s + 1])
        assert law.spare[s] == pytest.approx(spare[0], rel=1e-8)
        assert law.times[s] == pytest.approx(arrival + wait, rel=1e-8)
        assert law.exponents[s] == pytest.approx(wait * decay, rel=1e-8)
    assert law.exponents[3] == law.times[3] == np.inf


@pytest.mark.parametrize(("eigenvalues", "stage"), [([1.0, 0.5, 0.45], 1), ([1.0, 0.95, 0.3], 2)])
def test_the_remainder_of_a_visit_counts_the_other_eigenvalues(eigenvalues, stage):
    # A third eigenvalue that is close: it adds half its square to the distance.
    visit = population_visit(eigenvalues, init_scale=1e-8, stage=stage)
    assert visit.remainder / 5 < abs(visit.leading / visit.distance - 1) < visit.remainder / 2
