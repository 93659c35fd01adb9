"""Minimal networks, whose neurons have linearly independent outputs, and the pruning that ends
there."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_flag
from theorylab.convex_relu._faces import EPS, Neurons, network_of, neurons_of
from theorylab.convex_relu._network import Network, as_network
from theorylab.convex_relu._problem import augment
from theorylab.numerics.results import result


def is_minimal(
    X: ArrayLike, network: Network | tuple[ArrayLike, ArrayLike], *, bias: bool = False
) -> bool:
    """Return whether the outputs of the network's neurons on the data are linearly independent.

    For an optimal network: whether no proper subset of its neurons, with any weights, is optimal.

    Parameters
    ----------
    X
        Data, shape (n, d).
    network
        A ``Network`` with one output, or the pair of its weights (m, d) and output weights (m,).
    bias
        Whether the network may have biases.

    Raises
    ------
    ValueError
        For malformed data or a network of the wrong shape.

    Notes
    -----
    mishkin2023-optimal, pruning.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import is_minimal, Network
    >>> twice = Network(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, 1.0]))
    >>> is_minimal([[1.0, 0.5], [-0.5, 1.0]], twice)
    False
    """
    neurons = _as_neurons(X, network, bias)
    return null_vector(neurons.atoms) is None


@result
class PrunedOptimum:
    """A pruned network and the way to it.

    Parameters
    ----------
    network
        Its neurons have linearly independent outputs on the data.
    n_neurons
        Number of neurons before the first and after every step.
    penalties
        Sum of the weights then.
    """

    network: Network
    n_neurons: tuple[int, ...]
    penalties: tuple[float, ...]

    @property
    def n_steps(self) -> int:
        """Number of steps, at most the nullity of the first network's outputs."""
        return len(self.n_neurons) - 1


def optimal_pruning(
    X: ArrayLike, network: Network | tuple[ArrayLike, ArrayLike], *, bias: bool = False
) -> PrunedOptimum:
    """Remove neurons one linear relation at a time, without changing the outputs on the data or
    raising the penalty.

    Parameters
    ----------
    X, network, bias
        As for ``is_minimal``.

    Returns
    -------
    PrunedOptimum
        A network whose neurons have linearly independent outputs, at most ``rank <= n`` of them. If
        the network was optimal the penalty stays the same and the result is a minimal optimal
        network.

    Raises
    ------
    ValueError
        For malformed data or a network of the wrong shape.

    Notes
    -----
    mishkin2023-optimal, optimal pruning. The move goes along a null vector of the outputs of the
    unit neurons, in the direction in which the sum of the weights does not grow, until a weight
    vanishes.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import Network, optimal_pruning
    >>> twice = Network(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, 1.0]))
    >>> len(optimal_pruning([[1.0, 0.5], [-0.5, 1.0]], twice).network.output_weights)
    1
    """
    neurons = _as_neurons(X, network, bias)
    units, signs, atoms, c = (
        neurons.points / neurons.lengths[:, None],
        neurons.signs,
        neurons.atoms,
        neurons.lengths,
    )
    counts, penalties = [c.size], [float(c.sum())]
    while (null := null_vector(atoms)) is not None:
        if null.sum() > 0.0:
            null = -null
        falling = null < 0.0
        step = float(np.min(c[falling] / -null[falling]))
        # The weights that reach zero do so together up to the rounding of the move.
        small = 4.0 * EPS * float(c.max()) * c.size
        c = c + step * null
        keep = c > small
        c, units, signs, atoms = c[keep], units[keep], signs[keep], atoms[:, keep]
        counts.append(c.size)
        penalties.append(float(c.sum()))
    root = np.sqrt(c)
    return PrunedOptimum(
        network_of(units * root[:, None], signs * root, bias), tuple(counts), tuple(penalties)
    )


def _as_neurons(
    X: ArrayLike, network: Network | tuple[ArrayLike, ArrayLike], bias: bool
) -> Neurons:
    X = as_array(X, "X", ndim=2)
    bias = as_flag(bias, "bias")
    checked = as_network(network, X, np.zeros(X.shape[0]))
    if not bias and np.any(checked.biases):
        raise ValueError("network: expected no biases without bias=True, got non-zero ones")
    if np.any(checked.linear) or np.any(checked.offset):
        raise ValueError("network: expected no skip connection, got one")
    return neurons_of(augment(X, bias), checked, bias)


def null_vector(atoms: FloatArray) -> FloatArray | None:
    """Return a unit vector with ``atoms @ null = 0`` up to rounding, or None if the columns are
    independent."""
    n, m = atoms.shape
    if m == 0:
        return None
    if m <= n:
        s = np.linalg.svd(atoms, compute_uv=False)
        # Trained neurons carry errors of a thousand units in the last place.
        if s[-1] > 1e3 * (n + m) * EPS * s[0]:
            return None
    null: FloatArray = np.linalg.svd(atoms, full_matrices=m > n)[2][-1]
    return null
