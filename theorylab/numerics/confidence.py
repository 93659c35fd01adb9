"""Confidence intervals for means of independent samples, entry by entry, and for slopes.

Each function takes samples along the first axis and the error probability of both sides together,
and returns the lower and upper ends.
"""

from __future__ import annotations

import math

import numpy as np

from theorylab._validation import FloatArray, as_array

__all__ = ["bounded_mean", "clopper_pearson", "local_slopes", "student"]

Ends = tuple[FloatArray, FloatArray]


def clopper_pearson(successes: FloatArray, n: int, level: float) -> Ends:
    """Enclose a probability by the number of successes in ``n`` independent trials.

    Examples
    --------
    >>> [round(float(end), 3) for end in clopper_pearson(np.array(5.0), 10, 0.05)]
    [0.187, 0.813]
    """
    from scipy.special import betaincinv

    k, a = successes, level / 2
    lo = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, a), 0.0)
    hi = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - a), 1.0)
    return lo, hi


def student(samples: FloatArray, level: float) -> Ends:
    """Enclose the mean of normal samples; the level is approached for skewed ones.

    Examples
    --------
    >>> lo, hi = student(np.array([1.0, 2.0, 3.0]), 0.05)
    >>> round(float(hi - lo), 3)
    4.968
    """
    from scipy.special import stdtrit

    n, average = len(samples), samples.mean(axis=0)
    quantile = float(stdtrit(n - 1, 1 - level / 2))
    noise = quantile * samples.std(axis=0, ddof=1) / math.sqrt(n)
    return average - noise, average + noise


def bounded_mean(samples: FloatArray, support: tuple[float, float], level: float) -> Ends:
    """Enclose the mean of samples in a known interval, without normality.

    The intersection, half of the level each, of the empirical Bernstein interval (Maurer and Pontil
    2009, Theorem 4) and of Clopper and Pearson's for the samples rounded at random to the ends of
    the support, which keeps their mean.

    Raises
    ------
    ValueError
        If a sample lies outside of the support.

    Examples
    --------
    >>> lo, hi = bounded_mean(np.full(1000, 0.25), (0.0, 1.0), 1e-6)
    >>> bool(lo < 0.25 < hi < 0.32)
    True
    """
    start, end = as_array(support, "support", shape=(2,)).tolist()
    if not (start < end and start <= samples.min() and samples.max() <= end):
        raise ValueError(f"support: expected ends around all samples, got {support}")
    n, width = len(samples), end - start
    # The coins owe nothing to any other stream of numbers.
    coins = np.random.default_rng([31415, n]).random(samples.shape) < (samples - start) / width
    lo, hi = clopper_pearson(coins.sum(axis=0).astype(float), n, level / 2)
    log = math.log(8 / level)
    radius = np.sqrt(2 * samples.var(axis=0, ddof=1) * log / n) + 7 * width * log / (3 * (n - 1))
    average = samples.mean(axis=0)
    return (
        np.maximum(start + width * lo, average - radius),
        np.minimum(start + width * hi, average + radius),
    )


def local_slopes(t: FloatArray, y: FloatArray, level: float) -> tuple[float, float]:
    """Enclose the limit of the local slopes of a record by their hull, extended as they drift.

    Rows of ``y``, shape (repetitions, n), are independent repetitions: with more than one, the hull
    is a Student interval of the mean slope.

    Examples
    --------
    >>> t = np.linspace(1.0, 2.0, 9)
    >>> [round(end, 6) for end in local_slopes(t, 3 * t[None], 1e-6)]
    [3.0, 3.0]
    """
    middle = int(np.argmin(np.abs(t - (t[0] + t[-1]) / 2)))
    early, late = (
        float((y[:, j] - y[:, i]).mean() / (t[j] - t[i])) for i, j in ((0, middle), (middle, -1))
    )
    # A remainder (geometric, or 1/t) that halves over the range ends 2.0 to 2.1 drifts from the
    # limit; the mean of one that falls to a quarter is 1.5 to 1.6 drifts away.
    if len(y) == 1:
        slopes = np.diff(y[0]) / np.diff(t)
        lo, hi, reach = float(slopes.min()), float(slopes.max()), 2.2 * (late - early)
    else:
        ends = student((y[:, -1] - y[:, 0]) / (t[-1] - t[0]), level)
        lo, hi, reach = float(ends[0]), float(ends[1]), 1.6 * (late - early)
    return lo + min(reach, 0.0), hi + max(reach, 0.0)
