r"""One iteration of ADMM as published, written out with every matrix.

The splitting is $u=v$, $Gu=s\ge0$ with $G=\mathrm{blkdiag}(S_iX)$; a call is one least-squares step
in u with the stored inverse of $I+G^\top G+A^\top A/\rho$, a threshold and a clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from theorylab._validation import FloatArray, as_instance
from theorylab.convex_relu._network import Network
from theorylab.convex_relu.admm import ADMMResult
from theorylab.numerics.results import result

BoolArray = NDArray[np.bool_]


@result
class ADMMIteration:
    r"""One iteration of ADMM as published: every matrix written out, for any number type.

    It is there to be studied: started anywhere, counted, perturbed. ``train_admm`` takes the same
    steps by a reduction to n rows, at a cost linear in the number $N=2Pd$ of variables; with
    the stored inverse a call takes $N^2+2nN+(2+1/d)N$ multiplications and divisions.

    Parameters
    ----------
    X, y, beta, patterns, penalty, cones
        The problem, divided by the powers of 64 of the result it was made from.
    inverse
        $(I+G^\top G+A^\top A/\rho)^{-1}$, shape (N, N).
    offset
        ``inverse`` times $A^\top y/\rho$, shape (N,).
    rows
        The blocks of G, shape (2P, n, d).
    threshold
        beta / rho.
    """

    X: FloatArray
    y: FloatArray
    beta: float
    patterns: BoolArray
    penalty: float
    cones: bool
    inverse: FloatArray
    offset: FloatArray
    rows: FloatArray
    threshold: float

    def proximal(self, q: FloatArray) -> FloatArray:
        """Return (v, s) of shape (2P, d + n): the thresholded blocks and the clipped slacks."""
        blocks, slacks = np.hsplit(q, [self.X.shape[1]])
        lengths = np.sqrt((blocks * blocks).sum(axis=1, keepdims=True))
        positive = np.where(lengths > self.threshold, lengths, self.threshold)
        kept = np.maximum(slacks, 0.0) if self.cones else slacks
        return np.hstack([(1.0 - self.threshold / positive) * blocks, kept])

    def __call__(
        self, targets: FloatArray, multipliers: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return (v, s) and (lambda, nu) after one more iteration, shapes (2P, d + n)."""
        d = self.X.shape[1]
        wanted = targets - multipliers
        right = wanted[:, :d] + (wanted[:, None, d:] @ self.rows)[:, 0]
        u = (self.offset + self.inverse @ right.ravel()).reshape(-1, d)
        q = np.hstack([u, (self.rows @ u[:, :, None])[:, :, 0]]) + multipliers
        after = self.proximal(q)
        return after, q - after

    def apply(self, q: FloatArray) -> FloatArray:
        """Return T(q), for the fixed-point variable of ``ADMMResult.state``."""
        targets = self.proximal(q)
        return np.add(*self(targets, q - targets))

    def fixed_point(self, network: Network) -> FloatArray:
        r"""Return the state at an optimal network: a fixed point of ``apply``, off its kinks.

        A neuron on faces of cells is divided evenly among them. The multipliers are those of the
        projections of $\pm X^\top D_iz$ onto the cones, moved inwards where they are not
        unique.

        Parameters
        ----------
        network
            Optimal for ``X``, ``y``, ``beta``; every neuron in the cone of one of the patterns.
        """
        (P, n), d = self.patterns.shape, self.X.shape[1]
        blocks, residual = np.zeros((2 * P, d)), self.y - network(self.X)
        for w, a in zip(network.weights, network.output_weights, strict=True):
            half = slice(0, P) if a > 0 else slice(P, 2 * P)
            room = self.rows[half] @ w
            size = np.linalg.norm(self.X, axis=1) * np.linalg.norm(w)
            holds = np.flatnonzero((room >= -1e-9 * size).all(axis=1))
            if holds.size == 0:
                raise ValueError("network: expected neurons in the cones of the patterns")
            blocks[half][holds] += abs(a) * w / holds.size
        state = np.empty((2 * P, d + n))
        slopes = np.vstack([self.patterns * residual, -(self.patterns * residual)]) @ self.X
        for b, (slope, G) in enumerate(zip(slopes, self.rows, strict=True)):
            nu, _ = nnls(G.T, -slope)
            spare = self.beta - float(np.linalg.norm(slope + G.T @ nu))
            if not blocks[b].any() and spare > 1e-7 * self.beta:
                nu += 0.5 * spare / max(float(np.linalg.norm(G.sum(axis=0))), self.beta)
            state[b, :d] = blocks[b] + (slope + G.T @ nu) / self.penalty
            state[b, d:] = G @ blocks[b] - nu / self.penalty
        return state


def admm_iteration(result: ADMMResult) -> ADMMIteration:
    """Return the iteration that ``train_admm`` ran, written out.

    Parameters
    ----------
    result
        Any result; one iteration is enough.

    Examples
    --------
    >>> result = train_admm([[1.0], [2.0]], [1.0, 2.0], 0.1)
    >>> step = admm_iteration(result)
    >>> bool(np.allclose(step.apply(result.state), result.state, atol=1e-4))
    True
    """
    result = as_instance(result, "result", ADMMResult)
    X, y = result.X / result.unit, result.y / result.scale
    masks = np.vstack([result.patterns, result.patterns]).astype(np.float64)
    sign = np.repeat([1.0, -1.0], len(result.patterns))
    A = ((sign[:, None] * masks)[:, :, None] * X).transpose(1, 0, 2).reshape(len(y), -1)
    rows = (2.0 * masks - 1.0)[:, :, None] * X
    size = A.shape[1]
    system = np.eye(size) + A.T @ A / result.penalty
    d = X.shape[1]
    for b, G in enumerate(rows):
        system[b * d : (b + 1) * d, b * d : (b + 1) * d] += G.T @ G
    inverse = np.asarray(np.linalg.inv(system), dtype=np.float64)
    beta = result.beta / result.unit / result.scale
    return ADMMIteration(
        *(X, y, beta, result.patterns, result.penalty, result.cones),
        inverse,
        inverse @ (A.T @ y) / result.penalty,
        rows,
        beta / result.penalty,
    )
