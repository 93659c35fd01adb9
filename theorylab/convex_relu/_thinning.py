"""Networks thinned to randomly drawn units, with the exact error of the argument of Maurey."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, refuses_overflow

__all__ = ["maurey_errors", "maurey_mean_squared_error"]


@refuses_overflow("atoms", "coefficients")
def maurey_mean_squared_error(
    atoms: ArrayLike,
    coefficients: ArrayLike,
    n_atoms: int,
    *,
    probabilities: ArrayLike | None = None,
) -> float:
    r"""Return the expected squared error of a network thinned to randomly drawn units.

    For ``f = sum_k c_k phi_k`` and N units drawn independently with probabilities p, each entering
    as ``c_k / (N p_k) phi_k``,

        E ||f - f_N||^2 = (sum_k c_k^2 / p_k ||phi_k||^2 - ||f||^2) / N,

    which for ``p_k = |c_k| / B``, ``B = sum |c_k|``, is ``(B sum |c_k| ||phi_k||^2 - ||f||^2) /
    N``: a rate free of the input dimension.

    Parameters
    ----------
    atoms
        (n, m) outputs of the m units on n points.
    coefficients
        (m,) coefficients c.
    n_atoms
        N.
    probabilities
        (m,) sampling law, positive where c is not zero; by default proportional to ``|c|``.

    Notes
    -----
    parhi2023-deep, the argument of Maurey, Jones and Barron with its exact constant.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import maurey_mean_squared_error
    >>> maurey_mean_squared_error(np.eye(2), [0.5, 0.5], 4)
    0.125
    """
    atoms, c, p = _as_sampling(atoms, coefficients, probabilities)
    n_atoms = as_count(n_atoms, "n_atoms")
    used = c != 0
    second = float(np.sum(c[used] ** 2 / p[used] * np.sum(atoms[:, used] ** 2, axis=0)))
    return (second - float(np.sum((atoms @ c) ** 2))) / n_atoms


@refuses_overflow("atoms", "coefficients")
def maurey_errors(
    atoms: ArrayLike,
    coefficients: ArrayLike,
    n_atoms: int,
    *,
    n_draws: int = 1000,
    probabilities: ArrayLike | None = None,
    seed: int = 0,
) -> FloatArray:
    """Draw thinned networks and return their (n_draws,) squared errors; see
    :func:`maurey_mean_squared_error`.

    Parameters
    ----------
    atoms
        (n, m) outputs of the m units on n points.
    coefficients
        (m,) coefficients.
    n_atoms
        Units drawn for each network.
    n_draws
        Number of networks.
    probabilities
        (m,) sampling law; by default proportional to the absolute coefficients.
    seed
        Seed of the draws.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import maurey_errors
    >>> maurey_errors(np.eye(2), [0.5, 0.5], 4, n_draws=3, seed=0).shape
    (3,)
    """
    atoms, c, p = _as_sampling(atoms, coefficients, probabilities)
    n_atoms = as_count(n_atoms, "n_atoms")
    n_draws = as_count(n_draws, "n_draws")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    counts = rng.multinomial(n_atoms, p, size=n_draws)
    scaled = np.divide(c, p, out=np.zeros_like(c), where=p > 0)
    errors: FloatArray = np.sum(((counts / n_atoms * scaled - c) @ atoms.T) ** 2, axis=1)
    return errors


def _as_sampling(
    atoms: ArrayLike, coefficients: ArrayLike, probabilities: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    atoms = as_array(atoms, "atoms", ndim=2)
    c = as_array(coefficients, "coefficients", shape=(atoms.shape[1],))
    if probabilities is None:
        total = np.abs(c).sum()
        if total == 0:
            raise ValueError("coefficients: expected a non-zero coefficient, got zeros")
        return atoms, c, np.abs(c) / total
    p = as_array(probabilities, "probabilities", shape=c.shape, nonnegative=True)
    if abs(p.sum() - 1) > 1e-12 * p.size or np.any((p == 0) & (c != 0)):
        raise ValueError(
            f"probabilities: expected a law that is positive on all used units, got sum {p.sum()}"
        )
    return atoms, c, p
