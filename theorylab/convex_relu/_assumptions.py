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
    unit,
)

__all__ = ["THEOREMS"]

TINY = float(np.finfo(float).tiny)  # products below it lose digits


def _orthonormal(X: ArrayLike, tol: float) -> Finding:
    A = as_array(X, "X", ndim=2)
    off = np.abs(A.T @ A - np.eye(A.shape[1])).max()
    return matches(off, tol, "largest entry of X'X - I")


def _outputs(X: ArrayLike, Y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    A = as_array(X, "X", ndim=2)
    return A, as_array(Y, "Y", shape=(len(A), None))


def _in_range(X: ArrayLike, Y: ArrayLike, tol: float) -> Finding:
    return matches(_share_outside(*_outputs(X, Y)), tol, "share of Y off the range of X")


def _share_outside(A: np.ndarray, B: np.ndarray) -> float:
    """Return the norm of what of B is off the range of A, over that of B."""
    A, B = unit(A), unit(B)
    size = np.linalg.norm(B)
    return float(np.linalg.norm(A @ np.linalg.lstsq(A, B)[0] - B) / size) if size else 0.0


def _wide(X: ArrayLike, Y: ArrayLike, widths: ArrayLike, tol: float) -> Finding:
    sizes = as_array(widths, "widths", ndim=1, positive=True)
    if (sizes != np.round(sizes)).any():
        raise ValueError(f"widths: expected whole numbers, got {sizes.tolist()}")
    A, B = _outputs(X, Y)
    sigma, error = singular_values(np.linalg.lstsq(A, B)[0])
    of_inputs = np.linalg.svd(A, compute_uv=False)
    kept = of_inputs[of_inputs >= EPS * max(A.shape) * of_inputs[0]]
    error *= float(of_inputs[0] / (kept.min() or 1.0))
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


def _both_signs(X: ArrayLike) -> Finding:
    A = as_array(X, "X", ndim=2)
    c = unit(A[:, np.argmax(np.abs(A).max(axis=0))])  # with the exact signs
    inner = min(c.max(), -c.min())
    text = f"positions from {c.min():.3g} to {c.max():.3g}"
    return compared(inner, ">", 0.0, text, error=8 * len(c) * EPS if inner > 0 else 0.0)


def _two_slopes(X: ArrayLike, y: ArrayLike, tol: float) -> Finding:
    c = np.linalg.svd(unit(as_array(X, "X", ndim=2)), full_matrices=False)[0][:, 0]
    target = as_array(y, "y", shape=c.shape)
    halves = np.column_stack([np.maximum(c, 0), np.maximum(-c, 0)])
    return matches(_share_outside(halves, target), tol, "share of y off the two half lines")


def _stable(network: Network, X: ArrayLike, eps: float, ball: str) -> Finding:
    radii, radius = stability_radii(network, X, ball=ball), as_real(eps, "eps", minimum=0.0)
    if not radii.size:
        return Finding(True, "no neurons")
    A, W, b = as_array(X, "X", ndim=2), network.weights, network.biases
    values, sizes = np.abs(A @ W.T + b), np.abs(A) @ np.abs(W).T + np.abs(b)
    moves = radius * np.linalg.norm(W, 1 if ball == "linf" else 2, axis=1)
    slack, errors = values - moves, 2 * (A.shape[1] + 2) * EPS * (sizes + moves)
    worst = np.argmin(slack + errors)
    neuron = int(worst) % len(W)
    text = f"neuron {neuron} switches at distance {radii[neuron]:.4g}, eps = {radius:.4g}"
    return compared(slack.flat[worst], ">=", 0.0, text, error=errors.flat[worst])


def _no_ties(X: ArrayLike, w: ArrayLike) -> Finding:
    A = as_array(X, "X", ndim=2)
    v = as_array(w, "w", shape=A.shape[1:])
    products, sizes = np.abs(A @ v), np.abs(A) @ np.abs(v)
    near = np.flatnonzero(products <= len(v) * np.maximum(2 * EPS * sizes, TINY))
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
