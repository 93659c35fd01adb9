"""Assumptions of the theme's theorems that can be tested on data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import as_array, as_real
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._stability import stability_radii
from theorylab.numerics.assumptions import (
    EPS,
    Finding,
    Theorem,
    compared,
    exact_product,
    matches,
    singular_values,
)

__all__ = ["THEOREMS"]


def _orthonormal(X: ArrayLike, tol: float) -> Finding:
    A = as_array(X, "X", ndim=2)
    off = np.abs(A.T @ A - np.eye(A.shape[1])).max()
    return matches(off, tol, "largest entry of X'X - I")


def _outputs(X: ArrayLike, Y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    A = as_array(X, "X", ndim=2)
    return A, as_array(Y, "Y", shape=(len(A), None))


def _in_range(X: ArrayLike, Y: ArrayLike, tol: float) -> Finding:
    A, B = _outputs(X, Y)
    size = np.linalg.norm(B)
    left = np.linalg.norm(A @ np.linalg.lstsq(A, B)[0] - B) / size if size else 0.0
    return matches(left, tol, "share of Y off the range of X")


def _wide(X: ArrayLike, Y: ArrayLike, widths: ArrayLike, tol: float) -> Finding:
    sizes = as_array(widths, "widths", ndim=1, positive=True)
    if (sizes != np.round(sizes)).any():
        raise ValueError(f"widths: expected whole numbers, got {sizes.tolist()}")
    A, B = _outputs(X, Y)
    sigma, error = singular_values(np.linalg.lstsq(A, B)[0])
    of_inputs = np.linalg.svd(A, compute_uv=False)
    error *= float(of_inputs[0] / of_inputs[of_inputs > EPS * max(A.shape) * of_inputs[0]].min())
    levels = sorted([error, tol * sigma[0]])
    most, rank = (int(np.sum(sigma > level)) for level in levels)
    text = f"narrowest {sizes.min():.0f}, rank {rank}"
    if rank < len(sigma):
        text += f", next singular value {sigma[rank] / (sigma[0] or 1.0):.2g} of the largest"
    if rank <= sizes.min() < most:
        return Finding(None, text)
    return compared(sizes.min(), ">=", rank, text)


def _rank_one(X: ArrayLike, tol: float) -> Finding:
    sigma, _ = singular_values(as_array(X, "X", ndim=2))
    if not sigma[0]:
        return Finding(False, "X is 0")
    second = sigma[1] / sigma[0] if len(sigma) > 1 else 0.0
    return matches(second, tol, "second singular value over the first")


def _positions(X: ArrayLike) -> np.ndarray:
    """Return the samples along the top singular direction, the largest of size 1."""
    A = as_array(X, "X", ndim=2)
    c = np.linalg.svd(A, full_matrices=False)[0][:, 0]
    return np.asarray(c / np.abs(c).max())


def _both_signs(X: ArrayLike) -> Finding:
    c = _positions(X)
    inner = min(c.max(), -c.min())
    text = f"positions from {c.min():.3g} to {c.max():.3g}"
    return compared(inner, ">", 0.0, text, error=0.0 if (c >= 0).all() else 8 * len(c) * EPS)


def _two_slopes(X: ArrayLike, y: ArrayLike, tol: float) -> Finding:
    c = _positions(X)
    target = as_array(y, "y", shape=c.shape)
    halves = np.column_stack([np.maximum(c, 0), np.maximum(-c, 0)])
    size = np.linalg.norm(target)
    left = np.linalg.norm(halves @ np.linalg.lstsq(halves, target)[0] - target)
    return matches(left / size if size else 0.0, tol, "share of y off the two half lines")


def _stable(network: Network, X: ArrayLike, eps: float, ball: str) -> Finding:
    radii, radius = stability_radii(network, X, ball=ball), as_real(eps, "eps", minimum=0.0)
    if not radii.size:
        return Finding(True, "no neurons")
    worst = int(np.argmin(radii))
    W, A = network.weights, as_array(X, "X", ndim=2)
    lengths = np.linalg.norm(W, axis=1)  # the shorter of the two norms: more rounding
    sizes = (np.abs(A) @ np.abs(W.T)).max(axis=0) + np.abs(network.biases)
    error = float(np.max(sizes[lengths > 0] / lengths[lengths > 0], initial=0.0))
    text = f"neuron {worst} switches at distance {radii[worst]:.4g}, eps = {radius:.4g}"
    return compared(radii[worst], ">=", radius, text, error=2 * (A.shape[1] + 2) * EPS * error)


def _no_ties(X: ArrayLike, w: ArrayLike) -> Finding:
    A = as_array(X, "X", ndim=2)
    v = as_array(w, "w", shape=A.shape[1:])
    products, sizes = np.abs(A @ v), np.abs(A) @ np.abs(v)
    if not sizes.all():
        return Finding(False, f"w . x = 0 at sample {int(np.argmin(sizes))}, exactly")
    near = np.flatnonzero(products <= 2 * len(v) * EPS * sizes)
    for sample in near:
        if exact_product(A[sample], v) == 0:
            return Finding(False, f"w . x = 0 at sample {sample}, exactly")
    text = f"least |w . x| = {products.min():.3g}"
    return Finding(None, f"{text}: rounding") if near.size else Finding(True, text)


NETWORK = {"network": "a Network", "X": "(n, d)", "eps": "radius", "ball": '"linf" or "l2"'}
STABLE = {"every neuron stable: |w.x + b| >= eps |w|_q on all data": _stable}

THEOREMS = {
    "parallel_networks:weight-decay-low-rank": Theorem({"X'X = I": _orthonormal}, {"X": "(n, d)"}),
    "parallel_networks:deep-linear-gap": Theorem(
        {"Y in the range of X": _in_range, "widths at least the rank of X^+ Y": _wide},
        {"X": "(n, d)", "Y": "(n, k)", "widths": "of the hidden layers"},
    ),
    "parallel_networks:rank1-three-layer-relu": Theorem(
        {
            "X of rank one, c a'": _rank_one,
            "c of both signs": _both_signs,
            "y = alpha c_+ + gamma c_-": _two_slopes,
        },
        {"X": "(n, d)", "y": "(n,)"},
    ),
    "robust_training:robust-hinge-identity": Theorem(STABLE, NETWORK),
    "robust_training:robust-squared-loss": Theorem(STABLE, NETWORK),
    "layer_pruning:nettrim-equals-basis-pursuit": Theorem(
        {"no w . x is 0": _no_ties}, {"X": "(n, d) samples", "w": "(d,) weights of the neuron"}
    ),
}
