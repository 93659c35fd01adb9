import tracemalloc

import numpy as np
import pytest
from scipy.sparse.linalg import lsmr

from theorylab.matrix_sensing import (
    MeasurementOperator,
    contaminate,
    entry_operator,
    fourier_operator,
    gaussian_operator,
    pauli_operator,
    rank_one_operator,
    restricted_isometry,
    sign_deviation,
    sign_scaling,
)
from theorylab.matrix_sensing._sign_cover import families, largest_bound

SHAPES = [(4, 9, None, True), (3, 7, 5, False), (1, 1, None, True), (5, 3, 2, False)]


def operator_of(n, m, n_columns, symmetric, seed=0):
    return gaussian_operator(
        n, m, n_columns=n_columns, symmetric=symmetric, rng=np.random.default_rng(seed)
    )


@pytest.mark.parametrize("spec", SHAPES)
def test_products_are_inner_products_with_the_matrices(spec):
    operator = operator_of(*spec)
    rng = np.random.default_rng(1)
    M, y = rng.standard_normal(operator.shape), rng.standard_normal(operator.n_measurements)
    A = operator.matrices
    forward = np.array([np.trace(a.T @ M) for a in A])
    np.testing.assert_allclose(operator.forward(M), forward, atol=1e-13)
    np.testing.assert_allclose(
        operator.adjoint(y), sum(c * a for c, a in zip(y, A, strict=True)), atol=1e-13
    )
    np.testing.assert_allclose(
        operator.normal(M), sum(c * a for c, a in zip(forward, A, strict=True)), atol=1e-13
    )


def test_symmetric_measurements_are_symmetric_and_agree_with_their_general_form():
    operator = operator_of(5, 11, None, True)
    A = operator.matrices
    np.testing.assert_array_equal(A, A.transpose(0, 2, 1))
    general = MeasurementOperator(A.reshape(11, -1), 5, 5, False)
    M = np.random.default_rng(2).standard_normal((5, 5))
    np.testing.assert_allclose(operator.forward(M), general.forward(M), atol=1e-13)
    np.testing.assert_allclose(operator.normal(M), general.normal(M), atol=1e-13)
    assert operator.stacked.size == 11 * 15


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_mean_normal_map_is_the_identity(symmetric):
    m = 40_000
    operator = operator_of(3, m, None, symmetric)
    M = np.array([[1.0, 0.4, 0.0], [0.4, -0.5, 2.0], [0.0, 2.0, 0.3]])
    # Each entry of A*A(M) is a mean of m terms with variance at most 2 |M|^2.
    deviation = 6 * np.sqrt(2 / m) * np.linalg.norm(M)
    np.testing.assert_allclose(operator.normal(M), M, atol=deviation)
    variance = m * operator.matrices.var(axis=0)
    expected = np.where(np.eye(3, dtype=bool), 1.0, 0.5 if symmetric else 1.0)
    np.testing.assert_allclose(variance, expected, atol=6 * np.sqrt(2 / m))


def test_scipy_recovers_a_matrix_from_enough_measurements():
    operator = operator_of(4, 20, 3, False)
    M = np.random.default_rng(3).standard_normal((4, 3))
    solution = lsmr(operator.as_linear_operator(), operator.forward(M), atol=1e-14, btol=1e-14)[0]
    np.testing.assert_allclose(solution.reshape(4, 3), M, atol=1e-9)
    rank_one = operator.as_linear_operator()
    v, w = (
        np.random.default_rng(4).standard_normal(12),
        np.random.default_rng(5).standard_normal(20),
    )
    assert abs(w @ (rank_one @ v) - v @ (rank_one.T @ w)) <= 1e-12


def test_bad_operators_are_refused():
    with pytest.raises(ValueError, match="stacked"):
        MeasurementOperator(np.ones((2, 5)), 2, 2, False)
    with pytest.raises(ValueError, match="n_columns"):
        MeasurementOperator(np.ones((2, 6)), 2, 3, True)
    with pytest.raises(ValueError, match="symmetric"):
        MeasurementOperator(np.ones((2, 4)), 2, 2, 1)
    operator = operator_of(3, 4, None, True)
    with pytest.raises(ValueError, match="matrix"):
        operator.forward(np.ones((2, 2)))
    with pytest.raises(ValueError, match="matrix"):
        operator.normal(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="values"):
        operator.adjoint(np.ones(3))


def rng(seed=0):
    return np.random.default_rng(seed)


BASES = {
    "entries": lambda m: entry_operator(3, m, n_columns=4, symmetric=False, rng=rng()),
    "symmetric entries": lambda m: entry_operator(4, m, rng=rng()),
    "waves": lambda m: fourier_operator(3, m, n_columns=4, rng=rng()),
    "Pauli strings": lambda m: pauli_operator(2, m, rng=rng()),
}


@pytest.mark.parametrize("kind", BASES)
def test_a_whole_basis_is_an_isometry_and_a_part_of_it_a_scaled_projection(kind):
    full = 10 if kind in ("symmetric entries", "Pauli strings") else 12
    operator = BASES[kind](full)
    np.testing.assert_allclose(operator.stacked @ operator.stacked.T, np.eye(full), atol=1e-14)
    part = BASES[kind](5)
    np.testing.assert_allclose(part.stacked @ part.stacked.T, full / 5 * np.eye(5), atol=1e-14)
    with pytest.raises(ValueError, match="m: expected at most"):
        BASES[kind](full + 1)


def test_pauli_strings_square_to_the_identity_and_commute_or_anticommute():
    A = (
        pauli_operator(2, 10, rng=rng()).matrices * 2
    )  # orthonormal strings are Pauli words over sqrt(n)
    for a in A:
        np.testing.assert_allclose(a @ a, np.eye(4), atol=1e-14)
        for b in A:
            assert min(np.abs(a @ b - b @ a).max(), np.abs(a @ b + b @ a).max()) < 1e-14


def test_waves_are_the_real_fourier_transform():
    operator = fourier_operator(3, 12, n_columns=4, rng=rng())
    M = rng(1).standard_normal((3, 4))
    transform = np.fft.fft2(M) / np.sqrt(12)
    hartley = transform.real - transform.imag
    np.testing.assert_allclose(np.sort(operator.forward(M)), np.sort(hartley.ravel()), atol=1e-13)


def test_waves_take_the_memory_of_the_operator():
    tracemalloc.start()
    operator = fourier_operator(40, 400, rng=rng())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert operator.stacked.nbytes < peak < 1.5 * operator.stacked.nbytes


@pytest.mark.parametrize("symmetric", [True, False])
def test_rank_one_measurements_have_rank_one_and_the_stated_mean(symmetric):
    m = 60_000
    operator = rank_one_operator(3, m, symmetric=symmetric, rng=rng())
    np.testing.assert_allclose(
        np.linalg.svd(operator.matrices[:5], compute_uv=False)[:, 1:], 0, atol=1e-15
    )
    M = np.array([[1.0, 0.4, 0.0], [0.4, -0.5, 2.0], [0.0, 2.0, 0.3]])
    mean = M + (np.trace(M) / 2 * np.eye(3) if symmetric else 0)
    terms = m * operator.forward(M)[:, None, None] * operator.matrices
    np.testing.assert_array_less(
        np.abs(terms.mean(axis=0) - mean), 6 * terms.std(axis=0) / np.sqrt(m)
    )


OPERATORS = {
    "symmetric Gaussian": lambda: gaussian_operator(2, 12, rng=rng()),
    "Gaussian": lambda: gaussian_operator(2, 9, n_columns=2, symmetric=False, rng=rng(1)),
    "rank one": lambda: rank_one_operator(2, 9, rng=rng(2)),
    "entries": lambda: entry_operator(2, 2, rng=rng(3)),
}


def dense_family(operator, rank):
    """All unit matrices of the rank on a fine grid of angles, for matrices of size 2."""
    angles = np.linspace(0, np.pi, 121)
    u = np.column_stack([np.cos(angles), np.sin(angles)])
    if rank == 1:
        pairs = u[:, None, :, None] * (
            u[:, None, None, :] if operator.symmetric else u[None, :, None, :]
        )
        return pairs.reshape(-1, 2, 2)
    first, second = u[:, :, None] * u[:, None, :], np.eye(2) - u[:, :, None] * u[:, None, :]
    return np.array(
        [np.cos(t) * first + np.sin(t) * second for t in np.linspace(0, np.pi, 121)]
    ).reshape(-1, 2, 2)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("rank", [1, 2])
def test_restricted_isometry_against_a_grid_of_all_matrices(kind, rank):
    operator = OPERATORS[kind]()
    result = restricted_isometry(operator, rank=rank, rng=rng(9))
    assert np.linalg.matrix_rank(result.matrix, tol=1e-9) <= rank
    assert np.linalg.norm(result.matrix) == pytest.approx(1)
    assert abs(np.sum(operator.forward(result.matrix) ** 2) - 1) == pytest.approx(
        result.found, abs=1e-12
    )
    assert result.found <= result.bound * (1 + 1e-12)
    if rank == 2:  # every matrix is allowed: the spectral bound is the supremum
        assert result.found == pytest.approx(result.bound, rel=1e-6)
    if rank == 1 or operator.symmetric:
        grid = dense_family(operator, rank)
        on_grid = np.abs(np.sum((operator.stacked @ flat(operator, grid)) ** 2, axis=0) - 1).max()
        # Half a grid step moves X by at most 2 pi / 240 in norm.
        assert on_grid - 1e-12 <= result.found <= on_grid + 4 * (1 + result.bound) * 2 * np.pi / 240


def flat(operator, matrices):
    return np.array([operator._flatten(np.ascontiguousarray(X)) for X in matrices]).T


def test_unfoldings_bound_what_the_spectrum_does_not():
    # H = A*A - Id = 0.5 vec(I) vec(I)^T has norm n/2, but <uv^T, H uv^T> = <u, v>^2 / 2 is at most
    # 1/2.
    n = 4
    root = np.linalg.cholesky(np.eye(n * n) + 0.5 * np.outer(np.eye(n), np.eye(n))).T
    result = restricted_isometry(MeasurementOperator(root, n, n, False), rank=1, rng=rng())
    assert result.found == pytest.approx(0.5, rel=1e-6)
    assert result.bound == pytest.approx(0.5, rel=1e-9)


def test_scaling_the_measurements_moves_the_isometry_constant_exactly():
    operator = gaussian_operator(4, 30, rng=rng(4))
    double = MeasurementOperator(np.sqrt(3) * operator.stacked, 4, 4, True)
    one, two = (restricted_isometry(o, rank=1, rng=rng(5), starts=20) for o in (operator, double))
    values = np.sum(operator.forward(one.matrix) ** 2)
    assert two.found >= abs(3 * values - 1) - 1e-9


@pytest.mark.parametrize("kind", ["symmetric Gaussian", "Gaussian"])
def test_sign_deviation_against_a_grid(kind):
    operator = OPERATORS[kind]()
    m = operator.n_measurements
    noise, phi = np.where(np.arange(m) % 4 == 0, 7.0, 0.0), 0.6
    result = sign_deviation(
        operator, noise, rank=1, scaling=phi, rng=rng(6), starts=20, iterations=300
    )
    X = dense_family(operator, 1)
    X = np.concatenate([X, -X])
    signs = np.sign(operator.stacked @ flat(operator, X) - noise[:, None] / np.sqrt(m))
    deviations = [
        np.linalg.norm(operator.adjoint(np.ascontiguousarray(e)) / np.sqrt(m) - phi * x, 2) / phi
        for e, x in zip(signs.T, X, strict=True)
    ]
    assert np.linalg.norm(result.matrix) == pytest.approx(1)
    # The grid may miss a cell of constant signs; within a cell the value moves by at most the
    # distance of X.
    assert max(deviations) * 0.95 <= result.found <= result.bound


FAMILIES = [
    ((2, 2), 1, True),
    ((4, 4), 1, True),
    ((2, 2), 2, True),
    ((3, 2), 1, False),
    ((1, 4), 1, False),
    ((2, 2), 2, False),
]


@pytest.mark.parametrize(("shape", "rank", "symmetric"), FAMILIES)
def test_families_cover_every_matrix_and_nothing_else(shape, rank, symmetric):
    generator, members = rng(7), families(shape, rank, symmetric=symmetric)
    for family in members:
        X = family.embed(
            family.centres + family.halves * generator.uniform(-1, 1, family.centres.shape)
        )
        np.testing.assert_allclose(np.linalg.norm(X, axis=(1, 2)), 1.0)
        assert max(np.linalg.matrix_rank(x, tol=1e-12) for x in X) <= rank
        # The Lipschitz constant, on pairs of points of one cell.
        moves = [family.halves * generator.uniform(-1, 1, family.centres.shape) for _ in range(2)]
        images = [family.embed(family.centres + move) for move in moves]
        steps = np.linalg.norm(moves[0] - moves[1], axis=1)
        assert (
            np.linalg.norm(images[0] - images[1], axis=(1, 2))
            <= family.lipschitz * steps * (1 + 1e-12)
        ).all()
    for _ in range(20):
        left = generator.standard_normal((shape[0], rank))
        right = (
            left * generator.choice([-1, 1], rank)
            if symmetric
            else generator.standard_normal((shape[1], rank))
        )
        T = left @ right.T / np.linalg.norm(left @ right.T)

        def closeness(X, radius, T=T):
            return radius - np.linalg.norm(X - T, axis=(1, 2))

        # The maximum over the matrices is 0, at T: a bound below says that T is in no cell.
        nearest = max(largest_bound(family, closeness, found=0.0, cells=4000) for family in members)
        assert 0 <= nearest <= 0.5


@pytest.mark.parametrize(
    ("n", "rank", "cells", "ratio"),
    [(2, 1, 20_000, 1.02), (2, 2, 20_000, 1.05), (3, 1, 100_000, 1.3)],
)
def test_the_sign_deviation_is_enclosed_in_few_dimensions(n, rank, cells, ratio):
    m = 400
    operator = gaussian_operator(n, m, rng=rng(1))
    noise = np.sqrt(m) * contaminate(m, outlier_fraction=0.3, spread=10.0, rng=rng(2))
    phi = sign_scaling(1.0, outlier_fraction=0.3, spread=10.0)
    options = {"rank": rank, "scaling": phi, "starts": 8, "iterations": 200}
    result = sign_deviation(operator, noise, rng=rng(3), cells=cells, **options)
    assert result.found <= result.bound <= ratio * result.found
    coarse = sign_deviation(operator, noise, rng=rng(3), cells=2000, **options)
    assert coarse.found == result.found
    assert coarse.bound >= result.bound
    # Any other matrix of the rank stays below.
    for seed in range(200):
        left = rng(seed).standard_normal((n, rank))
        X = (left * rng(seed + 1).choice([-1, 1], rank)) @ left.T
        X /= np.linalg.norm(X)
        D = (
            operator.adjoint(np.sign(operator.forward(X) - noise / np.sqrt(m))) / np.sqrt(m)
            - phi * X
        )
        assert np.linalg.norm(np.sort(np.abs(np.linalg.eigvalsh(D)))[-rank:]) / phi <= result.bound


def test_in_many_dimensions_the_sign_deviation_is_bounded_by_the_spectrum():
    operator = gaussian_operator(6, 50, rng=rng(1))
    result = sign_deviation(
        operator, np.zeros(50), rank=2, scaling=0.8, rng=rng(2), starts=1, iterations=5
    )
    assert result.bound == pytest.approx(1 + np.linalg.norm(operator.stacked, 2) / 0.8, rel=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_restricted_isometry_of_a_trace_seen_too_well(rank):
    # |A(X)|^2 = |X|^2 + t tr(X)^2 / n, and tr(X)^2 <= r |X|^2: the constant is t r / n exactly.
    n, t = 4, 0.6
    v = np.array([float(i == j) for i in range(n) for j in range(i + 1)]) / np.sqrt(n)
    stacked = np.eye(10) + (np.sqrt(1 + t) - 1) * np.outer(v, v)
    operator = MeasurementOperator(stacked, n, n, True)
    found = restricted_isometry(operator, rank=rank, rng=np.random.default_rng(0))
    assert found.found == pytest.approx(t * rank / n, rel=1e-6)
    assert found.found * (1 - 1e-12) <= found.bound <= t * (1 + 1e-12)
    assert np.linalg.matrix_rank(found.matrix, tol=1e-4) == rank
    # Attained: at full rank the bound is the constant.
    full = restricted_isometry(operator, rank=n, rng=np.random.default_rng(0))
    assert full.bound == pytest.approx(t, rel=1e-9)


def test_an_entry_that_is_missed_is_the_restricted_deviation():
    # |A(X)|^2 is 0 there, and 4/3 at the others
    operator = entry_operator(2, 3, symmetric=False, rng=np.random.default_rng(0))
    deviation = restricted_isometry(operator, rank=1, rng=np.random.default_rng(1))
    assert deviation.found == pytest.approx(1.0, abs=1e-9)
    assert deviation.bound == pytest.approx(1.0, abs=1e-9)
    assert np.abs(operator.forward(deviation.matrix)).max() <= 1e-6


def test_the_deviation_at_rank_one_is_bounded_by_the_better_unfolding():
    better = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        operator = gaussian_operator(2, 40, n_columns=3, symmetric=False, rng=rng)
        four = np.einsum("aij,akl->ijkl", operator.matrices, operator.matrices)
        four -= np.einsum("ik,jl->ijkl", np.eye(2), np.eye(3))
        norms = [
            np.linalg.norm(np.einsum(f"ijkl->{axes}", four).reshape(shape), 2)
            for axes, shape in (("ijkl", (6, 6)), ("ikjl", (4, 9)), ("ilkj", (6, 6)))
        ]
        better.add(int(np.argmin(norms)))
        bound = restricted_isometry(operator, rank=1, rng=rng, starts=1).bound
        assert bound == pytest.approx(min(norms), rel=1e-9)
    assert len(better) > 1


@pytest.mark.parametrize(("n", "rank"), [(2, 1), (3, 1), (2, 2)])
def test_a_coarse_cover_bounds_what_its_centres_do_not_see(n, rank):
    # noise so large that no sign changes: the value is |B - phi X| over phi, most at X = -B / |B|
    m = 12
    operator = gaussian_operator(n, m, rng=rng(n))
    noise = 1e3 * np.where(np.arange(m) % 3, 1.0, -1.0)
    B = operator.adjoint(-np.sign(noise)) / np.sqrt(m)
    values, vectors = np.linalg.eigh(B)
    if rank == 1:
        u = vectors[:, np.argmax(np.abs(values))]
        most = np.abs(values).max() / 0.5 + 1.0
        X = -np.sign(u @ B @ u) * np.outer(u, u)
    else:
        most, X = np.linalg.norm(B) / 0.5 + 1.0, -B / np.linalg.norm(B)
    sizes = np.sort(np.abs(np.linalg.eigvalsh(B - 0.5 * X)))[-rank:]
    assert np.linalg.norm(sizes) / 0.5 == pytest.approx(most)
    for cells in (1, 3000):
        result = sign_deviation(
            operator, noise, rank=rank, scaling=0.5, rng=rng(0), cells=cells, iterations=300
        )
        assert result.found <= most * (1 + 1e-12)
        assert most <= result.bound * (1 + 1e-12)
    assert result.found >= 0.99 * most
