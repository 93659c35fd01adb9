"""How a trained network looks on data with one or two inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from theorylab._validation import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from theorylab.convex_relu._network import Network

__all__ = ["draw_network"]

BLUE, RED, GREY = "#0072B2", "#D55E00", "#888888"


def draw_network(network: Network, X: FloatArray, y: FloatArray, ax: Axes | None) -> Axes:
    """Draw the outputs, the data, and where neurons bend."""
    n_inputs = X.shape[1]
    if n_inputs > 2 or network.output_weights.ndim > 1:
        raise ValueError(
            f"network: expected at most two inputs and one output, got {n_inputs} inputs and "
            f"{network.output_weights.shape[1:] or (1,)} outputs"
        )
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots()
    margin = 0.1 * np.where(np.ptp(X, axis=0) > 0, np.ptp(X, axis=0), 1.0)
    low, high = X.min(axis=0) - margin, X.max(axis=0) + margin
    if n_inputs == 1:
        _draw_curve(network, X[:, 0], y, low[0], high[0], ax)
    else:
        _draw_map(network, X, y, low, high, ax)
    return ax


def _draw_curve(
    network: Network, x: FloatArray, y: FloatArray, low: float, high: float, ax: Axes
) -> None:
    bent = network.weights[:, 0] != 0.0
    kinks = -network.biases[bent] / network.weights[bent, 0]
    kinks = kinks[(kinks > low) & (kinks < high)]
    grid = np.sort(np.concatenate([[low, high], kinks]))
    ax.plot(grid, network(grid[:, None]), color=BLUE, label="network")
    ax.plot(kinks, network(kinks[:, None]) if len(kinks) else kinks, "|", color=GREY, ms=14)
    ax.plot(x, y, "o", color=RED, ms=5, label="data")
    ax.set(xlabel="input", ylabel="output")
    ax.legend(frameon=False)


def _draw_map(
    network: Network, X: FloatArray, y: FloatArray, low: FloatArray, high: FloatArray, ax: Axes
) -> None:
    grid = np.meshgrid(*(np.linspace(a, b, 200) for a, b in zip(low, high, strict=True)))
    points = np.stack(grid, axis=-1).reshape(-1, 2)
    values = network(points).reshape(200, 200)
    size = float(np.abs(values).max()) or 1.0
    drawn = ax.contourf(*grid, values, 20, cmap="RdBu_r", vmin=-size, vmax=size, alpha=0.8)
    bends = points @ network.weights.T + network.biases
    for column in bends.T:
        if column.min() < 0.0 < column.max():
            ax.contour(*grid, column.reshape(200, 200), [0.0], colors=GREY, linewidths=1)
    ax.scatter(
        X[:, 0], X[:, 1], c=y, cmap="RdBu_r", vmin=-size, vmax=size, edgecolors="black", zorder=3
    )
    ax.figure.colorbar(drawn, ax=ax, label="output")
    ax.set(xlabel="first input", ylabel="second input")
