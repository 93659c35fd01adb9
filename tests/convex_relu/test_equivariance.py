"""Every solver answers a rescaled, permuted or padded problem with the answer of the problem."""

import warnings

import numpy as np
import pytest

from theorylab.convex_relu import (
    basis_pursuit,
    collapse_radius,
    corridor_widths,
    dual_norm,
    enumerate_arrangements,
    find_optimal_set,
    fit_penalized_biases,
    minimal_path_norm,
    prune_layer,
    recover_neuron,
    stability_radii,
    train,
    train_admm,
    train_gated,
    train_output_layer,
    train_robust,
    zero_threshold,
)

FACTORS = [1e-8, 1e-6, 1e-4, 1e-2, 1e2, 1e4, 1e6, 1e8]
TOLERANCE = 1e-8


def problem(n=9, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


# Each solver maps (X, y, share) to (values, degree in X, degree in y); its penalty is that share of
# the smallest one at which the solution vanishes.


def penalised(solver, share=0.1, **options):
    def value(X, y):
        beta = share * zero_threshold(X, y)
        result = solver(X, y, beta, **options)
        assert np.isfinite(result.gap)
        return result.objective, bad(result)

    return value


def bad(result):
    """Whether the solver itself says that it fell short."""
    status = getattr(result, "status", None)
    return status is not None and status.name not in {"CERTIFIED", "SOLVED"}


def labels(loss, **options):
    def value(X, y):
        t = np.where(y > 0.0, 1.0, -1.0)
        beta = 0.1 * zero_threshold(X, t, loss=loss)
        result = train(X, t, beta, loss=loss, **options)
        return result.objective, bad(result)

    return value


def sampled(X, y):
    # All cells but those that a fixed direction opens; the same cells for every unit.
    D = enumerate_arrangements(X)
    keep = D[np.lexsort(D.T)][::2]
    result = train(X, y, 0.1 * zero_threshold(X, y), arrangements=keep)
    return result.objective, bad(result)


def gated(X, y):
    result = train_gated(X, y, 0.1 * zero_threshold(X, y), enumerate_arrangements(X))
    return result.objective, bad(result)


def robust(loss, ball):
    def value(X, y):
        t = np.where(y > 0.0, 1.0, -1.0) if loss == "hinge" else y
        eps = 0.3 * corridor_widths(X, ball=ball).max()
        beta = 0.1 * zero_threshold(X, t, loss="hinge" if loss == "hinge" else "squared")
        result = train_robust(X, t, beta, eps=eps, loss=loss, ball=ball)
        return result.objective, bad(result)

    return value


def admm(X, y):
    result = train_admm(X, y, 0.2 * zero_threshold(X, y), tol=1e-9)
    return result.objective, bad(result)


def output_layer(X, y):
    angles = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
    u = np.pad(np.column_stack([np.cos(angles), np.sin(angles)]), ((0, 0), (0, X.shape[1] - 2)))
    return train_output_layer(X, y, 0.1 * zero_threshold(X, y), u).objective, False


def optimal_set(X, y):
    found = find_optimal_set(X, y, 0.1 * zero_threshold(X, y))
    return found.total, found.status.name == "UNDECIDED"


def interpolation(X, y):
    result = train(X, y, 0.0)
    return result.objective, bad(result)


def pruned(X, y):
    # Weights of the size of the targets, samples of the size of the data; exact to its tolerance.
    W = np.outer(np.linspace(1.0, 2.0, X.shape[1]), [1.0, -1.0]) * np.abs(y).max()
    size = np.linalg.norm(np.maximum(X @ W, 0.0))
    result = prune_layer(X, W, 0.1 * size, tol=1e-9, max_iter=100_000)
    return result.objective, bad(result)


def weights(X, y):
    return np.linspace(1.0, 2.0, X.shape[1]) * np.abs(y).max()


# Degrees: f(s X, t y) = s^a t^b f(X, y).
SOLVERS = {
    "train": (penalised(train), 0, 2),
    "train, several outputs": (penalised(lambda X, y, b: train(X, np.c_[y, 0.5 * y], b)), 0, 2),
    "train, skip": (penalised(train, skip=True), 0, 2),
    "train, small penalty": (penalised(train, share=1e-7), 0, 2),
    "train at zero": (interpolation, -1, 1),
    "logistic": (labels("logistic"), 0, 0),
    "hinge": (labels("hinge"), 0, 0),
    "sampled": (sampled, 0, 2),
    "gated": (gated, 0, 2),
    "robust hinge linf": (robust("hinge", "linf"), 0, 0),
    "robust hinge l2": (robust("hinge", "l2"), 0, 0),
    "robust squared linf": (robust("squared", "linf"), 0, 2),
    "robust squared l2": (robust("squared", "l2"), 0, 2),
    "admm": (admm, 0, 2),
    "output layer": (output_layer, 0, 2),
    "threshold": (lambda X, y: (zero_threshold(X, y), False), 1, 1),
    "dual norm": (lambda X, y: (dual_norm(X, y).value, False), 1, 1),
    "optimal set": (optimal_set, -1, 1),
    "corridor linf": (lambda X, y: (corridor_widths(X, ball="linf").max(), False), 1, 0),
    "corridor l2": (lambda X, y: (corridor_widths(X, ball="l2").max(), False), 1, 0),
    "collapse": (
        lambda X, y: (collapse_radius(X, y, 0.2 * zero_threshold(X, y), loss="squared"), False),
        1,
        0,
    ),
    "stability": (
        lambda X, y: (
            stability_radii(train(X, y, 0.1 * zero_threshold(X, y)).network, X).max(),
            False,
        ),
        1,
        0,
    ),
    "recover neuron": (lambda X, y: (np.abs(recover_neuron(X, weights(X, y))).sum(), False), 0, 1),
    "basis pursuit": (
        lambda X, y: (np.abs(basis_pursuit(X.T, X.T @ y)).sum(), False),
        0,
        1,
    ),
    "prune layer": (pruned, 0, 1),
}
# With a bias only targets may be rescaled; the data are a column of the first coordinate.
UNIVARIATE = {
    "penalised biases": (
        lambda x, y: (fit_penalized_biases(x, y, 1e-2 * np.abs(y).max()).objective, False),
        2,
    ),
    "path norm": (lambda x, y: (minimal_path_norm(x, y), False), 1),
    "train with bias": (
        lambda x, y: (train(x[:, None], y, 1e-2 * np.abs(y).max(), bias=True).objective, False),
        2,
    ),
}

# Interior-point and first-order methods carry their own tolerance, 1e-6 by default or as given.
LOOSE = {"robust squared linf": 1e-7, "robust squared l2": 1e-7, "collapse": 2e-6}


def deviation(found, expected):
    return abs(found - expected) / abs(expected)


def quietly(solver, *args):
    with warnings.catch_warnings():
        # A named status comes with a warning; the table counts it.
        warnings.simplefilter("ignore", RuntimeWarning)
        return solver(*args)


def rescaled(name, factors):
    """Return the deviations and the rows on which the solver named its failure."""
    solver, in_data, in_targets = SOLVERS[name]
    X, y = problem()
    base, fell_short = quietly(solver, X, y)
    assert not fell_short
    rows = []
    for s, t in (
        [(f, 1.0) for f in factors] + [(1.0, f) for f in factors] + [(f, 1.0 / f) for f in factors]
    ):
        value, fell_short = quietly(solver, s * X, t * y)
        rows.append((s, t, deviation(value, base * s**in_data * t**in_targets), fell_short))
    return rows


def judge(name, rows):
    for s, t, error, fell_short in rows:
        extreme = not (1e-4 <= s <= 1e4 and 1e-4 <= t <= 1e4)
        assert error <= LOOSE.get(name, TOLERANCE) or (fell_short and extreme), (s, t, error)
        assert extreme or not fell_short, (s, t)
    assert sum(row[3] for row in rows) <= 0.05 * len(rows)


@pytest.mark.parametrize("name", SOLVERS)
def test_units_do_not_matter(name):
    judge(name, rescaled(name, [1e-8, 1e4]))


@pytest.mark.long
@pytest.mark.parametrize("name", SOLVERS)
def test_units_do_not_matter_long(name):
    judge(name, rescaled(name, FACTORS))


@pytest.mark.parametrize("name", UNIVARIATE)
def test_units_of_targets_do_not_matter_with_biases(name):
    solver, degree = UNIVARIATE[name]
    X, y = problem()
    base, _ = solver(X[:, 0], y)
    for t in FACTORS:
        assert deviation(solver(X[:, 0], t * y)[0], base * t**degree) <= TOLERANCE, t
    order = np.random.default_rng(1).permutation(len(y))
    assert deviation(solver(X[order, 0], y[order])[0], base) <= TOLERANCE


@pytest.mark.parametrize("name", SOLVERS)
def test_order_of_rows_and_empty_columns_do_not_matter(name):
    solver, _, _ = SOLVERS[name]
    X, y = problem()
    base, _ = quietly(solver, X, y)
    order = np.random.default_rng(1).permutation(len(y))
    tolerance = LOOSE.get(name, TOLERANCE)
    if name != "sampled":  # its patterns are chosen by the order of the rows
        assert deviation(quietly(solver, X[order], y[order])[0], base) <= tolerance
    if name not in {"prune layer", "recover neuron", "sampled"}:  # their weights know the column
        wide = np.column_stack([X, np.zeros(len(X))])
        assert deviation(quietly(solver, wide, y)[0], base) <= tolerance


@pytest.mark.parametrize("name", ["train", "gated", "admm", "train at zero"])
def test_a_row_given_twice_is_a_row_of_sqrt_two_times_the_length(name):
    # 2 (f - y)^2 / 2 = (sqrt(2) f - sqrt(2) y)^2 / 2, and relu is homogeneous.
    solver, _, _ = SOLVERS[name]
    X, y = problem()
    twice = np.vstack([X, X[:1]]), np.append(y, y[0])
    scale = np.ones(len(y))
    scale[0] = np.sqrt(2.0)
    expected, _ = quietly(solver, scale[:, None] * X, scale * y)
    assert deviation(quietly(solver, *twice)[0], expected) <= TOLERANCE


def test_the_table_notices_an_absolute_tolerance():
    SOLVERS["absolute"] = (lambda X, y: (np.round(zero_threshold(X, y), 9), False), 1, 1)
    try:
        with pytest.raises(AssertionError):
            judge("absolute", rescaled("absolute", FACTORS))
    finally:
        del SOLVERS["absolute"]
