r"""Reward processes on finitely many states, and the transitions that a learner sees of them.

Transitions are columns: U holds the states, A the states less $\gamma$ times the next ones
(or their law), each scaled by the root of its weight, so that Bellman errors are squared norms.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real
from theorylab.numerics.results import result

__all__ = [
    "RewardProcess",
    "Transitions",
    "exact_transitions",
    "random_reward_process",
    "repeat_process",
    "reward_process",
    "sampled_transitions",
]

_STATES = 10_000  # of copies, whose transitions are the square of their number


@result
class RewardProcess:
    r"""Points (S, d), transition matrix (S, S), mean rewards (S,) and stationary law (S,)."""

    points: FloatArray
    transitions: FloatArray
    rewards: FloatArray
    stationary: FloatArray


@result
class Transitions:
    r"""What least-squares temporal differences see, and what they are judged by.

    Attributes
    ----------
    process, discount
        The reward process and $\gamma$.
    states, differences, rewards
        U and A, (S, n), and $\hat r$, (n,).
    visited
        m, the number of distinct states visited.
    """

    process: RewardProcess
    discount: float
    states: FloatArray
    differences: FloatArray
    rewards: FloatArray
    visited: int

    @property
    def true_map(self) -> FloatArray:
        r"""$D_\pi^{1/2}(I-\gamma P)$."""
        P = self.process.transitions
        root = np.sqrt(self.process.stationary)[:, None]
        found: FloatArray = root * (np.eye(len(P)) - self.discount * P)
        return found

    @property
    def true_rewards(self) -> FloatArray:
        r"""$D_\pi^{1/2}\bar r$."""
        return np.sqrt(self.process.stationary) * self.process.rewards


def reward_process(points: ArrayLike, transitions: ArrayLike, rewards: ArrayLike) -> RewardProcess:
    """Return a reward process with its stationary law.

    Parameters
    ----------
    points
        (S, d) states.
    transitions
        (S, S) rows that sum to one, with one recurrent class.
    rewards
        (S,) mean rewards.

    Examples
    --------
    >>> from theorylab.random_features import reward_process
    >>> reward_process([[0.0], [1.0]], [[0.5, 0.5], [1.0, 0.0]], [0.0, 1.0]).stationary.round(6)
    array([0.666667, 0.333333])
    """
    x = as_array(points, "points", ndim=2)
    P = as_array(transitions, "transitions", shape=(len(x), len(x)), nonnegative=True)
    r = as_array(rewards, "rewards", shape=(len(x),))
    if np.abs(P.sum(axis=1) - 1).max() > 1e-9:
        raise ValueError(f"transitions: expected rows that sum to 1, got {P.sum(axis=1)}")
    system = np.vstack([P.T - np.eye(len(x)), np.ones(len(x))])
    law, _, rank, _ = np.linalg.lstsq(system, np.append(np.zeros(len(x)), 1.0), rcond=1e-12)
    if rank < len(x):
        raise ValueError("transitions: expected one recurrent class, got several")
    law = np.maximum(law, 0.0)
    return RewardProcess(x, P, r, law / law.sum())


def random_reward_process(
    n_states: int, *, dimension: int, branching: int = 3, seed: int
) -> RewardProcess:
    """Return states on the sphere of radius sqrt(d) in d dimensions, each with uniformly drawn
    successors and weights, and rewards linear in the state plus noise.

    Parameters
    ----------
    n_states, dimension
        Numbers of states and of coordinates.
    branching
        Successors of a state drawn at random, besides the next one on a cycle.
    seed
        Seeds everything.

    Examples
    --------
    >>> from theorylab.random_features import random_reward_process
    >>> random_reward_process(20, dimension=5, seed=0).transitions.shape
    (20, 20)
    """
    S, d = as_count(n_states, "n_states", minimum=2), as_count(dimension, "dimension")
    extra = as_count(branching, "branching", minimum=0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    x = rng.standard_normal((S, d))
    x *= math.sqrt(d) / np.linalg.norm(x, axis=1, keepdims=True)
    P = np.zeros((S, S))
    rows = np.arange(S)
    P[rows, (rows + 1) % S] = rng.random(S) + 0.1
    for _ in range(extra):
        P[rows, rng.integers(S, size=S)] += rng.random(S)
    slope = rng.standard_normal(d) / math.sqrt(d)
    rewards = x @ slope + 0.5 * rng.standard_normal(S)
    return reward_process(x, P / P.sum(axis=1, keepdims=True), rewards)


def repeat_process(process: RewardProcess, copies: int) -> RewardProcess:
    """Return independent copies of a process whose states lie in orthogonal subspaces.

    For features with a kernel that vanishes between orthogonal states, such as ``"erf"``, every
    deterministic limit is the same for k copies, k times the features and the ridge divided by k:
    what a simulation differs by is the error at k times the size.

    Parameters
    ----------
    process
        The reward process.
    copies
        Their number; at most 10,000 states in all.

    Examples
    --------
    >>> from theorylab.random_features import random_reward_process, repeat_process
    >>> repeat_process(random_reward_process(20, dimension=5, seed=0), 3).points.shape
    (60, 15)
    """
    one, k = as_instance(process, "process", RewardProcess), as_count(copies, "copies")
    if k * len(one.points) > _STATES:
        raise ValueError(
            f"copies: expected at most {_STATES} states, got {k} copies of {len(one.points)}"
        )
    eye = np.eye(k)
    return RewardProcess(
        as_array(np.kron(eye, one.points), "process"),
        as_array(np.kron(eye, one.transitions), "process"),
        np.tile(one.rewards, k),
        np.tile(one.stationary / k, k),
    )


def exact_transitions(
    process: RewardProcess, visited: ArrayLike, *, discount: float
) -> Transitions:
    """Return the transitions of visited states: once each, with exact row and stationary weight.

    Parameters
    ----------
    process
        The reward process.
    visited
        (m,) distinct indices of states.
    discount
        In [0, 1).

    Examples
    --------
    >>> from theorylab.random_features import exact_transitions, random_reward_process
    >>> process = random_reward_process(20, dimension=5, seed=0)
    >>> exact_transitions(process, range(12), discount=0.9).visited
    12
    """
    P = as_instance(process, "process", RewardProcess)
    at = _indices(visited, "visited", len(P.points))
    if len(np.unique(at)) < len(at):
        raise ValueError(f"visited: expected distinct states, got {at}")
    return _collected(P, at, P.transitions[at], P.stationary[at], discount, P.rewards[at])


def sampled_transitions(
    process: RewardProcess, n_samples: int, *, discount: float, seed: int
) -> Transitions:
    """Return transitions from states drawn from the stationary law to next states drawn at random,
    of weight 1/n each.

    Parameters
    ----------
    process
        The reward process.
    n_samples
        Number n of transitions.
    discount
        In [0, 1).
    seed
        Seeds the draws.

    Examples
    --------
    >>> from theorylab.random_features import random_reward_process, sampled_transitions
    >>> process = random_reward_process(20, dimension=5, seed=0)
    >>> sampled_transitions(process, 50, discount=0.9, seed=0).states.shape
    (20, 50)
    """
    P = as_instance(process, "process", RewardProcess)
    n = as_count(n_samples, "n_samples")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    at = rng.choice(len(P.points), size=n, p=P.stationary)
    reached = np.array([rng.choice(len(P.points), p=P.transitions[s]) for s in at])
    rows = np.eye(len(P.points))[reached]
    return _collected(P, at, rows, np.full(n, 1.0 / n), discount, P.rewards[at])


def _indices(value: ArrayLike, name: str, size: int) -> NDArray[np.int64]:
    raw = as_array(value, name, ndim=1, nonnegative=True)
    if (raw != np.round(raw)).any() or (raw >= size).any():
        raise ValueError(f"{name}: expected indices below {size}, got {raw}")
    return raw.astype(np.int64)


def _collected(
    process: RewardProcess,
    at: NDArray[np.int64],
    rows: FloatArray,
    weights: FloatArray,
    discount: float,
    rewards: FloatArray,
) -> Transitions:
    gamma = as_real(discount, "discount", minimum=0.0, below=1.0)
    root = np.sqrt(weights)
    states = (np.eye(len(process.points))[at] * root[:, None]).T
    differences = states - gamma * (rows * root[:, None]).T
    m = len(np.unique(at))
    return Transitions(process, gamma, states, differences, root * rewards, m)
