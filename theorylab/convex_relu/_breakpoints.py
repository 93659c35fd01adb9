"""Penalties at which the faces of the active directions change."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from theorylab._validation import FloatArray, as_instance, as_real
from theorylab.convex_relu._faces import locate
from theorylab.convex_relu._problem import augment
from theorylab.convex_relu.optimal_set import find_optimal_set
from theorylab.convex_relu.solution_path import SolutionPath


def breakpoints(path: SolutionPath, *, tol: float = 1e-6) -> FloatArray:
    """Return brackets of the penalties at which the faces of the active directions change.

    Parameters
    ----------
    path
        A path; between its consecutive points with equal faces no breakpoint is looked for. The
        arrangement is enumerated.
    tol
        Width of the brackets relative to ``beta_max``.

    Returns
    -------
    ndarray, shape (B, 2)
        Brackets (lower, upper), decreasing; the first holds ``beta_max``, where the first neuron
        appears.

    Raises
    ------
    ValueError
        For a malformed argument.

    Notes
    -----
    Bisection on certified optima. The active directions, the bias included, and the faces on which
    they lie do not depend on which optimal network was found.

    Examples
    --------
    >>> from theorylab.convex_relu import breakpoints, trace_solution_path
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> breakpoints(trace_solution_path(X, y, min_ratio=0.5, tol=0.1)).shape[1]
    2
    """
    as_instance(path, "path", SolutionPath)
    width = as_real(tol, "tol", above=0.0, below=1.0) * path.beta_max
    brackets: list[tuple[float, float]] = []
    faces = {float(beta): _active_faces(path, beta) for beta in path.betas[1:]}
    # At beta_max itself the first neuron is active with weight zero.
    faces[float(path.betas[0])] = frozenset()
    # Walk the pairs from the largest penalty down; a pair is halved until its ends agree or it is
    # narrow.
    stack = list(pairwise(float(b) for b in path.betas))[::-1]
    while stack:
        upper, lower = stack.pop()
        if faces[upper] == faces[lower]:
            continue
        if upper - lower <= width:
            # Too close to a breakpoint faces are not decided; brackets that touch hold one
            # breakpoint.
            if brackets and brackets[-1][0] == upper:
                brackets[-1] = (lower, brackets[-1][1])
            else:
                brackets.append((lower, upper))
            continue
        middle = 0.5 * (upper + lower)
        faces[middle] = _active_faces(path, middle)
        stack += [(middle, lower), (upper, middle)]
    return np.array(brackets).reshape(-1, 2)


def _active_faces(path: SolutionPath, beta: float) -> frozenset[tuple[int, bytes, bytes]]:
    """Return the faces of all directions that can be active: unlike those of one optimal network
    they are unique."""
    optimal = find_optimal_set(path.X, path.y, beta, loss=path.loss, bias=path.bias)
    found = locate(augment(path.X, path.bias), optimal.directions, optimal.signs)
    return frozenset(
        (int(s), a.tobytes(), t.tobytes())
        for s, a, t in zip(found.signs, found.active, found.tied, strict=True)
    )
