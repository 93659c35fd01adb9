"""Networks of parallel branches: their weights as checked matrices, penalty and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, one_of

__all__ = ["ACTIVATIONS", "PENALTIES", "Branches", "as_branches", "network_cost", "network_output"]

Branches = tuple[tuple[FloatArray, ...], ...]

PENALTIES = ("squared", "power")
ACTIVATIONS = ("linear", "relu")


def network_cost(branches: Sequence[Sequence[ArrayLike]], *, penalty: str = "squared") -> float:
    """Return ``1/2 sum ||W||_F^2`` (squared) or ``1/2 sum ||W||_F^L`` (power) over all layers of
    all branches.

    Parameters
    ----------
    branches
        ``branches[j][l]`` is the weight matrix of layer ``l`` in branch ``j``.
    penalty
        ``"squared"`` or ``"power"``.

    Examples
    --------
    >>> from theorylab.convex_relu import network_cost
    >>> network_cost([([[2.0]], [[1.0]])])
    2.5
    """
    checked = as_branches(branches)
    penalty = one_of(penalty, "penalty", PENALTIES)
    exponent = 2 if penalty == "squared" else len(checked[0])
    return 0.5 * float(sum(np.linalg.norm(W) ** exponent for branch in checked for W in branch))


def network_output(
    X: ArrayLike, branches: Sequence[Sequence[ArrayLike]], *, activation: str = "linear"
) -> FloatArray:
    """Return the (n, k) outputs of a parallel network.

    Parameters
    ----------
    X
        (n, d) inputs.
    branches
        ``branches[j][l]`` is the weight matrix of layer ``l`` in branch ``j``.
    activation
        ``"linear"`` or ``"relu"`` (after every layer but the last).

    Examples
    --------
    >>> from theorylab.convex_relu import network_output
    >>> network_output([[1.0], [-1.0]], [([[2.0]], [[1.0]])])
    array([[ 2.],
           [-2.]])
    """
    X = as_array(X, "X", ndim=2)
    checked = as_branches(branches, n_inputs=X.shape[1])
    activation = one_of(activation, "activation", ACTIVATIONS)
    total = np.zeros((X.shape[0], checked[0][-1].shape[1]))
    for branch in checked:
        hidden = X
        for W in branch[:-1]:
            hidden = hidden @ W
            if activation == "relu":
                hidden = np.maximum(hidden, 0)
        total += hidden @ branch[-1]
    return total


def as_branches(branches: Sequence[Sequence[ArrayLike]], n_inputs: int | None = None) -> Branches:
    if not isinstance(branches, list | tuple) or not branches:
        raise ValueError(
            f"branches: expected a non-empty sequence of branches, got {type(branches).__name__}"
        )
    checked = []
    for j, branch in enumerate(branches):
        if not isinstance(branch, list | tuple) or len(branch) < 2:
            raise ValueError(
                f"branches[{j}]: expected a sequence of at least two weight matrices, "
                f"got {branch!r}"
            )
        layers: list[FloatArray] = []
        width = n_inputs
        for layer, weights in enumerate(branch):
            layers.append(as_array(weights, f"branches[{j}][{layer}]", shape=(width, None)))
            width = layers[-1].shape[1]
        checked.append(tuple(layers))
    shapes = {(len(branch), branch[0].shape[0], branch[-1].shape[1]) for branch in checked}
    if len(shapes) > 1:
        raise ValueError(
            "branches: expected equal depth, inputs and outputs in all branches, got "
            f"{sorted(shapes)}"
        )
    return tuple(checked)
