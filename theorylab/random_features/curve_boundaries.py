r"""Where a curve meets the boundaries of linear regions of a random ReLU network.

A neuron with weights $N(0,\sigma_w^2)$ and bias $N(0,\sigma_b^2)$ is along a curve
$c(t)$ a Gaussian process of variance $s=\sigma_w^2|c|^2+\sigma_b^2$, which vanishes
(Kac and Rice) at a mean of

$$\frac1\pi\sqrt{\frac{\sigma_w^2|c'|^2}s-\frac{\sigma_w^4(c^\top c')^2}{s^2}}
\le\frac{\sigma_w|c'|}{\pi\sqrt s}\le\frac{\sigma_w|c'|}{\pi\sigma_b}$$

points per unit of t. Given the layers before, this holds in every layer with the image of the curve
in place of c. A layer with $\sigma_w^2=2/n$, n its inputs, m units, multiplies the mean
squared speed $|c'|^2$ by m/n, so that at constant width the mean number of boundary points of
a neuron of any layer is at most $\sqrt{2/n}/(\pi\sigma_b)$ per unit of length of the curve
(derived): boundaries are linear in the number of neurons, whatever the depth.

If points lie at a mean density of at most $\rho$ on a curve, the distance along it to the
nearest is on average at least $1/(4\rho)$ where the ends are further away than
$1/(2\rho)$, by Markov's inequality.

Paper: tiwari2022-effects (its constants are not explicit; formulas derived here)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = [
    "CurveBoundaries",
    "crossing_density",
    "crossing_density_bound",
    "deep_crossing_bound",
    "distance_bound",
    "nearest_boundary",
    "trace_boundaries",
]


@result
class CurveBoundaries:
    """The points at which the neurons of a network switch along a polygon, arrays of shape
    (points,).

    Attributes
    ----------
    positions
        Arc length from the start of the polygon; increasing.
    layers, neurons
        Which neuron switches there, both counted from 0.
    length
        Of the polygon.
    """

    positions: FloatArray
    layers: NDArray[np.int64]
    neurons: NDArray[np.int64]
    length: float


def crossing_density(
    points: ArrayLike, velocities: ArrayLike, *, weight_scale: float, bias_scale: float
) -> FloatArray:
    r"""Return the mean number of boundary points of a first-layer neuron, per unit of t.

    Parameters
    ----------
    points, velocities
        (m, d): c(t) and c'(t) at m times.
    weight_scale, bias_scale
        Standard deviations; without bias the curve must not meet the origin.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import crossing_density
    >>> crossing_density([[0.0, 3.0]], [[1.0, 0.0]], weight_scale=1.0, bias_scale=4.0) * np.pi
    array([0.2])
    """
    c, v, unit = _curve(points, velocities, weight_scale, bias_scale)
    size = np.linalg.norm(c, axis=1)
    # |v|^2 s - (c v)^2 as a sum of squares: the area of c and v, and the bias times the speed.
    toward = c / np.where(size > 0, size, 1.0)[:, None]
    across = v - toward * np.sum(toward * v, axis=1)[:, None]
    area = np.hypot(size * np.linalg.norm(across, axis=1), unit * np.linalg.norm(v, axis=1))
    return np.asarray(area / (math.pi * (size**2 + unit**2)))


def crossing_density_bound(
    points: ArrayLike, velocities: ArrayLike, *, weight_scale: float, bias_scale: float
) -> FloatArray:
    r"""Return $\sigma_w|c'|/(\pi\sqrt s)$, which the density attains where the curve keeps
    its distance from the origin.

    Parameters
    ----------
    points, velocities, weight_scale, bias_scale
        As for :func:`crossing_density`.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import crossing_density_bound
    >>> crossing_density_bound([[3.0]], [[1.0]], weight_scale=1.0, bias_scale=4.0) * np.pi
    array([0.2])
    """
    c, v, unit = _curve(points, velocities, weight_scale, bias_scale)
    size = np.sum(c**2, axis=1) + unit**2
    return np.asarray(np.sqrt(np.sum(v**2, axis=1) / size) / math.pi)


def deep_crossing_bound(width: int, *, bias_scale: float) -> float:
    r"""Return $\sqrt{2/n}/(\pi\sigma_b)$: per unit of length of the curve no neuron of any
    layer switches more often, on average, in a ReLU network with weights $N(0,2/n)$ and
    $n$ inputs and neurons in every layer.

    Parameters
    ----------
    width
        n.
    bias_scale
        Standard deviation of the biases, positive.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import deep_crossing_bound
    >>> round(deep_crossing_bound(8, bias_scale=0.5) * np.pi, 12)
    1.0
    """
    n = as_count(width, "width")
    return math.sqrt(2 / n) / (math.pi * as_real(bias_scale, "bias_scale", minimum=1e-150))


def distance_bound(density: float) -> float:
    r"""Return $1/(4\rho)$, below which the mean distance to the nearest boundary cannot be.

    Parameters
    ----------
    density
        $\rho$, an upper bound of the mean number of boundary points per unit of length; the
        point must be further than $1/(2\rho)$ from the ends of the curve.

    Examples
    --------
    >>> from theorylab.random_features import distance_bound
    >>> distance_bound(0.5)
    0.5
    """
    return 1 / (4 * as_real(density, "density", minimum=1e-150))


@refuses_overflow("points", "weights", "biases")
def trace_boundaries(
    points: ArrayLike, weights: Sequence[ArrayLike], biases: Sequence[ArrayLike]
) -> CurveBoundaries:
    """Find, exactly, where the neurons of a ReLU network switch along a polygon.

    Between the points found so far all layers before are linear: a neuron switches where its signs
    at the ends of a piece differ.

    Parameters
    ----------
    points
        (m, d) vertices, at least two.
    weights, biases
        One matrix (units, inputs) and one vector (units,) a layer.

    Examples
    --------
    >>> from theorylab.random_features import trace_boundaries
    >>> hat = trace_boundaries([[0.1], [4.1]], [[[1.0], [1.0]], [[1.0, -2.0]]], [[0, -1], [-0.5]])
    >>> hat.positions.round(9).tolist(), hat.layers.tolist()
    ([0.4, 0.9, 1.4], [1, 0, 1])
    """
    H = as_array(points, "points", ndim=2)
    for name, layers in (("weights", weights), ("biases", biases)):
        if isinstance(layers, str) or not isinstance(layers, Sequence) or len(layers) == 0:
            got = f"{type(layers).__name__}"
            raise ValueError(f"{name}: expected a sequence of arrays, one a layer, got {got}")
    if len(H) < 2:
        raise ValueError(f"points: expected at least two vertices, got shape {H.shape}")
    if len(biases) != len(weights):
        raise ValueError(f"biases: expected {len(weights)} layers, got {len(biases)}")
    steps = np.diff(H, axis=0)
    unit = float(np.abs(steps).max()) or 1.0
    t = np.concatenate([[0.0], np.cumsum(unit * np.linalg.norm(steps / unit, axis=1))])
    length, found = float(t[-1]), []
    for depth, (layer, shift) in enumerate(zip(weights, biases, strict=True)):
        W = as_array(layer, "weights", shape=(None, H.shape[1]))
        Z = H @ W.T + as_array(shift, "biases", shape=(len(W),))
        i, j = np.nonzero((Z[:-1] > 0) != (Z[1:] > 0))
        share = Z[i, j] / (Z[i, j] - Z[i + 1, j])
        at = t[i] + share * (t[i + 1] - t[i])
        found.append((at, np.full(len(j), depth), j))
        if depth + 1 < len(weights):
            new = Z[i] + share[:, None] * (Z[i + 1] - Z[i])
            new[np.arange(len(j)), j] = 0.0
            order = np.argsort(np.concatenate([t, at]), kind="stable")
            t = np.concatenate([t, at])[order]
            H = np.maximum(np.concatenate([Z, new])[order], 0.0)
    at, depths, units = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(at, kind="stable")
    return CurveBoundaries(at[order], depths[order], units[order], length)


@refuses_overflow("at")
def nearest_boundary(boundaries: CurveBoundaries, at: float, *, closed: bool = False) -> float:
    """Return the distance along the curve from a point to the nearest boundary; where there is
    none, to the end of the curve that is further (the opposite point of a closed one).

    Parameters
    ----------
    boundaries
        What :func:`trace_boundaries` returned.
    at
        Arc length of the point, from the start of the polygon.
    closed
        Whether the curve ends where it starts.

    Examples
    --------
    >>> from theorylab.random_features import nearest_boundary, trace_boundaries
    >>> found = trace_boundaries([[0.0], [4.0]], [[[1.0]]], [[-1.0]])
    >>> nearest_boundary(found, 3.5), nearest_boundary(found, 3.5, closed=True)
    (2.5, 1.5)
    """
    length = as_instance(boundaries, "boundaries", CurveBoundaries).length
    x = as_real(at, "at", minimum=0.0, maximum=length)
    gaps = np.abs(boundaries.positions - x)
    if as_flag(closed, "closed"):
        return float(np.minimum(gaps, length - gaps).min(initial=length / 2))
    return float(gaps.min(initial=max(x, length - x)))


def _curve(
    points: ArrayLike, velocities: ArrayLike, weight_scale: float, bias_scale: float
) -> tuple[FloatArray, FloatArray, float]:
    """Return points, velocities and the bias scale in units of the weight scale."""
    c = as_array(points, "points", ndim=2)
    v = as_array(velocities, "velocities", shape=c.shape)
    w = as_real(weight_scale, "weight_scale", above=0.0)
    ratio = as_real(bias_scale, "bias_scale", minimum=0.0) / w
    if not ratio < 1e150 or np.abs(c).max() > 1e150 or np.abs(v).max() > 1e150:
        raise ValueError(
            "points, velocities, weight_scale, bias_scale: expected magnitudes whose squares stay "
            "within float64"
        )
    smallest = np.sqrt(np.min(np.sum(c**2, axis=1)) + ratio**2)
    if smallest < 1e-150:
        raise ValueError("points: expected none at the origin where bias_scale is 0")
    return c, v, ratio
