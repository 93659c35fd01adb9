"""Assumptions of the theme's theorems that can be tested on data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy

from theorylab._validation import as_array, as_count, as_real
from theorylab.neural_collapse._spectra import as_counts
from theorylab.numerics.assumptions import Finding, Theorem, compared

__all__ = ["THEOREMS"]

ROUNDING = 1e-13  # relative, of a formula of few factors


def _every_width(counts: ArrayLike, widths: ArrayLike) -> Finding:
    sizes = as_array(widths, "widths", ndim=1, positive=True)
    if (sizes != np.round(sizes)).any():
        raise ValueError(f"widths: expected whole numbers, got {sizes.tolist()}")
    classes = len(as_counts(counts, "counts"))
    least = int(sizes.min())
    return compared(least, ">=", classes, f"narrowest {least}, {classes} classes")


def _below_the_jump(counts: ArrayLike, widths: ArrayLike, decays: ArrayLike) -> Finding:
    n = as_counts(counts, "counts").astype(float)
    layers = len(as_array(widths, "widths", ndim=1))
    lams = as_array(decays, "decays", shape=(layers + 1,), positive=True)
    smallest = int(np.argmin(n))
    threshold = float(xlogy(layers - 1, layers - 1) - xlogy(2 * layers, layers))
    # tau = N^(M+1) Lambda / n^M, and jump_threshold: products that are formed in logarithms.
    total = (layers + 1) * np.log(n.sum()) + float(np.log(lams).sum())
    tau = total - layers * np.log(n[smallest])
    text = (
        f"class {smallest} of {n[smallest]:.0f} samples: tau = {np.exp(tau):.4g}, "
        f"threshold {np.exp(threshold):.4g}"
    )
    return compared(tau, "<", threshold, text, error=10 * ROUNDING * (1 + abs(total)))


def _balanced(counts: ArrayLike) -> Finding:
    n = as_counts(counts, "counts")
    return compared(n.max(), "<=", n.min(), f"sizes from {n.min()} to {n.max()}")


def _simplex_fits(counts: ArrayLike, dimension: int) -> Finding:
    least = len(as_counts(counts, "counts")) - 1
    d = as_count(dimension, "dimension")
    return compared(d, ">=", least, f"d = {d}, K - 1 = {least}")


def _frame_fits(counts: ArrayLike, dimension: int) -> Finding:
    least, d = len(as_counts(counts, "counts")), as_count(dimension, "dimension")
    return compared(d, ">=", least, f"d = {d}, K = {least}")


def _two_majorities(counts: ArrayLike) -> Finding:
    n = np.sort(as_counts(counts, "counts"))[::-1]
    largest = int(np.sum(n == n[0]))
    return Finding(largest == 2, f"{largest} of the largest size, {n[0]}")


def _minorities(counts: ArrayLike) -> Finding:
    rest = len(as_counts(counts, "counts")) - 2
    return compared(rest, ">=", 2, f"{rest} classes beside the two largest")


def _equal_minorities(counts: ArrayLike) -> Finding:
    rest = np.sort(as_counts(counts, "counts"))[:-2]
    if not rest.size:
        return Finding(None, "there are none")
    return compared(rest[-1], "<=", rest[0], f"sizes from {rest[0]} to {rest[-1]}")


def _separating(counts: ArrayLike, alpha: float, lam: float) -> Finding:
    n = as_counts(counts, "counts")
    share, decay = as_real(alpha, "alpha", minimum=0.0), as_real(lam, "lam", above=0.0)
    value = share + len(n) * float(np.sqrt(n.max())) * decay
    return compared(value, "<", 1.0, f"K t = {value:.4g}", error=ROUNDING * value)


BALANCED = {"classes of equal size": _balanced}
SIMPLEX = {"dimension at least K - 1": _simplex_fits}
MODEL = {"counts": "(K,) class sizes", "dimension": "d, of the features"}

THEOREMS = {
    "deep_linear:collapse-at-every-layer": Theorem(
        {
            "every width at least K": _every_width,
            "every tau_k below the collapse threshold": _below_the_jump,
        },
        {
            "counts": "(K,) class sizes",
            "widths": "of the features and the M - 1 hidden layers after them",
            "decays": "lambda_0, .., lambda_M, of features and layers",
        },
    ),
    "unconstrained_features:ce-balanced-ufm-closed-form": Theorem({**BALANCED, **SIMPLEX}, MODEL),
    "unconstrained_features:universal-minority-collapse-threshold": Theorem(
        {
            "two classes larger than the others, of one size": _two_majorities,
            "at least two minority classes": _minorities,
            "minority classes of one size": _equal_minorities,
            "dimension at least K": _frame_fits,
        },
        MODEL,
    ),
    "label_smoothing:ufm-minimisers-coincide": Theorem(
        {
            **BALANCED,
            **SIMPLEX,
            "K t < 1 for t = alpha / K + sqrt(n) lambda": _separating,
        },
        MODEL | {"alpha": "share of smoothing", "lam": "lambda, decay of W and H"},
    ),
}
