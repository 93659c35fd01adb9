import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import linprog

from theorylab.matrix_sensing import (
    AdaptiveSteps,
    GeometricSteps,
    SubgradientStatus,
    best_median_error,
    contaminate,
    first_order_error,
    gaussian_operator,
    l1_loss,
    sign_scaling,
    spectral_start,
    subgradient_method,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def problem(n=5, r=1, m=80, fraction=0.0, spread=50.0, seed=0):
    Q = np.linalg.qr(rng(seed).standard_normal((n, n)))[0][:, :r]
    M = Q @ Q.T
    M = (M + M.T) / 2
    operator = gaussian_operator(n, m, rng=rng(seed + 1))
    return (
        M,
        operator,
        operator.forward(M)
        + contaminate(m, outlier_fraction=fraction, spread=spread, rng=rng(seed + 2)),
    )


@pytest.mark.parametrize(
    ("p", "mu", "tau"), [(0.0, 1.0, 1.0), (0.3, 2.0, 0.0), (1.0, 0.0, 0.7), (0.6, -1.5, 2.0)]
)
@pytest.mark.parametrize("norm", [0.4, 2.0])
def test_scaling_is_the_integral_of_the_sign(p, mu, tau, norm):
    nodes, weights = np.polynomial.legendre.leggauss(100)

    def given(v):  # E[sign(norm z - v) z] by Gauss-Legendre on either side of the jump
        total = 0.0
        jump = np.clip(v / norm, -12, 12)  # the normal law beyond is below rounding
        for low, high, sign in ((jump, 12, 1.0), (-12, jump, -1.0)):
            z = (low + high) / 2 + (high - low) / 2 * nodes
            total += (
                sign
                * (high - low)
                / 2
                * np.sum(weights * z * np.exp(-(z**2) / 2))
                / np.sqrt(2 * np.pi)
            )
        return total

    x, w = (
        10 * np.polynomial.legendre.leggauss(300)[0],
        10 * np.polynomial.legendre.leggauss(300)[1],
    )
    w *= np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    outliers = sum(b * given(mu + tau * a) for a, b in zip(x, w, strict=True))
    expected = (1 - p) * given(0) + p * outliers
    assert sign_scaling(norm, outlier_fraction=p, mean=mu, spread=tau) == pytest.approx(
        expected, rel=1e-8
    )


def test_contamination_has_the_stated_law():
    m = 200_000
    s = contaminate(m, outlier_fraction=0.25, mean=3.0, spread=2.0, rng=rng()) * np.sqrt(m)
    hit = s != 0
    assert abs(hit.mean() - 0.25) < 6 * np.sqrt(0.25 * 0.75 / m)
    assert abs(s[hit].mean() - 3) < 6 * 2 / np.sqrt(hit.sum())
    assert abs(s[hit].std() - 2) < 6 * 2 / np.sqrt(2 * hit.sum())


@pytest.mark.parametrize("step", [GeometricSteps(0.3, 0.9), AdaptiveSteps(0.2)])
def test_iterations_against_a_loop_over_measurements(step):
    M, operator, y = problem(fraction=0.3)
    m, A = y.size, operator.matrices
    U = 0.5 * rng(4).standard_normal((5, 3))
    run = subgradient_method(operator, y, initial=U, step=step, steps=12, truth=M)
    for t in range(13):
        residuals = np.array([np.trace(a @ U @ U.T) for a in A]) - y
        Q = sum(np.sign(v) * a for v, a in zip(residuals, A, strict=True)) / np.sqrt(m)
        loss = np.abs(residuals).sum() / np.sqrt(m)
        assert run.losses[t] == pytest.approx(loss, rel=1e-12)
        assert run.losses[t] == pytest.approx(l1_loss(operator, y, U @ U.T), rel=1e-12)
        assert run.errors[t] == pytest.approx(np.linalg.norm(U @ U.T - M), rel=1e-12)
        eta = 0.2 * loss if isinstance(step, AdaptiveSteps) else 0.3 * 0.9**t / np.linalg.norm(Q, 2)
        last, U = U, U - eta * Q @ U
    np.testing.assert_allclose(run.U, last, rtol=1e-11)
    assert run.status is SubgradientStatus.FINISHED
    assert run.steps == 12


def test_half_the_sign_matrix_times_two_is_a_subgradient():
    _, operator, y = problem(fraction=0.2)
    U = rng(1).standard_normal((5, 2))
    Q = operator.adjoint(np.sign(operator.forward(U @ U.T) - y)) / np.sqrt(y.size)
    V = rng(2).standard_normal((5, 2))
    h = 1e-7
    plus, minus = (l1_loss(operator, y, (U + e * V) @ (U + e * V).T) for e in (h, -h))
    assert (plus - minus) / (2 * h) == pytest.approx(np.sum(2 * (Q @ U) * V), rel=1e-5)


def test_the_start_is_the_best_semidefinite_approximation_by_cvxpy():
    _, operator, y = problem(fraction=0.2)
    U = spectral_start(operator, y, search_rank=5, init_scale=0.3)
    C = operator.adjoint(np.sign(y))
    P = cp.Variable((5, 5), PSD=True)
    cp.Problem(cp.Minimize(cp.norm(P - C / np.linalg.norm(C, 2), "fro"))).solve()
    np.testing.assert_allclose(U @ U.T / 0.3**2, P.value, atol=1e-4)
    small = spectral_start(operator, y, search_rank=2, init_scale=0.3)
    np.testing.assert_array_equal(small, U[:, :2])


def test_rotations_of_the_columns_do_not_matter():
    M, operator, y = problem(fraction=0.2)
    U, Q = 0.3 * rng(1).standard_normal((5, 3)), np.linalg.qr(rng(2).standard_normal((3, 3)))[0]
    options = {"step": GeometricSteps(0.2, 0.95), "steps": 30, "truth": M}
    one, two = (subgradient_method(operator, y, initial=V, **options) for V in (U, U @ Q))
    np.testing.assert_allclose(one.errors, two.errors, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 5])
def test_gross_outliers_of_any_size_leave_the_path_alone(k):
    runs = []
    for spread in (1e3, 1e6):
        M, operator, y = problem(m=150, fraction=0.3, spread=spread)
        start = spectral_start(operator, y, search_rank=k, init_scale=1e-8)
        rho = 1 - 0.25 / (1.3 * np.log(1e8))
        runs.append(
            subgradient_method(
                operator, y, initial=start, step=GeometricSteps(0.25, rho), steps=1200, truth=M
            )
        )
    assert runs[0].errors.min() < 1e-4
    np.testing.assert_array_equal(
        runs[0].errors, runs[1].errors
    )  # only the signs of the outliers are ever used


def test_adaptive_steps_converge_without_noise_and_stop_at_tol():
    M, operator, y = problem(m=120)
    start = spectral_start(operator, y, search_rank=1, init_scale=0.1)
    run = subgradient_method(
        operator, y, initial=start, step=AdaptiveSteps(0.3), steps=2000, truth=M, tol=1e-9
    )
    assert run.status is SubgradientStatus.REACHED
    assert run.errors[-1] <= 1e-9 * np.linalg.norm(M)
    still = subgradient_method(
        operator, y, initial=run.U, step=AdaptiveSteps(0.3), steps=0, truth=M
    )
    np.testing.assert_array_equal(still.U, run.U)


def test_the_loss_without_noise_is_the_error_times_a_constant_in_the_mean():
    m = 40_000
    operator = gaussian_operator(3, m, rng=rng())
    X = np.array([[1.0, 0.4, 0.0], [0.4, -0.5, 2.0], [0.0, 2.0, 0.3]])
    loss = l1_loss(operator, np.zeros(m), X)
    assert abs(loss / np.linalg.norm(X) - np.sqrt(2 / np.pi)) < 6 * np.sqrt((1 - 2 / np.pi) / m)


def test_least_absolute_deviations_have_the_stated_error():
    """At full rank the problem is convex: cvxpy gives the minimiser, first order and mean square
    the prediction."""
    n, m, nu = 3, 1500, 0.4
    ratios, squares = [], []
    for seed in range(12):
        M = np.diag([1.0, 0.7, 0.5])
        operator = gaussian_operator(n, m, rng=rng(seed))
        s = contaminate(m, outlier_fraction=1.0, spread=nu, rng=rng(seed + 1000))
        x = cp.Variable(6)
        cp.Problem(
            cp.Minimize(cp.norm1(np.sqrt(m) * (operator.stacked @ x - operator.forward(M) - s)))
        ).solve(solver=cp.CLARABEL)
        error = operator._unflatten(np.asarray(x.value)) - M
        first = first_order_error(operator, s, M, rank=n, noise_spread=nu)
        ratios.append(np.linalg.norm(error - first) / np.linalg.norm(first))
        squares.append(
            np.linalg.norm(first) ** 2 / best_median_error(nu, n=n, rank=n, n_measurements=m) ** 2
        )
    assert np.mean(ratios) < 3 * m**-0.25  # Bahadur's remainder
    assert abs(np.mean(squares) - 1) < 6 * np.sqrt(
        2 / 6 / 12
    )  # chi-square with six degrees of freedom, twelve times


def test_first_order_error_lies_in_the_tangent_space():
    M, operator, y = problem(n=5, r=2)
    s = rng(3).standard_normal(y.size)
    E = first_order_error(operator, s, M, rank=2, noise_spread=1.0)
    assert np.linalg.matrix_rank(E, tol=1e-10) <= 4
    off = np.eye(5) - M  # M is a projection
    np.testing.assert_allclose(off @ E @ off, 0, atol=1e-12)
    full = first_order_error(operator, s, np.eye(5), rank=5, noise_spread=1.0)
    np.testing.assert_allclose(E, full - off @ full @ off, atol=1e-12)


def test_bad_steps_are_refused():
    for step in (
        lambda: GeometricSteps(0.0, 0.5),
        lambda: GeometricSteps(np.nan, 0.5),
        lambda: AdaptiveSteps(-1.0),
    ):
        with pytest.raises(ValueError, match=r"first|factor"):
            step()
    with pytest.raises(ValueError, match="ratio"):
        GeometricSteps(0.1, 1.5)
    M, operator, y = problem()
    with pytest.raises(ValueError, match="step"):
        subgradient_method(operator, y, initial=np.eye(5), step=0.1, steps=2, truth=M)


def test_runs_that_end_badly_warn():
    M, operator, y = problem()
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="overflowed"):
        run = subgradient_method(
            operator, y, initial=np.eye(5), step=AdaptiveSteps(1e6), steps=500, truth=M
        )
    assert run.status is SubgradientStatus.DIVERGED
    with pytest.warns(RuntimeWarning, match="raise steps"):
        run = subgradient_method(
            operator, y, initial=np.eye(5), step=AdaptiveSteps(0.3), steps=2, truth=M, tol=1e-9
        )
    assert run.status is SubgradientStatus.NOT_REACHED
    assert run.steps == 2


def test_an_unknown_matrix_is_recovered_from_its_measurements_alone():
    rng = np.random.default_rng(10)
    V = rng.standard_normal((5, 2))
    M, operator = V @ V.T / 5, gaussian_operator(5, 150, rng=rng)
    clean = operator.forward(M)
    start = spectral_start(operator, clean, search_rank=2, init_scale=1e-3)
    call = {"initial": start, "step": AdaptiveSteps(0.2), "steps": 5000}
    run = subgradient_method(operator, clean, **call, tol=1e-6)
    assert run.status is SubgradientStatus.FITTED
    assert run.losses[-1] <= 1e-6 * l1_loss(operator, clean, np.zeros((5, 5)))
    assert run.steps % 100 == 0
    assert np.isnan(run.errors).all()
    assert np.linalg.norm(run.U @ run.U.T - M) < 1e-5 * np.linalg.norm(M)
    # The truth does not enter: the same iterates with it, and in one block of steps.
    known = subgradient_method(operator, clean, **{**call, "steps": run.steps}, truth=M)
    assert np.array_equal(known.U, run.U)
    dirty = clean + contaminate(150, outlier_fraction=0.2, rng=rng)
    steps = {"initial": start, "step": GeometricSteps(0.3, 0.98), "steps": 600}
    with pytest.warns(RuntimeWarning, match="with outliers or noise"):
        robust = subgradient_method(operator, dirty, **steps, tol=1e-6)
    assert robust.status is SubgradientStatus.NOT_FITTED
    assert np.linalg.norm(robust.U @ robust.U.T - M) < 1e-3 * np.linalg.norm(M)
    plain = subgradient_method(operator, dirty, **steps)
    assert plain.status is SubgradientStatus.FINISHED
    assert pytest.approx(robust.U, rel=1e-6, abs=1e-9) == plain.U


def test_median_error_is_that_of_least_absolute_deviations():
    # Unknown symmetric 2 x 2 matrices (rank 2: three numbers), solved as linear programmes.
    n, m, nu, squares = 2, 300, 0.5, []
    for seed in range(60):
        operator = gaussian_operator(n, m, rng=rng(seed))
        noise = nu * rng(1000 + seed).standard_normal(m) / np.sqrt(m)
        rows, eye = operator.stacked, np.eye(m)
        found = linprog(
            np.r_[np.zeros(3), np.ones(m)],
            A_ub=np.block([[rows, -eye], [-rows, -eye]]),
            b_ub=np.r_[noise, -noise],
            bounds=[(None, None)] * 3 + [(0, None)] * m,
        )
        squares.append(found.x[:3] @ found.x[:3])
    predicted = best_median_error(nu, n=n, rank=2, n_measurements=m)
    # The mean of 60 such squares, of 3 degrees of freedom each, spreads by 11 %.
    assert np.sqrt(np.mean(squares)) == pytest.approx(predicted, rel=0.2)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_median_error_is_the_size_of_the_first_order_error(rank):
    n, m, nu = 4, 200, 0.3
    Q = np.linalg.qr(rng(5).standard_normal((n, n)))[0][:, :rank]
    M = Q @ Q.T
    M = (M + M.T) / 2
    squares = []
    for seed in range(150):
        operator = gaussian_operator(n, m, rng=rng(seed))
        noise = nu * rng(1000 + seed).standard_normal(m) / np.sqrt(m)
        error = first_order_error(operator, noise, M, rank=rank, noise_spread=nu)
        squares.append(np.sum(error**2))
    predicted = best_median_error(nu, n=n, rank=rank, n_measurements=m)
    assert np.sqrt(np.mean(squares)) == pytest.approx(predicted, rel=0.12)


@pytest.mark.filterwarnings("ignore:subgradient method")
def test_portions_and_callbacks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    operator = gaussian_operator(4, 60, rng=rng)
    truth, start = np.diag([1.0, 0.5, 0.0, 0.0]), 0.3 * rng.standard_normal((4, 3))
    y = operator.forward(truth)
    fitted = 0
    for step in (GeometricSteps(0.3, 0.97), AdaptiveSteps(0.2)):
        for given in ({"truth": truth, "tol": 1e-3}, {"tol": 0.2}, {}):
            runs = []
            for portion, callback in ((10**8, None), (7 * (600 + 20 * 64), None), (1, None)):
                monkeypatch.setattr("theorylab.matrix_sensing.subgradient._PORTION", portion)
                call = {"initial": start, "step": step, "steps": 250, **given}
                runs.append(subgradient_method(operator, y, **call, callback=callback))
            told = []
            runs.append(subgradient_method(operator, y, **call, callback=told.append))
            for run in runs[1:]:
                assert run.status is runs[0].status
                np.testing.assert_array_equal(run.losses, runs[0].losses)
                np.testing.assert_array_equal(run.errors, runs[0].errors)
                np.testing.assert_array_equal(run.U, runs[0].U)
            if runs[0].status is SubgradientStatus.FITTED:
                fitted += 1
                assert runs[0].steps % 100 == 0  # where the loss is looked at
                assert runs[0].losses[-1] <= 0.2 * l1_loss(operator, y, np.zeros((4, 4)))
    assert fitted


def test_a_callback_is_told_loss_and_error_and_stops():
    rng = np.random.default_rng(1)
    operator = gaussian_operator(3, 40, rng=rng)
    truth, start = np.diag([2.0, 0.0, 0.0]), 0.3 * rng.standard_normal((3, 2))
    y = operator.forward(truth)
    for given in ({"truth": truth}, {}):
        told = []

        def watch(progress, told=told):
            told.append(progress)
            return progress.iteration >= 200

        with pytest.warns(RuntimeWarning, match="stopped by the callback"):
            run = subgradient_method(
                operator, y, initial=start, step=GeometricSteps(0.1, 0.999), steps=1000,
                callback=watch, **given,
            )  # fmt: skip
        assert run.status is SubgradientStatus.STOPPED
        assert run.steps == 200 == told[-1].iteration
        Z = run.U @ run.U.T
        assert told[-1].objective == pytest.approx(l1_loss(operator, y, Z))
        relative = (
            np.linalg.norm(Z - truth) / 2.0
            if given
            else l1_loss(operator, y, Z) / l1_loss(operator, y, np.zeros((3, 3)))
        )
        assert told[-1].error == pytest.approx(relative)


def test_every_row_counts_and_the_step_is_measured_by_the_norm():
    # Numbers of measurements that no group of four divides; Q of a negative leading eigenvalue.
    for m in (1, 2, 7, 33):
        operator = gaussian_operator(3, m, rng=rng(m))
        M, U = np.eye(3), 0.1 * rng(m + 1).standard_normal((3, 2))
        y = operator.forward(M)
        run = subgradient_method(
            operator, y, initial=U, step=GeometricSteps(0.3, 0.9), steps=3, truth=M
        )
        for t in range(3):
            Q = operator.adjoint(np.sign(operator.forward(U @ U.T) - y)) / np.sqrt(m)
            assert run.losses[t] == pytest.approx(l1_loss(operator, y, U @ U.T), rel=1e-12)
            U = U - 0.3 * 0.9**t / np.linalg.norm(Q, 2) * Q @ U
        np.testing.assert_allclose(run.U, U, rtol=1e-10)


def test_tolerances_are_relative_and_met_at_the_last_step():
    M, operator, y = problem(m=120)
    for unit in (1.0, 1e-4):
        start = spectral_start(operator, unit * y, search_rank=1, init_scale=0.5 * np.sqrt(unit))
        # Steps of unit length in the units of the problem.
        call = {"initial": start, "step": AdaptiveSteps(0.3 / unit)}
        run = subgradient_method(operator, unit * y, **call, steps=500, truth=unit * M, tol=1e-3)
        assert run.status is SubgradientStatus.REACHED
        assert run.errors[-1] <= 1e-3 * np.linalg.norm(unit * M) < run.errors[-2]
        # Without the truth the loss is looked at every hundred steps, and after the last.
        few = run.steps + 20
        assert few % 100
        fitted = subgradient_method(operator, unit * y, **call, steps=few, tol=1e-2)
        assert fitted.status is SubgradientStatus.FITTED
        assert fitted.steps == few - few % 100 or fitted.steps == few


def test_data_without_a_positive_direction_have_no_spectral_start():
    operator = gaussian_operator(3, 500, rng=rng(0))
    with pytest.raises(ValueError, match="measurements: expected data whose sign matrix"):
        spectral_start(operator, operator.forward(-np.eye(3)), search_rank=2, init_scale=0.1)
