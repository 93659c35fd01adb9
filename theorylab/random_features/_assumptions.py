"""Assumptions of the theme's theorems that can be tested on data."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from theorylab._validation import FloatArray, as_array, as_count, as_real, as_text, one_of
from theorylab.numerics.assumptions import (
    EPS,
    Finding,
    Theorem,
    all_of,
    compared,
    independent_rows,
    matches,
    unit,
)

__all__ = ["THEOREMS"]

ACTIVATIONS = ("relu", "leaky", "erf", "sine")


def _capacity(alpha: float) -> Finding:
    decay = as_real(alpha, "alpha")
    return compared(decay, ">", 1.0, f"alpha = {decay:.4g}")


def _source(alpha: float, beta: float) -> Finding:
    decay, target = as_real(alpha, "alpha"), as_real(beta, "beta")
    text = f"beta = {target:.4g}, 2 alpha = {2 * decay:.4g}"
    return all_of(compared(target, ">", 1.0, text), compared(target, "<=", 2 * decay, text))


def _learnable(eigenvalues: ArrayLike, coefficients: ArrayLike) -> Finding:
    lam = as_array(eigenvalues, "eigenvalues", ndim=1, nonnegative=True)
    v = as_array(coefficients, "coefficients", shape=lam.shape)
    count = int(np.sum((lam > 0) & (v != 0)))
    return compared(count, ">", 0, f"{count} modes of the kernel in the target")


def _noisy(noise_variance: float) -> Finding:
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    return compared(noise, ">", 0.0, f"noise variance {noise:.4g}")


def _one_sphere(X: ArrayLike, tol: float) -> Finding:
    points = as_array(X, "X", ndim=2)
    lengths = np.linalg.norm(unit(points), axis=1)
    if not lengths.max() > 0:
        return Finding(False, "the points are 0")
    return matches(1 - lengths.min() / lengths.max(), tol, "relative spread of the lengths")


def _distinct_points(points: FloatArray) -> Finding:
    if len(points) == 1:
        return Finding(True, "a single one")
    least = float(np.min(KDTree(points).query(points, [2], p=np.inf)[0]))
    error = 2 * EPS * float(np.abs(points).max()) if least else 0.0
    return compared(least, ">", 0.0, f"least difference {least:.3g}", error=error)


def _distinct_rows(X: ArrayLike) -> Finding:
    return _distinct_points(as_array(X, "X", ndim=2))


def _deep(depth: int) -> Finding:
    layers = as_count(depth, "depth", minimum=0)
    return compared(layers, ">=", 1, f"{layers} hidden layers")


def _biased(bias_variance: float) -> Finding:
    variance = as_real(bias_variance, "bias_variance", minimum=0.0)
    return compared(variance, ">", 0.0, f"sigma_b^2 = {variance:.4g}")


def _not_polynomial(activation: str) -> Finding:
    name = as_text(activation, "activation")
    return Finding(name in ACTIVATIONS, f"activation {name}")


def _all_points(X: ArrayLike, X_test: ArrayLike) -> FloatArray:
    train = as_array(X, "X", ndim=2)
    return np.vstack([train, as_array(X_test, "X_test", shape=(None, train.shape[1]))])


def _unit_sphere(X: ArrayLike, X_test: ArrayLike, tol: float) -> Finding:
    lengths = np.linalg.norm(_all_points(X, X_test), axis=1)
    return matches(np.abs(lengths - 1).max(), tol, "largest distance of a length from 1")


def _acute(X: ArrayLike, X_test: ArrayLike) -> Finding:
    points = _all_points(X, X_test)
    products, size = points @ points.T, np.abs(points)
    rounding = 2 * points.shape[1] * EPS * (size @ size.T)
    worst = np.argmin(products + rounding)
    text = f"least inner product {products.min():.4g}"
    return compared(products.flat[worst], ">=", 0.0, text, error=rounding.flat[worst])


def _no_two_equal(X: ArrayLike, X_test: ArrayLike) -> Finding:
    return _distinct_points(_all_points(X, X_test))


def _hermite(weights: ArrayLike) -> FloatArray:
    return as_array(weights, "weights", shape=(None,), nonnegative=True)


def _total(weights: ArrayLike, tol: float) -> Finding:
    return matches(abs(_hermite(weights).sum() - 1), tol, "distance of the sum from 1")


def _no_mean(weights: ArrayLike, tol: float) -> Finding:
    return matches(_hermite(weights)[0], tol, "p_0 =")


def _some_slope(weights: ArrayLike) -> Finding:
    p = np.append(_hermite(weights), 0.0)
    text = f"p_1 = {p[1]:.4g}"
    return all_of(compared(p[1], ">", 0.0, text), compared(p[1], "<", 1.0, text))


def _columns_of_X(X: ArrayLike) -> Finding:
    return independent_rows(as_array(X, "X", ndim=2).T)


def _binding(X: ArrayLike, bound: float, norm: str) -> Finding:
    C, name = as_real(bound, "bound"), one_of(norm, "norm", ("frobenius", "nuclear", "spectral"))
    p = as_array(X, "X", ndim=2).shape[1]
    # The square of sqrt(p), which is no float.
    value, full = (Fraction(C) ** 2, p) if name == "frobenius" else (C, p)
    if name == "spectral":
        full = 1
    text = f"C = {C:.4g}, |I| = {np.sqrt(full) if name == 'frobenius' else full:.4g}"
    return all_of(compared(C, ">", 0.0, text), compared(value, "<", full, text))


THEOREMS = {
    "eigenframework:overfitting-obligatory-fitting-ratio": Theorem(
        {"alpha above 1": _capacity, "beta above 1 and at most 2 alpha": _source},
        {"alpha": "decay of the eigenvalues, i^-alpha", "beta": "decay of v_i^2, i^-beta"},
    ),
    "eigenframework:more-is-better-monotone": Theorem(
        {"sum of lambda_i v_i^2 positive": _learnable, "noise positive": _noisy},
        {
            "eigenvalues": "lambda, (m,)",
            "coefficients": "v, (m,)",
            "noise_variance": "sigma^2",
        },
    ),
    "neural_tangent:ntk-positive-definite": Theorem(
        {
            "points on a sphere": _one_sphere,
            "distinct points": _distinct_rows,
            "at least one hidden layer": _deep,
            "biases: sigma_b positive": _biased,
            "activation relu, leaky, erf or sine": _not_polynomial,
        },
        {
            "X": "(n, d) points",
            "depth": "L",
            "bias_variance": "sigma_b^2",
            "activation": "its name",
        },
    ),
    "deep_classifiers:infinite-depth-regression-collapses": Theorem(
        {
            "points on the unit sphere": _unit_sphere,
            "inner products not negative": _acute,
            "no two points equal": _no_two_equal,
            "p of sum 1": _total,
            "p_0 = 0": _no_mean,
            "0 < p_1 < 1": _some_slope,
        },
        {
            "X": "(n, d) training points",
            "X_test": "(m, d)",
            "weights": "p_0, p_1, .., squares of the Hermite coefficients",
        },
    ),
    "linear_estimators:extended-gauss-markov": Theorem(
        {"X of full column rank": _columns_of_X, "0 < C < |I|": _binding},
        {"X": "(n, p)", "bound": "C", "norm": '"frobenius", "nuclear" or "spectral"'},
    ),
}
