"""Hessians modulo a prime: finite differences, rational ranks, the closed forms and their edges."""

import flint
import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from theorylab.random_features import (
    PRIME,
    convolutional_layers,
    end_to_end,
    generic_rank,
    loss_hessian,
    rank_bound,
    rank_modulo_prime,
)


def small_layers(shapes, seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(-3, 4, shape) for shape in shapes]


def signed(residues):
    return np.where(residues > PRIME // 2, residues - PRIME, residues)


def outputs(layers, x):
    """Valid correlations, one tap at a time."""
    state = x[None]
    for w in layers:
        length = state.shape[1] - w.shape[2] + 1
        state = sum(w[:, :, t] @ state[:, t : t + length] for t in range(w.shape[2]))
    return state[:, 0]


SHAPES = [[(2, 1, 2), (1, 2, 3)], [(2, 1, 2), (2, 2, 2), (2, 2, 1)]]


@pytest.mark.parametrize("shapes", SHAPES)
def test_labels_of_the_network_leave_no_second_derivatives(shapes):
    layers = small_layers(shapes, 1)
    d = sum(s[2] for s in shapes) - len(shapes) + 1
    rng = np.random.default_rng(2)
    X, Y = rng.integers(-2, 3, (4, d)), rng.integers(-5, 6, (4, shapes[-1][0]))
    fitted = loss_hessian(layers, X, [outputs(layers, x) for x in X])
    found = loss_hessian(layers, X, Y)
    assert not fitted.functional.any()
    assert (fitted.gauss_newton == found.gauss_newton).all()
    rational = flint.fmpz_mat(signed(found.total).tolist()).rank()
    assert rank_modulo_prime(found.total) == rational


@pytest.mark.parametrize("shapes", SHAPES)
def test_parts_by_symbolic_differentiation(shapes):
    layers = small_layers(shapes, 3)
    d = sum(s[2] for s in shapes) - len(shapes) + 1
    rng = np.random.default_rng(4)
    x, y = rng.integers(-2, 3, d), rng.integers(-5, 6, shapes[-1][0])
    names = [sp.symbols(f"w{i}_0:{w.size}") for i, w in enumerate(layers)]
    W = [np.array(n, object).reshape(s) for n, s in zip(names, shapes, strict=True)]
    flat = [v for n in names for v in n]
    at = dict(zip(flat, (int(v) for w in layers for v in w.ravel()), strict=True))
    f = outputs(W, x.astype(object))
    residual = [sp.expand(v).subs(at) - int(t) for v, t in zip(f, y, strict=True)]
    functional = sum(
        (sp.hessian(v, flat).subs(at) * r for v, r in zip(f, residual, strict=True)),
        sp.zeros(len(flat)),
    )
    J = sp.Matrix(list(f)).jacobian(flat).subs(at)
    found = loss_hessian(layers, x[None], y[None])
    assert signed(found.functional).tolist() == functional.tolist()
    assert signed(found.gauss_newton).tolist() == (J.T * J).tolist()
    assert (end_to_end(layers) @ x % PRIME).tolist() == [
        int(v.subs(at)) % PRIME if hasattr(v, "subs") else v for v in f
    ]


def hessian(length, filters, channels, K, seed, spare=0):
    layers = convolutional_layers(length, filters, channels=channels, outputs=K, seed=seed)
    rng = np.random.default_rng(seed + 1)
    n = length + spare
    return loss_hessian(
        layers, rng.integers(PRIME, size=(n, length)), rng.integers(PRIME, size=(n, K))
    )


@given(
    st.integers(1, 9), st.integers(0, 6), st.integers(1, 3), st.integers(0, 2), st.integers(0, 9)
)
def test_one_hidden_layer(k, more, K, extra, seed):
    d = k + more
    m = min(k, K * (more + 1)) + extra
    H = hessian(d, [k], m, K, seed)
    rank, size = generic_rank(d, [k], channels=m, outputs=K)
    assert (rank, size) == (rank_modulo_prime(H.total), len(H.total))
    assert rank <= rank_bound(d, k, channels=m, outputs=K) <= size


@pytest.mark.parametrize(("d", "k", "K"), [(9, 8, 2), (13, 11, 2), (14, 13, 3), (17, 16, 4)])
def test_more_taps_than_entries_left_lose_more_than_one(d, k, K):
    q = K * (d - k + 1)
    H = hessian(d, [k], q, K, d)
    rank = generic_rank(d, [k], channels=q, outputs=K)[0]
    assert rank == rank_modulo_prime(H.total)
    assert rank < 2 * q * q + min(K * d - 1, q * (k - q))


def test_the_bound_holds_with_few_channels_and_is_nearly_attained():
    for m in range(1, 12):
        rank = rank_modulo_prime(hessian(8, [3], m, 2, m).total)
        bound = rank_bound(8, 3, channels=m, outputs=2)
        assert rank <= bound
    assert bound == rank + 1


@pytest.mark.parametrize(
    ("first", "second", "left", "K"),
    [(1, 2, 3, 1), (2, 2, 4, 1), (2, 3, 2, 2), (3, 2, 5, 1), (2, 3, 6, 1), (1, 3, 3, 2)],
)
def test_two_hidden_layers(first, second, left, K):
    d, m = first + second + left - 2, 2 * first + second - 1
    for channels in (m, m + 1):
        H = hessian(d, [first, second], channels, K, channels)
        expected = generic_rank(d, [first, second], channels=channels, outputs=K)
        assert (rank_modulo_prime(H.total), len(H.total)) == expected
    fewer = hessian(d, [first, second], 2, K, 0)
    assert rank_modulo_prime(fewer.total) <= len(fewer.total)


def test_conditions_are_refused_where_the_formula_fails():
    with pytest.raises(ValueError, match="channels: expected at least min"):
        generic_rank(8, [3], channels=2)
    with pytest.raises(ValueError, match="channels: expected at least 6"):
        generic_rank(9, [2, 3], channels=5, outputs=2)
    with pytest.raises(ValueError, match="filters: expected k_2 >= 2"):
        generic_rank(8, [3, 1], channels=9)
    with pytest.raises(ValueError, match="k_1 \\+ k_2 - 1 <= 2"):
        generic_rank(6, [3, 3], channels=20)
    with pytest.raises(ValueError, match="k_1 \\+ k_2 - 1 <= 2"):
        generic_rank(4, [2, 2], channels=9)
    with pytest.raises(ValueError, match="filters: expected one or two"):
        generic_rank(9, [2, 2, 2], channels=9)
    with pytest.raises(ValueError, match="filters: expected valid convolutions"):
        convolutional_layers(3, [2, 3], channels=1, seed=0)
    with pytest.raises(ValueError, match="matrix: expected integers of at most 2"):
        rank_modulo_prime(np.array([[2.0**60]]))
    with pytest.raises(ValueError, match="layers: expected integers"):
        end_to_end([np.array([[[0.5]]])])
    H = hessian(6, [3, 3], 8, 1, 0)  # k_12 = 5 > q = 2
    assert rank_modulo_prime(H.total) != 2 * 8 * 8 - 1 + 2 * 3


def test_rank_of_products_and_large_entries():
    rng = np.random.default_rng(0)
    A = rng.integers(PRIME, size=(30, 4)).astype(object) @ rng.integers(PRIME, size=(4, 20))
    assert rank_modulo_prime((A % PRIME).astype(np.int64)) == 4
    assert rank_modulo_prime(np.eye(3) * PRIME) == 0
    assert rank_modulo_prime(-np.eye(3)) == 3
    many = loss_hessian(  # sums over more products than 64 bits hold at once
        [np.full((1, 1, 1), PRIME - 1), np.full((1, 1, 2), PRIME - 1)],
        np.full((5000, 2), PRIME - 1),
        np.zeros((5000, 1)),
    )
    assert signed(many.gauss_newton)[0, 0] == 5000 * 4
