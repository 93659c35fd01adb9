"""Reward processes: stationary laws, copies, exact and sampled transitions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theorylab.random_features import (
    exact_transitions,
    random_reward_process,
    repeat_process,
    reward_process,
    sampled_transitions,
)


def test_stationary_law():
    process = random_reward_process(30, dimension=4, seed=0)
    assert_allclose(process.stationary @ process.transitions, process.stationary, atol=1e-14)
    assert_allclose(process.transitions.sum(axis=1), 1)
    assert_allclose(np.linalg.norm(process.points, axis=1), 2)
    long = np.linalg.matrix_power(process.transitions, 4000)
    assert_allclose(long[3], process.stationary, atol=1e-10)
    cycle = random_reward_process(4, dimension=4, branching=0, seed=0)
    assert_allclose(cycle.transitions, np.roll(np.eye(4), 1, axis=1))
    periodic = reward_process(np.eye(2), [[0.0, 1.0], [1.0, 0.0]], [0.0, 1.0])
    assert_allclose(periodic.stationary, 0.5)
    with pytest.raises(ValueError, match="transitions: expected one recurrent class"):
        reward_process(np.eye(2), np.eye(2), [0.0, 0.0])
    for entry in (0.4, 0.5 + 1e-8):
        with pytest.raises(ValueError, match="transitions: expected rows that sum to 1"):
            reward_process(np.eye(2), np.full((2, 2), entry), [0.0, 0.0])


def test_copies_are_orthogonal_and_do_not_meet():
    one = random_reward_process(5, dimension=3, seed=1)
    two = repeat_process(one, 2)
    assert_allclose(two.points @ two.points.T, np.kron(np.eye(2), one.points @ one.points.T))
    assert_allclose(two.stationary @ two.transitions, two.stationary)
    assert_allclose(two.stationary.sum(), 1)
    assert_allclose(two.rewards, np.tile(one.rewards, 2))


def test_exact_transitions_of_all_states_are_the_true_ones():
    process = random_reward_process(7, dimension=3, seed=2)
    data = exact_transitions(process, range(7), discount=0.8)
    assert_allclose(data.differences.T, data.true_map)
    assert_allclose(data.rewards, data.true_rewards)
    assert_allclose(data.states, np.diag(np.sqrt(process.stationary)))
    part = exact_transitions(process, [4, 1], discount=0.8)
    assert_allclose(part.differences, data.differences[:, [4, 1]])
    assert part.visited == 2
    for odd in ([1, 1], [7], [0.5], [-1]):
        with pytest.raises(ValueError, match="visited: expected"):
            exact_transitions(process, odd, discount=0.5)


def test_sampled_transitions_are_exact_ones_on_average():
    process = random_reward_process(5, dimension=3, seed=3)
    data = sampled_transitions(process, 20_000, discount=0.8, seed=0)
    assert data.visited == 5
    exact = exact_transitions(process, range(5), discount=0.8)
    assert_allclose(data.states @ data.states.T, exact.states @ exact.states.T, atol=0.01)
    assert_allclose(
        data.states @ data.differences.T, exact.states @ exact.differences.T, atol=0.015
    )
    assert_allclose(data.states @ data.rewards, exact.states @ exact.rewards, atol=0.03)
    few = sampled_transitions(process, 2, discount=0.0, seed=0)
    assert (few.states == few.differences).all()
    assert_allclose(np.sum(few.states**2), 1)
    assert few.visited == len(np.unique(np.nonzero(few.states)[0]))
