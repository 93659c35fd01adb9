"""Univariate networks of finitely many particles: Langevin dynamics and descent."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_count, as_real, refuses_overflow
from theorylab.convex_relu._splines import as_data
from theorylab.numerics.compiled import compiled
from theorylab.numerics.progress import Callback, watcher

__all__ = ["descend_particles", "sample_particles"]

# Outputs of units in a leg of a kernel, after which Python hears an interrupt: milliseconds.
_LEG = 1_000_000


def sample_particles(
    x: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    temperature: float,
    n_particles: int = 1000,
    n_sweeps: int = 2000,
    burn_in: int = 1000,
    step: float = 0.1,
    seed: int = 0,
    callback: Callback | None = None,
) -> FloatArray:
    r"""Return the mean prediction at the data of N particles under noisy gradient descent with
    Metropolis correction.

    The particles ``theta_j = (a, w, b)_j`` follow their own Langevin steps, ``theta - s N grad_j E
    + sqrt(2 s tau) xi``, for the energy ``E = 1/2 ||f - y||^2 + beta/(2N) sum ||theta_j||^2``, ``f
    = 1/N sum a_j relu(w_j x + b_j)``, one after the other. The correction makes ``exp(-N E / tau)``
    exactly invariant, so that the step size leaves no bias.

    Parameters
    ----------
    x, y
        (n,) inputs and outputs.
    beta, temperature
        Weight decay and temperature, positive.
    n_particles
        N.
    n_sweeps, burn_in
        Sweeps over all particles that are averaged, and that are discarded before.
    step
        Step size ``s`` in units of ``1 / beta``; large steps are rejected and leave particles stuck
        for long.
    seed
        Seed of initialization and noise.
    callback
        Called now and then with the number of sweeps and the energy; the particles stop where it
        returns True.

    Returns
    -------
    numpy.ndarray
        (n,) average of ``f(x)`` over the sweeps, those made if it was stopped (while the first are
        discarded the last ``f(x)``).

    Examples
    --------
    >>> from theorylab.convex_relu import sample_particles
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> sample_particles(
    ...     x, y, 0.1, temperature=0.1, n_particles=20, n_sweeps=50, burn_in=10, seed=0
    ... ).shape
    (3,)
    """
    x, y = as_data(x, y)
    beta = as_real(beta, "beta", above=0)
    temperature = as_real(temperature, "temperature", above=0)
    n_particles = as_count(n_particles, "n_particles")
    n_sweeps = as_count(n_sweeps, "n_sweeps")
    burn_in = as_count(burn_in, "burn_in", minimum=0)
    step = as_real(step, "step", above=0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    stops = watcher(callback)
    theta = np.sqrt(temperature / beta) * rng.normal(size=(n_particles, 3))
    units = np.maximum(np.outer(theta[:, 1], x) + theta[:, 2:], 0.0) * theta[:, :1]
    f: FloatArray = np.add.accumulate(units / n_particles)[-1].copy()
    mean = np.zeros_like(x)
    done, total = 0, burn_in + n_sweeps
    leg = max(1, _LEG // (n_particles * (x.size + 10)))
    while done < total:
        # A leg ends where the average begins.
        end = min(done + leg, total if done >= burn_in else burn_in)
        sums = mean if done >= burn_in else np.zeros_like(x)
        _langevin(x, y, beta, temperature, theta, end - done, n_sweeps, step / beta, rng, f, sums)
        done = end
        energy = 0.5 * float((f - y) @ (f - y)) + beta / (2 * n_particles) * float(np.sum(theta**2))
        if stops(done, energy):
            break
    if done <= burn_in:
        return f
    averaged: FloatArray = mean * (n_sweeps / (done - burn_in))
    return averaged


@compiled
def _langevin(
    x: FloatArray,
    y: FloatArray,
    beta: float,
    temperature: float,
    theta: FloatArray,
    n_sweeps: int,
    n_averaged: int,
    step: float,
    rng: np.random.Generator,
    f: FloatArray,
    mean: FloatArray,
) -> None:
    """Move the particles and their outputs ``f``; add the outputs over ``n_averaged`` to ``mean``
    after each sweep."""
    n, n_particles = x.size, theta.shape[0]
    moved = np.zeros(n)
    drift, back, proposal = np.zeros(3), np.zeros(3), np.zeros(3)
    noise = np.sqrt(2 * step * temperature)
    for _ in range(n_sweeps):
        for j in range(n_particles):
            _drift(x, y, f, beta, theta[j], drift)
            forward = 0.0
            for k in range(3):
                xi = rng.standard_normal()
                forward += xi * xi / 2
                proposal[k] = theta[j, k] - step * drift[k] + noise * xi
            energy = 0.0
            for i in range(n):
                now = theta[j, 0] * max(theta[j, 1] * x[i] + theta[j, 2], 0.0)
                then = proposal[0] * max(proposal[1] * x[i] + proposal[2], 0.0)
                moved[i] = f[i] + (then - now) / n_particles
                energy += n_particles * ((moved[i] - y[i]) ** 2 - (f[i] - y[i]) ** 2) / 2
            _drift(x, y, moved, beta, proposal, back)
            backward = 0.0
            for k in range(3):
                energy += beta * (proposal[k] ** 2 - theta[j, k] ** 2) / 2
                backward += (theta[j, k] - proposal[k] + step * back[k]) ** 2 / (2 * noise * noise)
            if np.log(rng.random()) < forward - backward - energy / temperature:
                for k in range(3):
                    theta[j, k] = proposal[k]
                for i in range(n):
                    f[i] = moved[i]
        for i in range(n):
            mean[i] += f[i] / n_averaged


@compiled
def _drift(
    x: FloatArray, y: FloatArray, f: FloatArray, beta: float, theta: FloatArray, out: FloatArray
) -> None:
    for k in range(3):
        out[k] = beta * theta[k]
    for i in range(x.size):
        hidden = theta[1] * x[i] + theta[2]
        if hidden > 0:
            pull = y[i] - f[i]
            out[0] -= pull * hidden
            out[1] -= pull * theta[0] * x[i]
            out[2] -= pull * theta[0]


@refuses_overflow("x", "y")
def descend_particles(
    x: ArrayLike,
    y: ArrayLike,
    n_particles: int,
    *,
    n_steps: int = 20,
    step: float = 0.1,
    n_networks: int = 100,
    exponent: float = 1.0,
    seed: int = 0,
    callback: Callback | None = None,
) -> FloatArray:
    r"""Return the predictions of independently initialized networks after full-batch descent.

    The network is ``f = N^-p sum_j a_j relu(w_j x + b_j)``, its parameters start standard normal
    and take ``n_steps`` gradient steps of size ``step N^(2p-1)`` on ``1/2 mean (f(x_i) - y_i)^2``:
    the function moves at a speed that does not depend on N, and so does every particle in the
    mean-field scaling ``p = 1``.

    Parameters
    ----------
    x, y
        (n,) inputs and outputs.
    n_particles
        N.
    n_steps, step
        Number and size of the steps, in units of the time of the gradient flow.
    n_networks
        Number of independent initializations.
    exponent
        p, between 0 and 1.
    seed
        Seed of the initializations.
    callback
        Called with the number of networks made and the loss of the last; no more are made where it
        returns True.

    Returns
    -------
    numpy.ndarray
        (n_networks, n) predictions at the data.

    Examples
    --------
    >>> from theorylab.convex_relu import descend_particles
    >>> descend_particles([-1.0, 1.0], [0.0, 1.0], 50, n_networks=3).shape
    (3, 2)
    """
    x, y = as_data(x, y)
    n_particles = as_count(n_particles, "n_particles")
    n_steps = as_count(n_steps, "n_steps", minimum=0)
    step = as_real(step, "step", above=0)
    n_networks = as_count(n_networks, "n_networks")
    scale = n_particles ** -as_real(exponent, "exponent", minimum=0, maximum=1)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    stops = watcher(callback)
    # The gradient carries the scale, the size of the step its inverse square over N.
    rate = step / (n_particles * scale * x.size)
    leg = max(1, _LEG // (n_particles * x.size))
    predictions = np.zeros((n_networks, x.size))
    for made, f in enumerate(predictions, 1):
        theta = rng.normal(size=(n_particles, 3))
        for first in range(0, n_steps + 1, leg):
            _descend(x, y, theta, first, min(first + leg, n_steps + 1), rate, scale, f)
        if stops(made, 0.5 * float(np.mean((f - y) ** 2))):
            return predictions[:made]
    return predictions


@compiled
def _descend(
    x: FloatArray,
    y: FloatArray,
    theta: FloatArray,
    first: int,
    last: int,
    rate: float,
    scale: float,
    f: FloatArray,
) -> None:
    """Take the steps from ``first`` on and before ``last``, where step 0 only evaluates:
    ``theta`` and the predictions ``f`` are overwritten."""
    pull = np.zeros(x.size)
    for done in range(first, last):
        for i in range(x.size):
            pull[i] = y[i] - f[i]
            f[i] = 0.0
        for j in range(theta.shape[0]):
            a, w, b = theta[j, 0], theta[j, 1], theta[j, 2]
            if done:
                for i in range(x.size):
                    hidden = w * x[i] + b
                    if hidden > 0:
                        theta[j, 0] += rate * pull[i] * hidden
                        theta[j, 1] += rate * pull[i] * a * x[i]
                        theta[j, 2] += rate * pull[i] * a
                a, w, b = theta[j, 0], theta[j, 1], theta[j, 2]
            for i in range(x.size):
                f[i] += scale * a * max(w * x[i] + b, 0.0)
