"""Local minimisation over the neurons at hand, which pricing extends.

Quadratic models of the loss are minimised on the faces of the arrangement (proximal Newton); a loss
without a second derivative is smoothed around a multiplier that is moved until the minimiser of the
smoothed loss is that of the loss (method of multipliers). At the end the neurons and $z=v/\\beta$
are refined together by Newton's method on the optimality conditions

$$\\frac{p_j}{\\|p_j\\|}=\\sigma_jX^\\top D_jz,\\qquad\\beta z=-L'(f)$$

on their faces, in which $z$ keeps its own digits however small $\\beta$ is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.linalg import block_diag, lstsq

from theorylab._validation import FloatArray
from theorylab.convex_relu._face_steps import face
from theorylab.convex_relu._local import descend
from theorylab.convex_relu._neurons import Neurons
from theorylab.convex_relu._pricing import Pricing, Wanted
from theorylab.convex_relu._problem import BoolArray
from theorylab.convex_relu.losses import Interpolation, Loss, Squared
from theorylab.numerics.budgets import Work

LEG = 5e8
"""Nanoseconds of a leg of the descent, about."""

WORK = 3e10
"""Nanoseconds of all descents of a training, about; they are counted, not measured."""

DIRECT = 500
"""Most rows whose dual variables are solved for beside the neurons: it takes cubic time."""


@dataclass(frozen=True)
class _Moreau:
    """The loss smoothed around a multiplier: l_step(f) = min_s l(s) + |s - f - step * multiplier|^2
    / (2 step)."""

    loss: Loss
    multiplier: FloatArray
    step: float

    def value(self, f: FloatArray, y: FloatArray) -> float:
        centre = f + self.step * self.multiplier
        s, _ = self.loss.prox(centre, y, self.step)
        return self.loss.value(s, y) + 0.5 / self.step * float(np.sum((s - centre) ** 2))

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        centre = f + self.step * self.multiplier
        s, _ = self.loss.prox(centre, y, self.step)
        result: FloatArray = (centre - s) / self.step
        return result

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        _, slope = self.loss.prox(f + self.step * self.multiplier, y, self.step)
        result: FloatArray = (1.0 - slope) / self.step
        return result

    @property
    def curvature_bound(self) -> float:
        return 1.0 / self.step


@dataclass
class Minimiser:
    """Minimise one loss at one penalty.

    Parameters
    ----------
    pricing
        Data in row-space coordinates, cones, and the search for neurons.
    loss, beta
        The problem.
    stiffness
        Curvature of the smoothed loss, raised where that slows the multiplier down; it also sets
        the length of new neurons.
    work
        What is left for descents; without it the neurons stay as they are.
    """

    pricing: Pricing
    loss: Loss
    beta: float
    stiffness: float
    work: Work = field(default_factory=lambda: Work(WORK))

    @property
    def X(self) -> FloatArray:
        """The data."""
        return self.pricing.X

    def value(self, state: Neurons, y: FloatArray) -> float:
        """Return the objective; that of the penalised problem where outputs are constrained."""
        loss = Squared() if isinstance(self.loss, Interpolation) else self.loss
        return loss.value(state.output(self.X), y) + self.beta * state.norm

    def add(self, state: Neurons, found: list[Wanted]) -> Neurons:
        """Add neurons with lengths whose average is sure to descend."""
        X = self.X
        bound = self.stiffness
        neurons = []
        for _, p, active, tight in found:
            length = float(np.linalg.norm(p))
            atom = np.where(active & ~tight, X @ p, 0.0) / length
            neurons.append(p / (bound * max(float(atom @ atom), 1e-300) * len(found)))
        return state.extended(
            np.array(neurons),
            np.array([float(s) for s, *_ in found]),
            np.array([a for _, _, a, _ in found]),
            np.array([t for *_, t in found]),
        )

    def minimise(
        self, state: Neurons, y: FloatArray, multiplier: FloatArray, *, rough: bool = False
    ) -> tuple[Neurons, FloatArray, FloatArray]:
        """Bring the neurons to a stationary point; return them, the multiplier, and v = -L'.
        ``rough`` leaves the last digits of a smooth problem out."""
        X = self.X
        if self.loss.smooth:
            if isinstance(self.loss.base, Squared):
                weights = self.loss.curvature(y, y)
                state = self.quadratic(state, weights * y, weights)
            else:
                state = self.newton(state, y, self.loss)
            v = -self.loss.gradient(state.output(X), y)
            if not rough:
                state, v, _ = self.refine(state, y, v)
            return state, multiplier, v
        # Method of multipliers: the smoothed loss is moved until its minimiser is that of the loss.
        # It converges if every smooth problem is solved over all neurons, not only locally.
        last = tried = np.inf
        stiffest = max(1e3 * self.stiffness, 0.1 * self.loss.curvature_bound)
        for k in range(60):
            if len(state.sigma) > 10 * len(y) + 50 or self.work.left <= 0.0:
                # Rounding errors are being fitted, or it takes too long.
                break
            smoothed = _Moreau(self.loss, multiplier, 1.0 / self.stiffness)
            for _ in range(20):
                state = self.newton(state, y, smoothed)
                gradient = smoothed.gradient(state.output(X), y)
                found, violation, *_ = self.pricing(
                    -gradient, self.beta, exhaustive=k % 8 == 7, max_nodes=20_000
                )
                # Less may be noise.
                if not found or violation <= 1e-6:
                    break
                state = self.add(state, found)
            change = float(np.abs(gradient - multiplier).max())
            multiplier = gradient
            change /= max(float(np.abs(multiplier).max()), 1e-300)
            # Once the faces are those of the optimum, Newton's method takes the rest of the way.
            if change <= 0.1 * tried or change <= 1e-11:
                tried = change
                refined, v, error = self.refine(state, y, -multiplier, tol=1e-14)
                if error <= 1e-12 or change <= 1e-11:
                    return refined, -v, self.loss.into_domain(v, v, y)
            # A stiffer loss brings it closer, at the price of digits.
            if change > 0.3 * last:
                self.stiffness = min(4.0 * self.stiffness, stiffest)
            last = change
        refined, v, _ = self.refine(state, y, -multiplier)
        return refined, -v, self.loss.into_domain(v, v, y)

    def approach(
        self, state: Neurons, y: FloatArray, largest: float, target: float, max_rounds: int
    ) -> tuple[Neurons, FloatArray, bool]:
        """Follow the optimum of the squared loss to smaller penalties until its faces are those at
        the target; return it with its dual point, in the units of this penalty, and whether that
        was seen."""
        squared = Squared() if isinstance(self.loss, Interpolation) else self.loss
        v = np.zeros(len(y))
        for exponent in range(-3, -9, -1):
            level = largest * 10.0**exponent
            if level <= target:
                break
            above = replace(self, loss=squared, beta=level)
            for _ in range(max_rounds):
                state, _, v = above.minimise(state, y, y)
                found, violation, *_ = self.pricing(v, level, exhaustive=False)
                if not found or violation <= 1e-6 or self.work.left <= 0.0:
                    break
                state = above.add(state, found)
            v = v * (self.beta / level)
            refined, z, error = self.refine(state, y, v, tol=1e-14)
            if error <= 1e-12 and not self.pricing(z, self.beta).neurons:
                return refined, z, True
        return state, v, False

    def refine(
        self, state: Neurons, y: FloatArray, v: FloatArray, *, tol: float = 1e-11
    ) -> tuple[Neurons, FloatArray, float]:
        """Solve the optimality conditions for the neurons and z = v / beta together; return what
        has the smallest residuals, and these. Rows held at zero are released where z, which has
        more digits than the descent saw, shows that their side descends (given patterns end there).
        """
        X = self.X
        if self.work.left <= 0.0:
            return state, v, np.inf
        state, v, error = self.refine_on_faces(state, y, v, tol)
        for _ in range(8 if self.pricing.cones is None else 0):
            released = state.released(X, v / self.beta)
            if error > 1e-9 or released is None:
                break
            moved = self.refine_on_faces(released, y, v, tol)
            if moved[2] > max(tol, 4.0 * error):
                break
            state, v, error = moved
        return state, v, error

    def refine_on_faces(
        self, state: Neurons, y: FloatArray, v: FloatArray, tol: float
    ) -> tuple[Neurons, FloatArray, float]:
        """Refine without changing the faces."""
        X, beta = self.X, self.beta
        n = len(y)
        z, best = v / beta, np.inf
        on = state.active & ~state.tight
        bases = [self._face_basis(tight) for tight in state.tight]
        blocks = [
            s * np.where(side[:, None], X @ basis, 0.0)
            for s, side, basis in zip(state.sigma, on, bases, strict=True)
        ]
        for _ in range(8):
            lengths = np.linalg.norm(state.p, axis=1)
            jacobian, bends, residuals = [np.zeros((n, 0))], [], [np.zeros(0)]
            for j, (length, basis, block) in enumerate(zip(lengths, bases, blocks, strict=True)):
                free = j < state.linear
                unit = np.zeros(basis.shape[1]) if free else basis.T @ state.p[j] / length
                residuals.append(unit - block.T @ z)
                jacobian.append(block if free else block * length)
                bends.append(np.eye(len(unit)) * (0.0 if free else 1.0) - np.outer(unit, unit))
            A, right = np.hstack(jacobian), np.concatenate(residuals)
            f = state.output(X)
            first, in_f, in_v = self.loss.optimality(f, beta * z, y)
            size = in_f * (np.abs(f) + np.abs(y)) + in_v * np.abs(beta * z)
            error = max(
                float(np.abs(right).max(initial=0.0)),
                float(np.abs(first).max()) / max(float(size.max()), 1e-300),
            )
            if error >= 0.5 * best or right.size == 0:
                break
            best, kept = error, (state, z)
            if error <= tol:
                break
            units = np.repeat(
                [1.0 if j < state.linear else length for j, length in enumerate(lengths)],
                [len(bend) for bend in bends],
            )
            step = _newton_step(
                in_f[:, None] * A, beta * in_v, A.T / units[:, None], block_diag(*bends),
                -first, right, direct=n <= DIRECT,
            )  # fmt: skip
            moved = state.copy()
            at = 0
            for j, basis in enumerate(bases):
                stop = at + basis.shape[1]
                change = basis @ step[at:stop]
                moved.p[j] += change if j < state.linear else change * lengths[j]
                at = stop
            sides = moved.p @ X.T
            wrong = (sides * np.where(state.active, 1.0, -1.0) < -1e-12 * lengths[:, None]) & (
                ~state.tight
            )
            if np.any(wrong[state.linear :]) or not np.all(np.isfinite(step)):
                break
            state, z = moved, self.loss.into_domain(beta * (z + step[right.size :]), v, y) / beta
            v = beta * z
        if np.isfinite(best):
            state, z = kept
        return state, beta * z, best

    def _face_basis(self, tight: BoolArray) -> FloatArray:
        """Return an orthonormal basis of the directions orthogonal to the tight rows."""
        norms, d = self.pricing.reduction.norms, self.X.shape[1]
        basis = np.empty((d, d))
        return basis[face(self.X, tight & (norms > 0.0), norms, basis) :].T

    def quadratic(self, state: Neurons, b: FloatArray, kappa: FloatArray) -> Neurons:
        state = state.copy()
        # Within a leg the compiled loop hears no interrupt; small problems have one.
        step = 0.1 * state.p.size**2 * (len(b) + state.p.size)
        left, leg = 500, 1 + int(LEG / max(step, 1.0))
        # Hundreds of neurons alike may be dependent to the last digit; what was reached stays.
        with suppress(np.linalg.LinAlgError):
            while left > 0 and self.work.left > 0.0:
                taken, _, work = descend(
                    self.X,
                    b,
                    kappa,
                    self.beta,
                    state.p,
                    state.sigma,
                    state.active,
                    state.tight,
                    state.linear,
                    self.pricing.cones is None,
                    min(leg, left),
                    1e-12,
                )
                left = left - taken if taken == leg else 0
                self.work.left -= work
        return state.pruned()

    def newton(self, state: Neurons, y: FloatArray, loss: Loss | _Moreau) -> Neurons:
        """Proximal Newton method: quadratic models of the loss, steps in the space of networks."""
        X, beta = self.X, self.beta
        floor = 1e-6
        for _ in range(50):
            f = state.output(X)
            gradient, curvature = loss.gradient(f, y), loss.curvature(f, y)
            # Flat parts of the loss make steps far beyond the model; the floor follows how far
            # steps can be taken.
            curvature = np.maximum(curvature, floor * loss.curvature_bound)
            trial = self.quadratic(state, curvature * f - gradient, curvature)
            g = trial.output(X)
            value = loss.value(f, y) + beta * state.norm
            predicted = -(float(gradient @ (g - f)) + beta * (trial.norm - state.norm))
            if predicted <= 1e-16 * abs(value):
                return trial if loss.value(g, y) + beta * trial.norm <= value else state
            weight = 1.0
            while (
                loss.value(f + weight * (g - f), y)
                + beta * (state.norm + weight * (trial.norm - state.norm))
                > value - 1e-4 * weight * predicted
                and weight > 1e-6
            ):
                weight *= 0.5
            state = trial if weight == 1.0 else state.blend(trial, weight)
            floor = min(10.0 * floor, 1.0) if weight < 0.5 else max(0.1 * floor, 1e-14)
        return state


def _newton_step(
    A: FloatArray,
    diagonal: FloatArray,
    B: FloatArray,
    bend: FloatArray,
    top: FloatArray,
    bottom: FloatArray,
    *,
    direct: bool,
) -> FloatArray:
    """Solve ``A p + diagonal * z = top`` and ``B z - bend p = bottom``; return (p, z).

    Directly, as one system, which keeps most digits; else for the rows alone that do not give their
    z, for the others may be thousands."""
    n, size = A.shape
    gone = np.zeros(n, dtype=np.bool_) if direct else diagonal != 0.0
    kept = ~gone
    given = B[:, gone] / diagonal[gone]
    rows = int(kept.sum())
    system = np.zeros((rows + size, rows + size))
    system[:rows, :size], system[:rows, size:] = A[kept], np.diag(diagonal[kept])
    system[rows:, :size], system[rows:, size:] = -bend - given @ A[gone], B[:, kept]
    step = _equilibrated_solve(system, np.concatenate([top[kept], bottom - given @ top[gone]]))
    z = np.empty(n)
    z[kept] = step[size:]
    z[gone] = (top[gone] - A[gone] @ step[:size]) / diagonal[gone]
    return np.concatenate([step[:size], z])


def _equilibrated_solve(system: FloatArray, right: FloatArray) -> FloatArray:
    """Return a least-squares solution of a square system whose rows and columns have very different
    sizes."""
    rows = 1.0 / np.maximum(np.abs(system).max(axis=1), 1e-300)
    scaled = rows[:, None] * system
    columns = 1.0 / np.maximum(np.abs(scaled).max(axis=0), 1e-300)
    solution, *_ = lstsq(
        scaled * columns, rows * right, cond=1e-13, lapack_driver="gelsy", check_finite=False
    )
    result: FloatArray = columns * solution
    return result
