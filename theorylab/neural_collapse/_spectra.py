r"""Class-level matrices that are invariant under permutations of classes of equal size, by their
singular values.

A logit matrix with one column a class, $A\in\mathbb R^{K\times K}$, stands for
$P\in\mathbb R^{K\times N}$ with column k repeated n_k times; the singular values of P are
those of $A\,\mathrm{diag}(\sqrt{n_k})$. If A commutes with permutations of equal classes, it
acts on the vectors that sum to zero inside a group of m equal classes by a scalar c, which gives m
- 1 singular values $|c|\sqrt n$, and on the G group indicators by a G x G matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array
from theorylab.neural_collapse._frames import simplex_etf
from theorylab.numerics.results import result


@dataclass(frozen=True)
class Groups:
    """Classes of equal size: the distinct ``sizes`` (G,), how many classes have each, and the group
    of every class (K,)."""

    sizes: FloatArray
    multiplicities: NDArray[np.int64]
    of_class: NDArray[np.int64]


@result
class Spectrum:
    """Singular values (r,), left vectors (K, r) and right vectors (r, K) of ``A
    diag(sqrt(counts))``, not ordered."""

    values: FloatArray
    left: FloatArray
    right: FloatArray

    def largest(self, count: int) -> Spectrum:
        """Return the ``count`` largest singular values, in descending order."""
        order = np.argsort(-self.values, kind="stable")[:count]
        return Spectrum(self.values[order], self.left[:, order], self.right[order])


def as_counts(value: ArrayLike, name: str) -> NDArray[np.int64]:
    """Return class sizes: at least two positive integers, whose sum is exact in float64."""
    array = as_array(value, name, ndim=1, positive=True)
    if (array != np.round(array)).any() or array.size < 2 or array.sum() > 2**53:
        raise ValueError(
            f"{name}: expected at least two positive integers of sum at most 2^53, got "
            f"{array[:8].tolist()}"
        )
    return array.astype(np.int64)


def as_labels(
    labels: ArrayLike,
    size: int | None,
    n_classes: int,
    name: str = "labels",
    expected: str = "integers from 0 to K - 1",
) -> NDArray[np.int64]:
    """Return the labels as integers below ``n_classes``, ``size`` of them if given."""
    y = as_array(labels, name, shape=(size,), nonnegative=True)
    whole = y.astype(np.int64)
    if (whole != y).any() or whole.max() >= n_classes:
        raise ValueError(f"{name}: expected {expected} < {n_classes}, got {y.max()}")
    return whole


def groups_of(counts: NDArray[np.int64]) -> Groups:
    """Return the groups of classes of equal size."""
    sizes, of_class, multiplicities = np.unique(counts, return_inverse=True, return_counts=True)
    return Groups(
        sizes.astype(np.float64), multiplicities.astype(np.int64), of_class.astype(np.int64)
    )


def expand(
    groups: Groups, within: FloatArray, left: FloatArray, values: FloatArray, right: FloatArray
) -> Spectrum:
    """Return the K x K spectrum of scalars ``within`` (G,) (singular values inside the groups) and
    a G x G decomposition."""
    m, of_class = groups.multiplicities, groups.of_class
    spread = 1 / np.sqrt(m)[of_class]
    lefts, rights, all_values = (
        [left[of_class] * spread[:, None]],
        [right[:, of_class] * spread],
        [values],
    )
    for g in np.flatnonzero((within > 0) & (m > 1)):
        size = int(m[g])
        frame = np.zeros((of_class.size, size - 1))
        frame[of_class == g] = simplex_etf(size, size - 1) * np.sqrt((size - 1) / size)
        lefts.append(frame)
        rights.append(frame.T)
        all_values.append(np.full(size - 1, within[g]))
    return Spectrum(np.concatenate(all_values), np.hstack(lefts), np.vstack(rights))


def label_spectrum(counts: NDArray[np.int64], bias: bool) -> Spectrum:
    r"""Return the spectrum of the labels Y, with a free bias that of
    $Y(I-\frac1N\mathbf1\mathbf1^\top)$."""
    n = counts.astype(np.float64)
    if not bias:
        return Spectrum(np.sqrt(n), np.eye(n.size), np.eye(n.size))
    groups = groups_of(counts)
    frequencies = groups.multiplicities * groups.sizes / n.sum()
    root, unit = np.sqrt(groups.sizes), np.sqrt(frequencies)
    left, values, right = np.linalg.svd(np.diag(root) - np.outer(root * unit, unit))
    # The least is zero: the bias takes the multiples of the unit vector.
    return expand(groups, root, left[:, :-1], values[:-1], right[:-1])


def balanced_factors(
    spectrum: Spectrum, counts: NDArray[np.int64], lams: FloatArray, width: int
) -> list[FloatArray]:
    r"""Return $W_M,\dots,W_1$ and class features (width, K) with the given product at least
    penalty.

    Every factor carries the same share of the penalty: the singular value p contributes
    $\lambda_jw_j^2=(\Lambda p^2)^{1/L}$ in each of the L factors,
    $\Lambda=\prod_j\lambda_j$."""
    depth = lams.size
    rank = int(np.count_nonzero(spectrum.values > 0))
    if rank > width:
        raise ValueError(
            f"dimension: expected at least the rank {rank} of the minimizer, got {width}"
        )
    kept = spectrum.largest(rank)
    share = np.exp((np.log(lams).sum() + 2 * np.log(kept.values)) / (2 * depth))
    sizes = [share / np.sqrt(lam) for lam in lams]
    first = np.zeros((spectrum.left.shape[0], width))
    first[:, :rank] = kept.left * sizes[0]
    last = np.zeros((width, counts.size))
    last[:rank] = sizes[-1][:, None] * kept.right / np.sqrt(counts)
    middle = []
    for size in sizes[1:-1]:
        W = np.zeros((width, width))
        W[np.arange(rank), np.arange(rank)] = size
        middle.append(W)
    return [first, *middle, last]
