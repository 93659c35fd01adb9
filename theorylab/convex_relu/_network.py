"""Two-layer ReLU networks: outputs and penalty, in float64 with their errors and in balls."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_mat
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array
from theorylab.convex_relu.losses import Loss
from theorylab.numerics.balls import ball_matrix, balls, square_sum
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.results import result

_EPS = float(np.finfo(np.float64).eps)


@result
class Network:
    """A two-layer ReLU network ``f(x) = relu(weights @ x + biases) @ output_weights + x @ linear +
    offset``.

    Parameters
    ----------
    weights
        First layer, shape (m, d); m may be zero.
    output_weights
        Second layer, shape (m,), or (m, K) for K outputs.
    biases
        Shape (m,), zero by default.
    linear, offset
        Skip connection, shape (d,) or (d, K), and its constant, shape () or (K,); zero by default.

    Raises
    ------
    ValueError
        If a shape does not fit or an entry is not finite.
    """

    weights: FloatArray
    output_weights: FloatArray
    # None stands for zeros of the right shape until __post_init__ has run.
    biases: FloatArray = None  # type: ignore[assignment]
    linear: FloatArray = None  # type: ignore[assignment]
    offset: FloatArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        weights = as_array(self.weights, "weights", ndim=2, allow_empty=True)
        m, d = weights.shape
        output = as_array(self.output_weights, "output_weights", allow_empty=True)
        if output.ndim not in (1, 2) or output.shape[0] != m:
            raise ValueError(
                f"output_weights: expected shape ({m},) or ({m}, K), got {output.shape}"
            )
        outputs = output.shape[1:]
        for name, shape, given in (
            ("biases", (m,), self.biases),
            ("linear", (d, *outputs), self.linear),
            ("offset", outputs, self.offset),
        ):
            value = (
                np.zeros(shape)
                if given is None
                else as_array(given, name, shape=shape, allow_empty=True)
            )
            object.__setattr__(self, name, value)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "output_weights", output)

    def __call__(self, X: ArrayLike) -> FloatArray:
        """Return the outputs on data of shape (n, d)."""
        X = as_array(X, "X", shape=(None, self.weights.shape[1]))
        hidden = np.maximum(X @ self.weights.T + self.biases, 0.0)
        result: FloatArray = hidden @ self.output_weights + X @ self.linear + self.offset
        return result

    @property
    def n_neurons(self) -> int:
        """Number of hidden neurons."""
        return int(self.weights.shape[0])

    @property
    def penalty(self) -> float:
        """Half the sum of ``|u_j|^2 + b_j^2 + |a_j|^2``, with the l1 norm of a_j where there are
        several outputs."""
        output = np.abs(columns(self.output_weights)).sum(axis=1)
        parts = self.weights.ravel(), self.biases, output
        return 0.5 * float(sum(part @ part for part in parts))

    def state_dict(self) -> dict[str, FloatArray]:
        """Return the weights as plain arrays, named and laid out (rows are outputs) as those of a
        PyTorch module with linear layers hidden, output (no bias) and skip.

        Examples
        --------
        >>> from theorylab.convex_relu import Network
        >>> network = Network([[1.0, 2.0]], [3.0])
        >>> [(name, array.shape) for name, array in network.state_dict().items()][:3]
        [('hidden.weight', (1, 2)), ('hidden.bias', (1,)), ('output.weight', (1, 1))]
        """
        linear = self.linear.reshape(self.weights.shape[1], -1)
        return {
            "hidden.weight": self.weights,
            "hidden.bias": self.biases,
            "output.weight": columns(self.output_weights).T,
            "skip.weight": linear.T,
            "skip.bias": np.atleast_1d(self.offset),
        }

    def to_torch(self) -> Any:
        """Return a PyTorch module that computes the same, in float64, with linear layers of the
        names in ``state_dict``.

        Raises
        ------
        ImportError
            Where PyTorch is missing.

        Examples
        --------
        >>> network = Network([[1.0, 2.0]], [3.0])
        >>> network.to_torch()(torch.ones(2, 2, dtype=torch.float64))  # doctest: +SKIP
        tensor([9., 9.], dtype=torch.float64, grad_fn=<SqueezeBackward1>)
        """
        try:
            import torch
        except ImportError as error:
            raise ImportError("Network.to_torch needs PyTorch: pip install torch") from error
        single = self.output_weights.ndim == 1

        class TwoLayer(torch.nn.Module):  # type: ignore[misc]
            def __init__(self, state: dict[str, Any]) -> None:
                super().__init__()
                for name in ("hidden", "output", "skip"):
                    rows, width = state[f"{name}.weight"].shape
                    bias = f"{name}.bias" in state
                    # On no device: nothing is drawn that would be thrown away.
                    layer = torch.nn.Linear(width, rows, bias, device="meta")
                    self.add_module(name, layer)
                self.load_state_dict(state, assign=True)

            def forward(self, x: Any) -> Any:
                f = self.output(torch.relu(self.hidden(x))) + self.skip(x)
                return f.squeeze(-1) if single else f

        # Copies, for these arrays are read-only.
        state = {name: torch.tensor(array) for name, array in self.state_dict().items()}
        with warnings.catch_warnings():
            # A network without neurons has a layer without entries to draw.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            return TwoLayer(state)


def as_network(network: object, X: FloatArray, y: FloatArray) -> Network:
    """Validate a network against the data."""
    if isinstance(network, tuple) and len(network) == 2:
        weights = as_array(
            network[0], "network weights", shape=(None, X.shape[1]), allow_empty=True
        )
        network = Network(weights, as_array(network[1], "network output_weights", allow_empty=True))
    if not isinstance(network, Network):
        raise ValueError(
            "network: expected a Network or (weights, output_weights), got "
            f"{type(network).__name__}"
        )
    if network.weights.shape[1] != X.shape[1] or network.output_weights.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"network: expected weights (m, {X.shape[1]}) and output weights (m, "
            f"{', '.join(map(str, y.shape[1:]))}), "
            f"got {network.weights.shape} and {network.output_weights.shape}"
        )
    return network


def columns(values: FloatArray) -> FloatArray:
    """View a vector as one column."""
    return values[:, None] if values.ndim == 1 else values


@dataclass(frozen=True)
class Output:
    """Neurons ``p_j = |a_j| u_j`` of one output, their signs, and its linear map; the bias, if
    there is one, comes last."""

    points: FloatArray
    sigma: FloatArray
    linear: FloatArray


def balanced_network(outputs: Sequence[Output], bias: bool, ndim: int) -> Network:
    """Map p_j to the balanced network u_j = p_j / sqrt|p_j|, a_j = sign sqrt|p_j|; ``ndim`` is that
    of the targets."""
    width = outputs[0].points.shape[1]
    d = width - int(bias)
    weights, output = [np.zeros((0, width))], [np.zeros((0, len(outputs)))]
    for k, part in enumerate(outputs):
        unit = power_of_two(part.points)  # squares of small points leave float64
        root = np.sqrt(unit * np.linalg.norm(part.points / unit, axis=1))
        weights.append(part.points / root[:, None])
        rows = np.zeros((len(root), len(outputs)))
        rows[:, k] = part.sigma * root
        output.append(rows)
    first, second = np.vstack(weights), np.vstack(output)
    third = np.column_stack([part.linear for part in outputs])
    shape = (-1, len(outputs))[:ndim]
    return Network(
        np.ascontiguousarray(first[:, :d]),
        second.reshape(-1) if ndim == 1 else second,
        first[:, d] if bias else np.zeros(len(first)),
        third[:d].reshape(shape),
        third[d].reshape(shape[1:]) if bias else np.zeros(shape[1:]),
    )


def output_balls(network: Network, X: FloatArray) -> arb_mat:
    """Enclose the network's outputs, shape (n, K)."""
    n, m = X.shape[0], network.n_neurons
    output = columns(network.output_weights)
    linear, offset = columns(network.linear), network.offset.reshape(1, -1)
    exact = ball_matrix(X)
    result = exact * ball_matrix(linear) + ball_matrix(np.ones((n, 1))) * ball_matrix(offset)
    if m:
        hidden = exact * ball_matrix(network.weights.T)
        zero = arb(0)
        biases = balls(network.biases)
        rectified = arb_mat(
            n, m, [(hidden[i, j] + biases[j]).max(zero) for i in range(n) for j in range(m)]
        )
        result += rectified * ball_matrix(output)
    return result


def penalty_ball(network: Network) -> arb:
    total = square_sum(network.weights) + square_sum(network.biases)
    for row in columns(network.output_weights):
        total += sum((abs(arb(float(w))) for w in row), arb(0)) ** 2
    return total / 2


def value_error(network: Network, X: FloatArray, y: FloatArray, beta: float, loss: Loss) -> float:
    """Bound the rounding error of the objective evaluated in float64."""
    n, d = X.shape
    unit = float(4.0 * (n + d + network.n_neurons + 10) * _EPS)
    size = np.abs(X)
    hidden = size @ np.abs(network.weights).T + np.abs(network.biases)
    magnitude = hidden @ np.abs(network.output_weights) + np.abs(y)
    if network.linear.any() or network.offset.any():
        magnitude += size @ np.abs(network.linear) + np.abs(network.offset)
    f, change = network(X), unit * magnitude
    value = loss.value(f, y)
    # A convex function is steepest at the ends.
    slopes = [np.abs(loss.gradient(f + s * change, y)) for s in (-1.0, 1.0)]
    return float(np.sum(np.maximum(*slopes) * change)) + unit * (
        (value if np.isfinite(value) else 0.0) + beta * network.penalty
    )
