r"""The Sign-RIP deviation bounded from above, by covering the matrices of rank $r$ where they have
few dimensions.

The unit matrices of rank at most $r$ are an image of spheres in three cases: $\pm uu^\top$
(symmetric, $r=1$), $uv^\top$ (general, $r=1$), and the unit sphere of all matrices ($r$ the smaller
dimension). These maps are Lipschitz with constants $\sqrt2$, 1 and 1, and a sphere is the radial
projection of the faces of a cube, which shortens distances. Within distance $\rho$ of $X_0$ the
sign of measurement $i$ is that at $X_0$ unless $|\langle A_i,X_0\rangle-s_i|\le\rho\|A_i\|_F$; with
0 in place of the undecided signs $U$ the deviation at $X_0$ is off by at most
$$\rho+\frac1\varphi\min\Big\{\tfrac1{\sqrt m}\sum_{i\in U}\|A_i\|_F,\ \sigma_1\sqrt{|U|/m}\Big\}.$$
Cells are halved, those with the largest bounds first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from theorylab._validation import FloatArray

__all__ = ["Family", "families", "largest_bound"]

_DIMENSIONS = (
    3  # of the covered set; in more, halving gets nowhere within a reasonable number of cells
)
_BATCH = 512  # cells halved at once


@dataclass(frozen=True, eq=False)
class Family:
    r"""A set of unit matrices, the image of a box of faces of cubes.

    Attributes
    ----------
    centres, halves
        The first cells: centres and half sides (0 across a face), shape ``(c, p)``.
    embed
        Maps points, shape ``(c, p)``, to unit matrices, shape ``(c, n_rows, n_columns)``.
    lipschitz
        Constant of ``embed``.
    """

    centres: FloatArray
    halves: FloatArray
    embed: Callable[[FloatArray], FloatArray]
    lipschitz: float


def families(shape: tuple[int, int], rank: int, *, symmetric: bool) -> list[Family]:
    """Return families that together hold all unit matrices of rank at most ``rank``; none where
    they have many dimensions."""
    n, p = shape
    if rank == min(n, p):
        rows, columns = np.tril_indices(n) if symmetric else np.divmod(np.arange(n * p), p)
        if rows.size > _DIMENSIONS + 1:
            return []

        def whole(points: FloatArray) -> FloatArray:
            matrices = np.zeros((len(points), n, p))
            # Off the diagonal a coordinate of a symmetric matrix is shared by two entries.
            matrices[:, rows, columns] = _project(points) / np.where(
                symmetric & (rows != columns), np.sqrt(2), 1.0
            )
            return matrices + np.tril(matrices, -1).transpose(0, 2, 1) if symmetric else matrices

        return [Family(*_faces(rows.size, [1.0, -1.0]), whole, 1.0)]
    if rank > 1 or (n - 1 if symmetric else n + p - 2) > _DIMENSIONS:
        return []
    centres, halves = _faces(n, [1.0])  # u and -u are the same up to the sign of the matrix
    if symmetric:
        squares = (lambda points: _dyads(points, points)), (lambda points: -_dyads(points, points))
        return [Family(centres, halves, square, np.sqrt(2)) for square in squares]
    right, sides = _faces(p, [1.0, -1.0])
    pairs = [
        np.hstack([np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))])
        for a, b in ((centres, right), (halves, sides))
    ]
    return [Family(pairs[0], pairs[1], lambda points: _dyads(points[:, :n], points[:, n:]), 1.0)]


def largest_bound(
    family: Family,
    bound: Callable[[FloatArray, FloatArray], FloatArray],
    *,
    found: float,
    cells: int,
) -> float:
    """Return an upper bound of a function on the family, from ``bound(X, radius)`` on balls, with
    at most ``cells`` of them.

    Halving stops where the bound is within 0.1 % of ``found``, a value that the function takes.
    """

    def judge(centres: FloatArray, halves: FloatArray) -> FloatArray:
        radius = family.lipschitz * np.linalg.norm(halves, axis=1)
        return bound(family.embed(centres), radius)

    centres, halves = family.centres, family.halves
    upper = judge(centres, halves)
    used = len(centres)
    while used + 2 * _BATCH <= cells and upper.max() > 1.001 * found:
        worst = np.argsort(-upper)[:_BATCH]
        rest = np.setdiff1d(np.arange(upper.size), worst)
        parts = list(_halved(centres[worst], halves[worst]))
        # A half is never worse than the whole.
        bounds = [np.minimum(judge(c, h), upper[worst]) for c, h in parts]
        used += 2 * worst.size
        centres = np.concatenate([centres[rest], *[c for c, _ in parts]])
        halves = np.concatenate([halves[rest], *[h for _, h in parts]])
        upper = np.concatenate([upper[rest], *bounds])
    return float(upper.max())


def _halved(centres: FloatArray, halves: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield the lower and the upper halves of the cells across their longest sides."""
    rows, longest = np.arange(len(halves)), np.argmax(halves, axis=1)
    smaller = halves.copy()
    smaller[rows, longest] /= 2
    for side in (-1.0, 1.0):
        moved = centres.copy()
        moved[rows, longest] += side * smaller[rows, longest]
        yield moved, smaller


def _faces(p: int, signs: list[float]) -> tuple[FloatArray, FloatArray]:
    """Return centres and half sides of the faces of the cube in ``p`` dimensions with the given
    signs."""
    centres = np.concatenate([sign * np.eye(p) for sign in signs])
    return centres, 1.0 - np.abs(centres)


def _project(points: FloatArray) -> FloatArray:
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def _dyads(left: FloatArray, right: FloatArray) -> FloatArray:
    return _project(left)[:, :, None] * _project(right)[:, None, :]
