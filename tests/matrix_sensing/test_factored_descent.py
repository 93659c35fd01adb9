import numpy as np
import pytest

from theorylab.matrix_sensing import (
    DescentStatus,
    asymmetric_gradient_descent,
    gaussian_operator,
    gradient_descent,
    rebalance,
    spectral_factor,
    spectral_factors,
)


def symmetric_truth(n, values, rng):
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0][:, : len(values)]
    M = (Q * values) @ Q.T
    return (M + M.T) / 2


def general_truth(n, p, values, rng):
    U = np.linalg.qr(rng.standard_normal((n, n)))[0][:, : len(values)]
    V = np.linalg.qr(rng.standard_normal((p, p)))[0][:, : len(values)]
    return (U * values) @ V.T


@pytest.mark.parametrize("m", [None, 6, 23])  # population, fewer measurements than unknowns, more
def test_symmetric_descent_is_gradient_descent_on_the_loss(m):
    rng = np.random.default_rng(0)
    M = symmetric_truth(4, [1.0, 0.5], rng)
    X = 0.4 * rng.standard_normal((4, 3))
    operator = None if m is None else gaussian_operator(4, m, rng=rng)
    A = None if m is None else operator.matrices

    def loss(Y):
        E = Y @ Y.T - M
        return np.sum(E**2) / 4 if m is None else np.sum(np.einsum("mij,ij->m", A, E) ** 2) / 4

    run = gradient_descent(M, search_rank=3, step_size=0.1, steps=1, operator=operator, initial=X)
    h = 1e-5
    basis = np.eye(12).reshape(12, 4, 3)
    gradient = np.array([(loss(X + h * b) - loss(X - h * b)) / (2 * h) for b in basis]).reshape(
        4, 3
    )
    # central differences of a quartic: h^2 times its third derivative, plus rounding over h
    np.testing.assert_allclose((X - run.X) / 0.1, gradient, atol=1e-8)


@pytest.mark.parametrize("m", [None, 8, 31])
def test_asymmetric_descent_is_gradient_descent_on_the_loss(m):
    rng = np.random.default_rng(1)
    M = general_truth(4, 3, [1.0, 0.5], rng)
    F, G = 0.4 * rng.standard_normal((4, 2)), 0.3 * rng.standard_normal((3, 2))
    operator = None if m is None else gaussian_operator(4, m, n_columns=3, symmetric=False, rng=rng)
    A = None if m is None else operator.matrices

    def loss(v):
        E = v[:8].reshape(4, 2) @ v[8:].reshape(3, 2).T - M
        return np.sum(E**2) / 2 if m is None else np.sum(np.einsum("mij,ij->m", A, E) ** 2) / 2

    run = asymmetric_gradient_descent(
        M, search_rank=2, step_size=0.1, steps=1, operator=operator, left=F, right=G
    )
    v, h = np.append(F, G), 1e-5
    gradient = np.array([(loss(v + h * e) - loss(v - h * e)) / (2 * h) for e in np.eye(14)])
    np.testing.assert_allclose((v - np.append(run.F, run.G)) / 0.1, gradient, atol=1e-8)


@pytest.mark.parametrize("m", [6, 23])
def test_noise_enters_as_the_data_do(m):
    rng = np.random.default_rng(11)
    M, X = symmetric_truth(4, [1.0, 0.5], rng), 0.4 * rng.standard_normal((4, 3))
    operator, s = gaussian_operator(4, m, rng=rng), 0.1 * rng.standard_normal(m)
    y = operator.forward(M) + s
    run = gradient_descent(
        M, search_rank=3, step_size=0.1, steps=3, operator=operator, noise=s, initial=X
    )
    Y = X
    for _ in range(3):
        Y = Y - 0.1 * operator.adjoint(operator.forward(Y @ Y.T) - y) @ Y
    np.testing.assert_allclose(run.X, Y, atol=1e-13)
    assert run.errors[-1] == pytest.approx(
        np.linalg.norm(Y @ Y.T - M)
    )  # against M, not against the data
    general = gaussian_operator(4, m, symmetric=False, rng=rng)
    y, G = general.forward(M) + s, 0.3 * rng.standard_normal((4, 3))
    pair = asymmetric_gradient_descent(
        M, search_rank=3, step_size=0.1, steps=1, operator=general, noise=s, left=X, right=G
    )
    D = general.adjoint(general.forward(X @ G.T) - y)
    np.testing.assert_allclose(
        np.vstack([pair.F, pair.G]), np.vstack([X - 0.1 * D @ G, G - 0.1 * D.T @ X]), atol=1e-13
    )
    with pytest.raises(ValueError, match="noise"):
        gradient_descent(M, search_rank=3, step_size=0.1, steps=1, noise=s, initial=X)


def test_with_noise_and_all_columns_the_limit_is_the_least_squares_solution():
    rng = np.random.default_rng(12)
    M, m = general_truth(3, 2, [1.0, 0.5], rng), 30
    operator, s = (
        gaussian_operator(3, m, n_columns=2, symmetric=False, rng=rng),
        0.05 * rng.standard_normal(m),
    )
    options = {"search_rank": 2, "operator": operator, "noise": s, "init_scale": 0.5, "rng": rng}
    run = asymmetric_gradient_descent(M, step_size=0.2, steps=20_000, **options)
    least = np.linalg.lstsq(operator.stacked, operator.forward(M) + s, rcond=None)[0].reshape(3, 2)
    np.testing.assert_allclose(run.F @ run.G.T, least, atol=1e-12)
    definite = np.diag([1.0, 0.8, 0.6])
    symmetric = gaussian_operator(3, m, rng=rng)
    run = gradient_descent(
        definite,
        search_rank=3,
        step_size=0.2,
        steps=20_000,
        operator=symmetric,
        noise=s,
        initial=0.5 * np.eye(3),
    )
    packed = np.linalg.lstsq(symmetric.stacked, symmetric.forward(definite) + s, rcond=None)[0]
    np.testing.assert_allclose(run.X @ run.X.T, symmetric._unflatten(packed), atol=1e-12)


@pytest.mark.parametrize("record", [None, [0, 1, 7, 40], [5], [40]])
def test_observations_are_those_of_the_recorded_iterates_and_change_nothing(record):
    M, X = np.diag([1.0, 0.5, 0.0]), 0.3 * np.random.default_rng(13).standard_normal((3, 2))
    options = {"search_rank": 2, "step_size": 0.2, "steps": 40, "record": record}
    plain, seen = gradient_descent(M, initial=X, **options), []

    def watch(Y):
        seen.append(Y)
        Y = Y.copy()
        seen[-1][:] = np.nan  # a spoilt copy must not reach the descent
        return Y

    run = gradient_descent(M, initial=X, observe=watch, **options)
    np.testing.assert_array_equal(run.X, plain.X)
    np.testing.assert_array_equal(run.iterations, plain.iterations)
    assert plain.observed == ()
    assert len(run.observed) == run.iterations.size
    for t, Y in zip(run.iterations, run.observed, strict=True):
        np.testing.assert_array_equal(
            Y, gradient_descent(M, **(options | {"steps": int(t), "record": None}), initial=X).X
        )
    pair = asymmetric_gradient_descent(
        M, left=X, right=X / 2, observe=lambda F, G: np.linalg.norm(F @ G.T - M), **options
    )
    np.testing.assert_allclose(pair.observed, pair.errors, rtol=1e-13)
    with pytest.warns(RuntimeWarning, match="overflowed"):
        wild = gradient_descent(
            M, search_rank=2, step_size=50.0, steps=100, initial=X, observe=np.linalg.norm
        )
    assert np.isfinite(wild.observed).all()
    with pytest.raises(ValueError, match="observe"):
        gradient_descent(M, initial=X, **options, observe=3)


def test_spectral_factors_are_the_best_of_their_rank():
    rng = np.random.default_rng(14)
    S = rng.standard_normal((5, 5))
    S = S + S.T
    values, vectors = np.linalg.eigh(S)
    for k in (1, 2, 7):
        X = spectral_factor(S, search_rank=k)
        top = np.maximum(values, 0) * (np.arange(5) >= 5 - k)
        np.testing.assert_allclose(X @ X.T, (vectors * top) @ vectors.T, atol=1e-12)
        assert X.shape == (5, k)
    np.testing.assert_array_equal(
        spectral_factor(S, search_rank=3)[:, :2], spectral_factor(S, search_rank=2)
    )
    T = rng.standard_normal((5, 3))
    for k in (1, 2, 3, 4):
        F, G = spectral_factors(T, search_rank=k)
        assert np.linalg.norm(F @ G.T - T) == pytest.approx(
            np.linalg.norm(np.linalg.svd(T)[1][k:]), abs=1e-12
        )
        np.testing.assert_allclose(F.T @ F, G.T @ G, atol=1e-12)
        assert (F.shape, G.shape) == ((5, k), (3, k))
    # The surrogate of enough measurements is near the truth, so descent from its factor starts
    # close.
    M, operator = symmetric_truth(5, [1.0, 0.5], rng), gaussian_operator(5, 20_000, rng=rng)
    start = spectral_factor(operator.adjoint(operator.forward(M)), search_rank=2)
    assert np.linalg.norm(start @ start.T - M) < 0.1
    with pytest.raises(ValueError, match="surrogate"):
        spectral_factor(np.triu(np.ones((2, 2))), search_rank=1)


@pytest.mark.parametrize("m", [None, 9, 40])
def test_many_steps_agree_with_plain_numpy(m):
    rng = np.random.default_rng(2)
    M = symmetric_truth(5, [1.0, 0.6], rng)
    X0, F0, G0 = (0.3 * rng.standard_normal((5, 4)) for _ in range(3))
    record = np.array([0, 1, 7, 40])
    symmetric = None if m is None else gaussian_operator(5, m, rng=rng)
    general = None if m is None else gaussian_operator(5, m, symmetric=False, rng=rng)

    def normal(operator, E):
        return (
            E
            if operator is None
            else np.einsum(
                "mij,m->ij", operator.matrices, np.einsum("mij,ij->m", operator.matrices, E)
            )
        )

    X, F, G = X0.copy(), F0.copy(), G0.copy()
    errors = []
    for t in range(41):
        E, D = X @ X.T - M, F @ G.T - M
        errors.append((np.linalg.norm(E), np.linalg.norm(D)))
        if t < 40:
            X = X - 0.1 * normal(symmetric, E) @ X
            D = normal(general, D)
            F, G = F - 0.1 * D @ G, G - 0.1 * D.T @ F
    options = {"search_rank": 4, "step_size": 0.1, "steps": 40, "record": record}
    run = gradient_descent(M, operator=symmetric, initial=X0, **options)
    np.testing.assert_allclose(run.X, X, atol=1e-12)
    np.testing.assert_allclose(run.errors, [errors[t][0] for t in record], atol=1e-12)
    other = asymmetric_gradient_descent(M, operator=general, left=F0, right=G0, **options)
    np.testing.assert_allclose(np.vstack([other.F, other.G]), np.vstack([F, G]), atol=1e-12)
    np.testing.assert_allclose(other.errors, [errors[t][1] for t in record], atol=1e-12)
    assert other.status is DescentStatus.FINISHED
    assert other.steps == 40


def test_descent_commutes_with_rotations():
    rng = np.random.default_rng(3)
    M, X = symmetric_truth(5, [1.0, 0.5], rng), 0.3 * rng.standard_normal((5, 3))
    Q, R = (
        np.linalg.qr(rng.standard_normal((5, 5)))[0],
        np.linalg.qr(rng.standard_normal((3, 3)))[0],
    )
    options = {"search_rank": 3, "step_size": 0.2, "steps": 60}
    rotated = Q @ M @ Q.T
    turned = gradient_descent((rotated + rotated.T) / 2, initial=Q @ X @ R, **options)
    np.testing.assert_allclose(
        turned.X, Q @ gradient_descent(M, initial=X, **options).X @ R, atol=1e-12
    )


def test_starts_records_and_ends():
    M = np.diag([1.0, 0.5, 0.0])
    X = np.array([[0.3, 0.0], [0.0, 0.3], [0.1, 0.1]])
    start = X.copy()
    run = gradient_descent(M, search_rank=2, step_size=0.3, steps=500, initial=X, tol=0.1)
    assert run.status is DescentStatus.CONVERGED
    assert run.errors[-1] <= 0.1 * np.linalg.norm(M) < run.errors[-2]
    assert run.iterations[0] == 0
    assert (np.diff(run.iterations) > 0).all()
    large = gradient_descent(
        100 * M, search_rank=2, step_size=0.003, steps=500, initial=X, tol=0.1
    )  # tol is relative
    before = gradient_descent(
        100 * M, search_rank=2, step_size=0.003, steps=large.steps - 1, initial=X
    )
    assert large.errors[-1] <= 0.1 * np.linalg.norm(100 * M) < before.errors[-1]
    recorded = gradient_descent(M, search_rank=2, step_size=0.3, steps=10_000, initial=X).iterations
    assert (recorded >= 1000).sum() in (16, 17, 18)  # the last decade
    np.testing.assert_array_equal(X, start)  # the start is not overwritten
    none = gradient_descent(M, search_rank=2, step_size=0.3, steps=0, initial=X)
    np.testing.assert_array_equal(none.X, X)
    assert none.steps == 0
    scaled = [
        gradient_descent(
            M, search_rank=2, step_size=0.3, steps=0, init_scale=s, rng=np.random.default_rng(4)
        ).X
        for s in (1, 2)
    ]
    np.testing.assert_array_equal(scaled[1], 2 * scaled[0])
    drawn = [
        asymmetric_gradient_descent(
            M,
            search_rank=2,
            step_size=0.1,
            steps=0,
            right_ratio=q,
            init_scale=2,
            rng=np.random.default_rng(4),
        )
        for q in (0.5, 1.0)
    ]
    np.testing.assert_array_equal([drawn[0].F, 2 * drawn[0].G], [scaled[1], drawn[1].G])
    pair = asymmetric_gradient_descent(
        M, search_rank=2, step_size=0.1, steps=3, rng=np.random.default_rng(4)
    )
    np.testing.assert_allclose(pair.imbalance, pair.F.T @ pair.F - pair.G.T @ pair.G)
    with pytest.warns(RuntimeWarning, match="raise steps"):
        assert (
            gradient_descent(M, search_rank=2, step_size=0.1, steps=3, initial=X, tol=1e-9).status
            is DescentStatus.NOT_CONVERGED
        )
    with pytest.warns(RuntimeWarning, match="overflowed"):
        wild = gradient_descent(M, search_rank=2, step_size=50.0, steps=100, initial=X)
    assert wild.status is DescentStatus.DIVERGED


def test_without_tol_all_steps_are_taken_from_an_exact_start_too():
    M, X, rng = np.diag([1.0, 0.0]), np.array([[1.0], [0.0]]), np.random.default_rng(5)
    options = {"search_rank": 1, "step_size": 0.1, "steps": 4}
    assert gradient_descent(M, initial=X, **options).status is DescentStatus.FINISHED
    assert asymmetric_gradient_descent(M, left=X, right=X, **options).steps == 4
    assert gradient_descent(M, initial=X, **options, tol=1e-3).status is DescentStatus.CONVERGED
    operator = gaussian_operator(2, 5, rng=rng)
    noisy = gradient_descent(
        M, initial=X, operator=operator, noise=np.ones(5), **options
    )  # noise drives it off the truth
    assert noisy.steps == 4
    assert noisy.errors[-1] > 0.1


def test_spectral_factors_have_no_columns_of_rounding():
    M = symmetric_truth(5, [1.0, 0.5], np.random.default_rng(6))
    for factor in (spectral_factor(M, search_rank=4), *spectral_factors(M, search_rank=4)):
        assert not factor[:, 2:].any()
        np.testing.assert_allclose(
            np.linalg.norm(factor[:, :2], axis=0), np.sqrt([1.0, 0.5]), rtol=1e-13
        )


def test_inconsistent_arguments_are_refused():
    M, X = np.diag([1.0, 0.0]), np.ones((2, 1))
    options = {"search_rank": 1, "step_size": 0.1, "steps": 3}
    with pytest.raises(ValueError, match="initial"):
        gradient_descent(M, initial=X, rng=np.random.default_rng(0), **options)
    with pytest.raises(ValueError, match="left"):
        asymmetric_gradient_descent(M, right=X, **options)
    with pytest.raises(ValueError, match="truth"):
        gradient_descent(np.array([[1.0, 0.1], [0.0, 1.0]]), initial=X, **options)
    with pytest.raises(ValueError, match="record"):
        gradient_descent(M, initial=X, record=[0, 4], **options)
    with pytest.raises(ValueError, match="operator"):
        gradient_descent(
            M,
            initial=X,
            operator=gaussian_operator(2, 3, symmetric=False, rng=np.random.default_rng(0)),
            **options,
        )
    with pytest.raises(ValueError, match="operator"):
        asymmetric_gradient_descent(
            M,
            left=X,
            right=X,
            operator=gaussian_operator(2, 3, rng=np.random.default_rng(0)),
            **options,
        )


def test_rebalance_keeps_the_product_and_levels_the_left_factor():
    rng = np.random.default_rng(9)
    F, G = rng.standard_normal((6, 3)), rng.standard_normal((5, 3))
    left, right = rebalance(F, G, scale=0.7)
    np.testing.assert_allclose(left @ right.T, F @ G.T, atol=1e-13)
    np.testing.assert_allclose(left.T @ left, 0.49 * np.eye(3), atol=1e-14)
    singular = np.linalg.svd(F @ G.T, compute_uv=False)[:3]
    np.testing.assert_allclose(np.linalg.svd(right, compute_uv=False), singular / 0.7, atol=1e-13)
    # the left factor is the orthonormal matrix nearest to F
    values = np.linalg.svd(F, compute_uv=False)
    assert abs(np.linalg.norm(F - left / 0.7) - np.linalg.norm(values - 1)) <= 1e-13
    with pytest.raises(ValueError, match="F"):
        rebalance(F.T, rng.standard_normal((5, 6)), scale=1.0)


def test_an_unknown_matrix_is_recovered_from_its_measurements_alone():
    rng = np.random.default_rng(8)
    V, W = rng.standard_normal((6, 2)), rng.standard_normal((5, 2))
    M, L = V @ V.T / 6, V @ W.T / 6
    for operator, matrix in (
        (gaussian_operator(6, 60, rng=rng), M),
        (gaussian_operator(6, 100, n_columns=5, symmetric=False, rng=rng), L),
        (gaussian_operator(6, 18, rng=rng), M),  # fewer than the 21 dimensions of the matrices
    ):
        y = operator.forward(matrix)
        call = {"search_rank": 2, "step_size": 0.2, "steps": 20_000, "operator": operator}
        if operator.symmetric:
            start = {"initial": 0.3 * spectral_factor(operator.adjoint(y), search_rank=2)}
            run = gradient_descent(**call, **start, measurements=y, tol=1e-8)
            found = run.X @ run.X.T
            known = gradient_descent(matrix, **call, **start, tol=1e-8)
            both = gradient_descent(matrix, **call, **start, measurements=y, tol=1e-8)
            assert np.array_equal(known.X, both.X)
        else:
            run = asymmetric_gradient_descent(**call, measurements=y, rng=rng, tol=1e-8)
            found = run.F @ run.G.T
        assert run.status is DescentStatus.FITTED
        assert np.linalg.norm(found - matrix) < 1e-6 * np.linalg.norm(matrix)
        assert run.errors[-1] == pytest.approx(np.linalg.norm(operator.forward(found) - y))
        assert run.errors[-1] <= 1e-8 * np.linalg.norm(y)


def test_noise_may_come_within_the_measurements():
    rng = np.random.default_rng(9)
    operator, noise = gaussian_operator(4, 30, rng=rng), 0.01 * rng.standard_normal(30)
    M = np.diag([1.0, 0.5, 0.0, 0.0])
    call = {"search_rank": 3, "step_size": 0.2, "steps": 50, "operator": operator}
    start = 0.3 * rng.standard_normal((4, 3))
    by_noise = gradient_descent(M, **call, noise=noise, initial=start)
    data = operator.forward(M) + noise
    assert (
        pytest.approx(by_noise.X, rel=1e-10)
        == gradient_descent(M, **call, measurements=data, initial=start).X
    )
    blind = gradient_descent(**call, measurements=data, initial=start)
    assert pytest.approx(by_noise.X, rel=1e-10) == blind.X
    with pytest.raises(ValueError, match="noise: "):
        gradient_descent(M, **call, noise=noise, measurements=data, initial=start)
    with pytest.raises(ValueError, match="truth: "):
        gradient_descent(**call, initial=start)
    with pytest.raises(ValueError, match="measurements: "):
        gradient_descent(M, search_rank=3, step_size=0.2, steps=5, measurements=data, initial=start)
    with pytest.warns(RuntimeWarning, match="relative residual"):
        run = gradient_descent(**call, measurements=data, initial=start, tol=1e-8)
    assert run.status is DescentStatus.NOT_FITTED


def test_portions_between_which_an_interrupt_gets_in_change_nothing(monkeypatch):
    M = np.diag([1.0, 0.5, 0.0])
    options = {"search_rank": 2, "step_size": 0.1, "steps": 50, "record": [0, 3, 40]}
    for descend in (gradient_descent, asymmetric_gradient_descent):
        runs = []
        for portion in (1, 180, 10**8):  # one step, ten, all
            monkeypatch.setattr("theorylab.matrix_sensing.factored_descent._PORTION", portion)
            runs.append(descend(M, rng=np.random.default_rng(0), **options))
        for run in runs[:2]:
            np.testing.assert_array_equal(run.iterations, runs[2].iterations)
            np.testing.assert_array_equal(run.errors, runs[2].errors)


def test_a_callback_is_told_objective_and_error_and_stops():
    rng = np.random.default_rng(0)
    U, s = rng.standard_normal((4, 2)), 0.1 * rng.standard_normal(12)
    M, start = U @ U.T, rng.standard_normal((4, 3))
    operator = gaussian_operator(4, 12, rng=rng)
    y = operator.forward(M) + s
    call = {"search_rank": 3, "step_size": 0.01, "steps": 30, "record": [0, 5, 20]}
    for data in ({"truth": M, "noise": s}, {"truth": M, "measurements": y}, {"measurements": y}):
        told = []

        def watch(progress, told=told):
            told.append(progress)
            return progress.iteration == 5

        with pytest.warns(RuntimeWarning, match="stopped by the callback"):
            run = gradient_descent(
                **call, **data, operator=operator, initial=start, callback=watch, tol=1e-9
            )
        assert run.status is DescentStatus.STOPPED
        assert run.iterations.tolist() == [0, 5] == [p.iteration for p in told]
        misfit = np.linalg.norm(operator.forward(run.X @ run.X.T) - y)
        error = np.linalg.norm(run.X @ run.X.T - M) / np.linalg.norm(M)
        assert told[-1].objective == pytest.approx(misfit**2 / 4)
        known = misfit / np.linalg.norm(y) if "truth" not in data else error
        assert told[-1].error == pytest.approx(known)
    told = []
    asymmetric_gradient_descent(M, **call, left=start, right=start, callback=told.append)
    assert told[0].objective == pytest.approx(np.sum((start @ start.T - M) ** 2) / 2)
    assert told[0].error == pytest.approx(
        np.linalg.norm(start @ start.T - M) / np.linalg.norm(M), rel=1e-12
    )


def test_the_error_asked_for_is_relative_to_the_target():
    M, start = np.diag([8.0, 0.0]), np.array([[1.0], [0.1]])
    call = {"search_rank": 1, "step_size": 1e-3, "steps": 10_000, "tol": 1e-2}
    symmetric = gradient_descent(M, **call, initial=start)
    general = asymmetric_gradient_descent(M, **call, left=start, right=start)
    for run in (symmetric, general):
        assert run.status is DescentStatus.CONVERGED
        assert 0.07 < run.errors[-1] <= 0.08


def test_an_unknown_matrix_is_fitted_at_recorded_iterations_with_a_callback_as_without(monkeypatch):
    operator = gaussian_operator(3, 20, rng=np.random.default_rng(0))
    y = operator.forward(np.diag([1.0, 0.0, 0.0]))
    call = {"search_rank": 1, "step_size": 0.1, "steps": 3000, "record": [0, 2000]}
    call |= {"operator": operator, "measurements": y, "initial": np.full((3, 1), 0.5), "tol": 1e-3}
    monkeypatch.setattr("theorylab.matrix_sensing.factored_descent._PORTION", 500)
    told = []
    watched, alone = gradient_descent(**call, callback=told.append), gradient_descent(**call)
    assert min(p.error for p in told if p.iteration < 2000) < 1e-3
    assert watched.status is alone.status is DescentStatus.FITTED
    assert watched.iterations.tolist() == alone.iterations.tolist() == [0, 2000]
