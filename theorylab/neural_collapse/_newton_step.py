r"""A step of the semismooth Newton method for cross-entropy with free features.

In the basis of the singular vectors, $X=U^\top DV$, where $Y=\mathrm{diag}(g)$ and
$B=\mathrm{diag}(\sigma)$, the nuclear norm has curvature $\mu(2-g_i-g_j)/(\sigma_i+\sigma_j)$ for a
symmetric pair of entries and $\mu(g_i+g_j)/(\sigma_i+\sigma_j)$ for a skew one. Pairs with
$\sigma_i=\sigma_j=0$ are left out: there the gradient moves Y alone. Pairs of the others,
$g_i=g_j=1$, have none in their symmetric part, and where a singular value is about to vanish the
curvatures next to them differ by many orders.

Conjugate gradients work in that basis; only products with the Hessian of the loss go back to
logits. Their preconditioner takes the norm exactly and of the loss the diagonal: for symmetric
pairs of values that live in the basis of the groups, where the loss is nearly diagonal and all
there is, for all others in that of the singular vectors. A free bias is the first column, whose
equation is solved exactly."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.neural_collapse._group_problem import GroupProblem, Point

__all__ = ["NewtonStep"]

_CONJUGATE_STEPS = 400, 60


class NewtonStep:
    """The equation of a step, in units of mu."""

    def __init__(self, problem: GroupProblem, point: Point, damping: float = 0.0) -> None:
        self.problem, self.damping = problem, damping
        self.U, self.V, self.p, self.own_p = point.U, point.Vt.T, point.p, point.own_p
        self.share = problem.weight / problem.mu
        self.rows, self.alive_within = point.sigma > 0, point.within > 0
        self.columns = self.rows.copy()
        self.columns[0] |= problem.bias
        self.thin = 2 * np.count_nonzero(self.columns) < self.columns.size
        # Adding a constant to all logits changes nothing.
        self.one = point.U.T @ problem.one
        total = point.sigma[:, None] + point.sigma
        total = np.where(total > 0, total, np.inf)
        straight, crossed = 1 / total, (1 - point.g[:, None] - point.g) / total
        if problem.bias:
            straight[:, 0] = crossed[:, 0] = crossed[0] = 0.0
        self.straight, self.crossed = straight, crossed
        # All that follows is the preconditioner. Probabilities of classes and of other ones:
        mass = point.p.copy()
        mass[problem.diagonal] = 0.0
        rest = 1 - mass
        rest[problem.diagonal] = mass.sum(axis=0)  # one minus that loses small ones
        mass[problem.diagonal] = point.p[problem.diagonal] + point.own_p
        curvature = mass * rest * (problem.weight / problem.mu) * problem.to_logits**2
        self._invert_pairs(point, straight, crossed, curvature)
        self._invert_within(point)
        if problem.bias:
            self._invert_along(point, mass)

    def _invert_pairs(
        self, point: Point, straight: FloatArray, crossed: FloatArray, curvature: FloatArray
    ) -> None:
        """Symmetric pairs of values that live see the loss alone, all others mostly the norm."""
        both = 0.5 * (curvature + curvature.T) + self.damping
        floor = max(1e-7 * float(both.max()), np.finfo(float).tiny)
        self.inverse_loss = 1 / np.maximum(both, floor)
        loss = (point.U**2).T @ curvature @ point.Vt.T**2
        even = np.ix_(self.rows, self.rows)
        loss[even] = 0.5 * (loss[even] + loss[even].T)
        straight = straight + loss + self.damping
        square = straight * straight.T
        determinant = np.maximum(square - crossed**2, 1e-14 * square)
        determinant[self.tangent(square) == 0] = np.inf
        self.inverse_straight = straight.T / determinant
        self.inverse_crossed = -crossed / determinant

    def _invert_within(self, point: Point) -> None:
        """Own logits leave those of the other classes of the group behind."""
        problem, own = self.problem, point.own_p
        m, p = problem.m, point.p[problem.diagonal]
        mean = own * (1 - 1 / m)
        spread = mean * (1 - 1 / m) + p / m**2 - (mean - p / m) ** 2
        scale = problem.weight / problem.mu * spread * problem.to_own**2 + self.damping
        inverse = np.divide(1, scale, where=scale > 0, out=np.zeros_like(scale))
        self.inverse_within = inverse

    def _invert_along(self, point: Point, mass: FloatArray) -> None:
        """The bias sees the loss alone, exactly."""
        problem, U = self.problem, point.U
        scaled = mass / np.sqrt(problem.m)[:, None]
        weight = problem.weight**2 / problem.mu * problem.to_logits[0] ** 2 * problem.m[0]
        S = np.diag(mass @ weight / problem.m) - (scaled * weight) @ scaled.T
        unit = np.trace(S) / problem.G
        S += (self.damping + 1e-6 * unit) * np.eye(problem.G)
        S += unit * np.outer(problem.one, problem.one)
        self.inverse_along = U.T @ np.linalg.solve(S, U)

    def tangent(self, X: FloatArray) -> FloatArray:
        """Return the part in which the singular values that vanish stay zero, and that along v."""
        kept: FloatArray = X * (self.rows[:, None] | self.columns)
        return kept

    def into(self, E: FloatArray) -> FloatArray:
        """Return the coordinates of the tangent part."""
        U, V, rows, columns = self.U, self.V, self.rows, self.columns
        if not self.thin:
            return self.tangent(U.T @ E @ V)
        X = np.zeros_like(E)
        X[:, columns] = U.T @ (E @ V[:, columns])
        X[rows] = (U[:, rows].T @ E) @ V
        return X

    def out_of(self, X: FloatArray) -> FloatArray:
        """Return what has these coordinates."""
        U, V, rows, columns = self.U, self.V, self.rows, self.columns
        if not self.thin:
            return U @ X @ V.T
        left, right = U[:, rows], V[:, columns]
        return left @ (X[rows] @ V.T) + (U[:, ~rows] @ X[np.ix_(~rows, columns)]) @ right.T

    def loss_curvature(self, D: FloatArray, d: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the product of the Hessian of the loss with a direction."""
        dc, moved = self.problem.logits(D, d)
        own = moved[self.problem.diagonal] + dc
        moved *= self.p
        mean = moved.sum(axis=0) + self.own_p * own
        moved -= self.p * mean
        return self.problem.pull(self.share * moved, self.share * self.own_p * (own - mean))

    def bend(self, X: FloatArray) -> FloatArray:
        """Return the product of the curvature of the nuclear norm with a direction."""
        return self.straight * X + self.crossed * X.T

    def product(self, X: FloatArray, d: FloatArray) -> tuple[FloatArray, FloatArray]:
        image, image_within = self.loss_curvature(self.out_of(X), d)
        image = self.into(image) + self.bend(X) + self.damping * X
        return image, image_within + self.damping * d

    def preconditioned(self, R: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray]:
        even = np.ix_(self.rows, self.rows)
        S = R[even]
        S = 0.5 * (S + S.T)
        rest = R.copy()
        rest[even] -= S
        X = self.inverse_straight * rest + self.inverse_crossed * rest.T
        left, right = self.U[:, self.rows], self.V[:, self.rows]
        S = left.T @ ((left @ S @ right.T) * self.inverse_loss) @ right
        X[even] += 0.5 * (S + S.T)
        if self.problem.bias:
            X[:, 0] = self.inverse_along @ R[:, 0]
        return X - np.outer(self.one, self.one @ X), r * self.inverse_within * self.alive_within

    def solve(
        self, rest: FloatArray, rest_within: FloatArray, share: float = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Return the step for these optimality conditions, to a hundredth of the residual, or to
        this share of it."""
        R, r = self.into(-rest), -rest_within
        unit = max(np.abs(R).max(), np.abs(r).max()) or 1.0  # none, if all vanish
        R, r = R / unit, r / unit
        P, q = self.preconditioned(R, r)
        X, d = np.zeros_like(R), np.zeros_like(r)
        size = first = float(np.sum(R * P) + r @ q)
        for _ in range(_CONJUGATE_STEPS[not self.problem.few]):
            image, image_within = self.product(P, q)
            curvature = float(np.sum(P * image) + q @ image_within)
            if size <= max(0.01, share) ** 2 * first or curvature <= 0:
                break
            length = size / curvature
            X, d = X + length * P, d + length * q
            R, r = R - length * image, r - length * image_within
            Z, z = self.preconditioned(R, r)
            size, last = float(np.sum(R * Z) + r @ z), size
            P, q = Z + size / last * P, z + size / last * q
        return self.out_of(X) * unit, d * unit
