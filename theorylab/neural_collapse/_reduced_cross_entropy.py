r"""Cross-entropy with free features and classes of any sizes, reduced to its convex core.

The minimizing logits are invariant under permutations of classes of equal size. With G groups of
$m_h$ classes of size $n_h$ the own logit is $a_{hh}+c_h$, that of other classes
of the same group $a_{hh}$, that of classes of group g $a_{gh}$. The singular values are
$s_h=c_h\sqrt{n_h}$, $m_h-1$ times, and those of
$B=(c_g\delta_{gh}+a_{gh}\sqrt{m_gm_h})\,\mathrm{diag}\sqrt{n_h}$; with a free bias, which takes
the multiples of $v=\sqrt{m_hn_h}$ on the right, those of B without them.

A semismooth Newton method solves $\nabla f(B)+\mu Y=0$, $Y\in\partial\|B\|_*$ (``_newton_step``).
Where there are many groups, those of neighbouring sizes are merged first, and splines through that
solution, on either side of the threshold of collapse, are the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from theorylab._validation import FloatArray
from theorylab.neural_collapse._group_problem import COARSE, GroupProblem, Point, shrink
from theorylab.neural_collapse._newton_step import NewtonStep
from theorylab.neural_collapse._spectra import Groups, Spectrum, expand, groups_of

__all__ = ["solve_cross_entropy"]

_ITERATIONS = 100
# Root mean square of the optimality condition, in units of the penalty, at which the method ends,
# for few groups and for many, unless more digits are asked for: relative gaps are of the order of
# its square, but for a factor that is large where a singular value is about to vanish.
_RESIDUAL = 1e-12, 1e-6


def solve_cross_entropy(
    n: NDArray[np.int64], mu: float, bias: bool, stops: Callable[..., bool]
) -> Iterator[tuple[float, Spectrum, FloatArray | None]]:
    """Yield the minimum, the spectrum of the logits and the bias, each time to more digits; at last
    where rounding is all that is left, or where ``stops`` says so of number, objective and
    residual."""
    groups = groups_of(n)
    # From sqrt(2 / N) on, a bound of all gradients, nothing depends on the price.
    problem = GroupProblem(groups, min(mu, 1.0), bias, float(n.sum()))
    for point in _solve(problem, _start(groups, problem), stops):
        within = np.where(groups.multiplicities > 1, point.within / problem.copies, 0.0)
        offset = (point.E @ problem.v) / np.sqrt(problem.m * problem.total)
        yield (
            point.objective,
            expand(groups, within, point.U, point.sigma, point.Vt),
            (offset - offset.mean())[groups.of_class] if bias else None,
        )


def _start(groups: Groups, problem: GroupProblem) -> tuple[FloatArray, FloatArray]:
    m, sizes, G, K = problem.m, groups.sizes, problem.G, problem.m.sum()
    if problem.few:
        # The gap of equal classes among others as likely, or, below the threshold of collapse and
        # with a bias, as frequent.
        share = np.minimum(sizes, problem.limit) if problem.bias else np.ones(G)
        t = problem.mu * problem.total / np.sqrt(sizes)
        gap = np.log1p((m @ share) / share * np.maximum(1 - t, 0.0) / t)
        one = np.sqrt(m / K)
        E = np.diag(gap * np.sqrt(sizes))
        E += np.outer(np.log(share) * np.sqrt(m), problem.v * np.sqrt(problem.total))
        return E - np.outer(one, one @ E), gap * np.sqrt(sizes) * problem.copies
    # Classes above the threshold and below it are smooth in their sizes each; splines across a gap
    # of sizes, or nodes that merge its two sides, say nothing.
    below, above = sizes[:-1], sizes[1:]
    apart = ((below <= problem.limit) & (problem.limit < above)) | (above > 4 * below)
    parts = np.split(np.arange(G), np.flatnonzero(apart) + 1)
    bins, nodes, first = np.zeros(G, np.int64), [], 0
    for part in parts:
        # Two at least, which show their own logit, and narrow at the ends, as Chebyshev's nodes.
        pairs = max(part.size // 2, 1)
        pair = np.minimum(np.arange(part.size) // 2, pairs - 1)
        angle = np.arccos(1 - (2 * pair + 1) / pairs)
        count = min(pairs, COARSE)
        _, bins[part] = np.unique(np.floor(angle * count / np.pi), return_inverse=True)
        bins[part] += first
        nodes.append(np.arange(first, bins[part[-1]] + 1))
        first = bins[part[-1]] + 1
    merged_m = np.bincount(bins, weights=m)
    merged_sizes = np.bincount(bins, weights=m * sizes) / merged_m
    merged = Groups(merged_sizes, merged_m.astype(np.int64), np.zeros(0, np.int64))
    coarse = GroupProblem(merged, problem.mu, problem.bias, problem.total)
    point = next(_solve(coarse, _start(merged, coarse)))
    c, a = coarse.logits(point.E, point.within)

    def spread(values: FloatArray) -> FloatArray:
        pieces = []
        for part, at in zip(parts, nodes, strict=True):
            if at.size == 1:
                pieces.append(np.repeat(values[at], part.size, axis=0))
            else:
                known = np.log(merged_sizes[at])
                where = np.log(sizes[part])
                pieces.append(CubicSpline(known, values[at])(where))
        return np.concatenate(pieces)

    own = np.maximum(spread(c), 0.0)
    logits = spread(spread(a).T).T
    logits[problem.diagonal] += own / m
    E, one = logits / problem.to_logits, np.sqrt(m / K)
    return E - np.outer(one, one @ E), own * np.sqrt(sizes) * problem.copies


def _solve(
    problem: GroupProblem,
    start: tuple[FloatArray, FloatArray],
    stops: Callable[..., bool] = lambda *fields: False,
) -> Iterator[Point]:
    """Yield the first point where the residual is below its bound, then those where it is below a
    tenth of the last, and the one at the end."""
    E, within = start
    left, values, right = np.linalg.svd(problem.penalised(E))
    # Of the size of those that live: a step that takes one of them further below zero than 2 t
    # would be read as one that grows. Rounding may be all there is.
    unit = problem.mu * problem.total
    mean = float(values @ values) / max(float(values.sum()), 1e-300)
    t = min(max(mean, 1e-3 * unit), 10 * unit)
    # Those next to zero start there.
    Z = (left * (values + t * np.minimum(values / (1e-3 * t), 1.0))) @ right
    point = shrink(problem, Z, E @ problem.v, within + t * problem.copies, t)
    # After a good start the gradient tells better which of them vanish.
    Z = problem.penalised(E - t * point.slope)
    other = shrink(problem, Z, E @ problem.v, within - t * point.slope_within, t)
    point = min(point, other, key=lambda point: point.objective)
    # Short steps ask for the damping of Levenberg and Marquardt.
    damping, bound, last = 0.0, _RESIDUAL[not problem.few], (np.inf, np.inf)
    for iteration in range(1, _ITERATIONS + 1):
        Y = (point.U * point.g) @ point.Vt
        rest, rest_within = point.slope + Y, point.slope_within + point.g_within
        square = float(np.sum(rest**2) + np.sum(rest_within**2))
        residual = float(np.sqrt(square / problem.G))
        if residual <= bound:
            yield point
            bound = 0.1 * residual
        if residual == 0 or (residual >= last[0] and point.objective >= last[1] * (1 - 1e-14)):
            if not damping or residual == 0:
                break  # rounding is all that is left
            damping = 0.0  # or it keeps small classes, which hardly curve the loss, where they are
        last = residual, point.objective
        if stops(iteration, point.objective, residual):
            break
        step = NewtonStep(problem, point, damping)
        # No more than what is left to go.
        D, d = step.solve(rest, rest_within, 0.1 * bound / residual)
        image, image_within = step.loss_curvature(D, d)
        moved = -problem.penalised(point.slope + image) - Y
        moved_within = -(point.slope_within + image_within) - point.g_within
        B, offset, size = problem.penalised(point.E), point.E @ problem.v, 1.0
        while True:
            trial = shrink(
                problem,
                B + t * Y + size * (problem.penalised(D) + t * moved),
                offset + size * (D @ problem.v),
                point.within + t * point.g_within + size * (d + t * moved_within),
                t,
            )
            # Near the end the decrease is below the rounding of the value.
            if trial.objective <= point.objective + 1e-13 * abs(point.objective):
                break
            size /= 2
            if size < 1e-3:
                # The curvature of the loss is at most 1 / (2 mu N): a gradient step descends.
                safe = 2 * problem.mu * problem.total
                trial = shrink(
                    problem,
                    B - safe * problem.penalised(point.slope),
                    offset - safe * (point.slope @ problem.v),
                    point.within - safe * point.slope_within,
                    safe,
                )
                break
        if size < 1e-3 and not trial.objective < point.objective:
            break
        if size < 0.1:
            damping = max(4 * damping, 0.01 / t)
        else:
            damping = damping / 8 if damping > 1e-5 / t else 0.0
        point = trial
    yield point
