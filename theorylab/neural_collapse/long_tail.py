r"""Geometry that is imposed on long-tailed classes: spread-out means, sparse simplex frames,
entropy of the features.

- For unit centres $c_1,\dots,c_K$,

  $$\frac1K\sum_i\max_{j\ne i}c_i^\top c_j\ge\frac{\|\sum c_i\|^2-K}{K(K-1)}\ge-\frac1{K-1},$$

  with equality exactly for simplex equiangular tight frames (ETF). The smooth form
  $R_b=\frac1K\sum_i\frac1b\log\operatorname{mean}_{j\ne i}e^{b\,c_i^\top c_j}$ lies between
  the mean and the maximum, so it has the same minimum and the same minimizers for every b > 0.
- Added to cross-entropy with free features, $L(W,H)+\gamma R_b$, it moves the class means to
  an ETF whatever the class
  sizes: a minimizer satisfies $R_b+\frac1{K-1}\le(L_{\mathrm{etf}}-\min L)/\gamma$,
  $L_{\mathrm{etf}}$ the least loss of features in ETF directions. The classifier is not
  regularised towards a frame.
- Rows with fixed supports: two disjoint supports have inner product 0, an error of 1/(K-1) in the
  ETF's Gram matrix.
- The von Neumann entropy S of the normalised autocorrelation satisfies
  $e^S\le\operatorname{rank}$, and
  $\|\lambda-\frac1d\|_1\le\sqrt{2(\log d-S)}$ (Pinsker): full entropy means isotropy.

Sources: liu2023-inducing, xiao2024-fedloge, kim2023-effective; statements derived here, the papers'
texts were not consulted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import as_array, as_flag, as_real
from theorylab.neural_collapse._sparse_frames import (
    SparseEtf,
    SparseStatus,
    disjoint_pairs,
    random_supports,
    sparse_etf,
)
from theorylab.neural_collapse._spread_centres import (
    RegularisedMinimizer,
    cosine_remainder,
    etf_aligned_minimizer,
    mean_max_cosine,
    mean_min_angle,
    regularised_minimizer,
    spread_centres,
    unit_rows,
)

__all__ = [
    "RegularisedMinimizer",
    "SparseEtf",
    "SparseStatus",
    "correlation_factor",
    "cosine_remainder",
    "disjoint_pairs",
    "etf_aligned_minimizer",
    "mean_max_cosine",
    "mean_min_angle",
    "random_supports",
    "regularised_minimizer",
    "sparse_etf",
    "spread_centres",
    "von_neumann_entropy",
]


def correlation_factor(deviation: float) -> float:
    r"""Return $\phi(r)=\frac{-\log(1-r)-r}{(1-r)\log(1-r)+r}$: zero-mean Gaussian features of
    trace 1 in d dimensions have total correlation at most $\frac d2\phi(r)(\log d-S)$ if no
    eigenvalue is below $(1-r)/d$ (derived).

    With eigenvalues $(1+x_i)/d$, $\sum x_i=0$, the correlation is at most
    $\frac12\sum k(x_i)$, $k(x)=x-\log(1+x)$, and the deficit is
    $\frac1d\sum h(x_i)$, $h(x)=(1+x)\log(1+x)-x$. Both vanish at 0, and
    $k'/h'=(1-e^{-u})/u$, $u=\log(1+x)$, decreases: so does k/h, which is
    $\phi(r)$ at x = -r.

    Parameters
    ----------
    deviation
        r, from 0 to 1 (excluded).

    Examples
    --------
    >>> from theorylab.neural_collapse import correlation_factor
    >>> correlation_factor(0.0)
    1.0
    """
    r = as_real(deviation, "deviation", minimum=0.0, below=1.0)
    if r < 1e-3:  # the series, whose next term is below 1e-12; the quotient loses all digits
        return 1 + r / 3 + 2 * r**2 / 9 + 23 * r**3 / 135
    log = math.log1p(-r)
    return (-log - r) / ((1 - r) * log + r)


def von_neumann_entropy(features: ArrayLike, *, normalise: bool = True) -> float:
    r"""Return $-\sum\lambda_i\log\lambda_i$ of the spectrum of the autocorrelation
    $HH^\top/N$ (kim2023-effective).

    With unit columns the eigenvalues sum to one, and the exponential of the entropy is at most the
    rank, d where isotropic.

    Parameters
    ----------
    features
        (d, N), a column a sample; not zero where normalised.
    normalise
        Whether to scale every column to length one first.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import von_neumann_entropy
    >>> np.exp(von_neumann_entropy(np.eye(4), normalise=True)).round(6).item()
    4.0
    """
    H = as_array(features, "features", ndim=2)
    if as_flag(normalise, "normalise"):
        if not H.any(axis=0).all():
            raise ValueError("features: expected columns other than zero, got a zero column")
        H = unit_rows(H.T).T
    spectrum = np.linalg.svd(H, compute_uv=False) ** 2 / H.shape[1]
    spectrum = spectrum[spectrum > 0]
    return float(-np.sum(spectrum * np.log(spectrum)))
