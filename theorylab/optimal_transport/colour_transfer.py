r"""Colour transfer: the palettes of two pictures, and what a plan between them leaves of a palette.

A palette is n colours $y_i$ of weight $b_i$. A plan P from m classes of pixels of
weight $a_j$ to it gives each class the mean of the colours that it is matched with,

$$T_j=\frac1{a_j}\sum_iP_{ji}y_i,\qquad
\underbrace{\sum_ib_i\|y_i-\bar y\|^2}_{\text{variance of the palette}}
=\underbrace{\sum_ja_j\|T_j-\bar y\|^2}_{\text{kept}}
+\underbrace{\sum_{ij}P_{ji}\|y_i-T_j\|^2}_{\text{lost in mixing}},$$

the law of total variance: the recoloured picture has the mean of the palette, and its contrast is
what mixing leaves. Nothing is lost iff every class takes one colour. The product plan loses all,
and the entropic plan for $\|x-y\|^2$ does for large $\epsilon$, where (derived, from
$P_{ji}=a_jb_i(1+\frac2\epsilon(x_j-\bar x)\cdot(y_i-\bar y)+O(\epsilon^{-2}))$)

$$T_j-\bar y\sim\frac2\epsilon\Sigma_y(x_j-\bar x),\qquad
\text{kept}\sim\frac4{\epsilon^2}\operatorname{tr}\Sigma_x\Sigma_y^2.$$"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from theorylab._validation import FloatArray, as_array, as_count, as_instance, refuses_overflow
from theorylab.numerics.results import result
from theorylab.optimal_transport._problem import as_weights

__all__ = [
    "Mixing",
    "Palette",
    "barycentric_map",
    "entropic_contrast",
    "extract_palette",
    "mixing",
    "recolour",
]

_ROUNDS = 20  # of Lloyd's algorithm


@result
class Palette:
    """The colours of a picture.

    Attributes
    ----------
    colours
        (n, d), the mean colour of each class of pixels.
    weights
        (n,), the classes' shares of the pixels.
    labels
        (rows, columns), the class of each pixel.
    """

    colours: FloatArray
    weights: FloatArray
    labels: NDArray[np.int64]


@refuses_overflow("image")
def extract_palette(image: ArrayLike, *, n_colours: int, seed: int) -> Palette:
    """Return the palette of a picture by k-means (Lloyd's algorithm, 20 rounds).

    Its mean is that of the picture.

    Parameters
    ----------
    image
        (rows, columns, d) colours, in any unit.
    n_colours
        Number of classes; fewer are returned where the picture has fewer colours, or some remain
        empty.
    seed
        Seeds the first centres (k-means++).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import extract_palette
    >>> image = np.zeros((2, 3, 3))
    >>> image[:, 0] = 1.0
    >>> extract_palette(image, n_colours=2, seed=0).weights.round(3).tolist()
    [0.667, 0.333]
    """
    pixels = as_array(image, "image", ndim=3)
    n_colours = as_count(n_colours, "n_colours")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    shape, d = pixels.shape[:2], pixels.shape[2]
    if n_colours > shape[0] * shape[1]:
        raise ValueError(f"n_colours: expected at most one a pixel of {shape}, got {n_colours}")
    pixels = pixels.reshape(-1, d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty class
        n_colours = min(n_colours, len(np.unique(pixels, axis=0)))
        unit = float(abs(pixels).max()) or 1.0
        centred = pixels / unit - (pixels / unit).mean(axis=0)
        _, classes = kmeans2(centred, n_colours, _ROUNDS, minit="++", rng=rng)
    _, labels, counts = np.unique(classes, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(labels, column) for column in pixels.T], axis=1)
    return Palette(sums / counts[:, None], counts / counts.sum(), labels.reshape(shape))


def recolour(palette: Palette, colours: ArrayLike) -> FloatArray:
    """Return the picture in which each class of pixels has its row of ``colours``.

    Parameters
    ----------
    palette
        Of the picture.
    colours
        (n, d), one row a class.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import extract_palette, recolour
    >>> palette = extract_palette(np.full((2, 2, 3), 0.5), n_colours=1, seed=0)
    >>> recolour(palette, [[1.0, 0.0, 0.0]]).shape
    (2, 2, 3)
    """
    palette = as_instance(palette, "palette", Palette)
    painted: FloatArray = as_array(colours, "colours", shape=(len(palette.weights), None))[
        palette.labels
    ]
    return painted


@refuses_overflow("Y")
def barycentric_map(plan: ArrayLike, Y: ArrayLike) -> FloatArray:
    """Return the mean of Y under each row of the plan.

    Parameters
    ----------
    plan
        (n, m), not negative, every row with mass; of any total mass.
    Y
        (m, d) points.

    Examples
    --------
    >>> from theorylab.optimal_transport import barycentric_map
    >>> barycentric_map([[0.25, 0.25], [0.0, 0.5]], [[0.0], [2.0]]).tolist()
    [[1.0], [2.0]]
    """
    P, Y = _matched(plan, Y)
    mapped: FloatArray = (P @ Y) / P.sum(axis=1, keepdims=True)
    return mapped


@result
class Mixing:
    """What a plan's barycentric map makes of a cloud: its mean, the variance that it keeps and the
    variance that is lost within the rows. The two sum to the variance of the cloud."""

    mean: FloatArray
    kept: float
    lost: float


@refuses_overflow("Y")
def mixing(plan: ArrayLike, Y: ArrayLike) -> Mixing:
    """Return mean and variance of the barycentric map, and the mean variance within a row of the
    plan (law of total variance).

    Parameters
    ----------
    plan
        (n, m), not negative, every row with mass; of any total mass.
    Y
        (m, d) points.

    Examples
    --------
    >>> from theorylab.optimal_transport import mixing
    >>> found = mixing([[0.25, 0.25], [0.0, 0.5]], [[0.0], [2.0]])
    >>> found.kept, found.lost
    (0.25, 0.5)
    """
    P, Y = _matched(plan, Y)
    mapped, P = barycentric_map(P, Y), P / P.sum()
    rows = P.sum(axis=1)
    mean = rows @ mapped
    apart = cdist(mapped, Y, "sqeuclidean")
    return Mixing(mean, float(rows @ ((mapped - mean) ** 2).sum(axis=1)), float((P * apart).sum()))


@refuses_overflow("X", "Y")
def entropic_contrast(X: ArrayLike, Y: ArrayLike, a: ArrayLike, b: ArrayLike) -> float:
    r"""Return $4\operatorname{tr}\Sigma_x\Sigma_y^2$, the limit of $\epsilon^2$ times
    the variance that the entropic plan for $\|x-y\|^2$ keeps of Y, as
    $\epsilon\to\infty$.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) points.
    a, b
        (n,) and (m,) weights that sum to one.

    Examples
    --------
    >>> from theorylab.optimal_transport import entropic_contrast
    >>> entropic_contrast([[0.0], [2.0]], [[0.0], [2.0]], [0.5, 0.5], [0.5, 0.5])
    4.0
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(None, X.shape[1]))
    spread = []
    for points, weights, name in ((X, a, "a"), (Y, b, "b")):
        w = as_weights(weights, name)
        w = as_array(w, name, shape=(len(points),))
        spread.append(np.atleast_2d(np.cov(points.T, aweights=w, bias=True)))
    return float(4 * np.trace(spread[0] @ spread[1] @ spread[1]))


def _matched(plan: ArrayLike, Y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    P = as_array(plan, "plan", ndim=2, nonnegative=True)
    P = P / (float(P.max()) or 1.0)
    if not P.sum(axis=1).all():
        raise ValueError(
            f"plan: expected mass in every row, got none in {int(np.argmin(P.sum(1)))}"
        )
    return P, as_array(Y, "Y", shape=(P.shape[1], None))
